-- Run once, possibly while managers are running. Adds tables that managers of the previous version may ignore.

-- How long ended jobs are kept.
CREATE TABLE retention_rules (
    -- The empty string: all jobs whose name has no rule of its own.
    job_name text PRIMARY KEY,
    -- How long after its end a job with each status is deleted; null: it is kept.
    completed_after interval CHECK (completed_after > interval '0'),
    failed_after interval CHECK (failed_after > interval '0'),
    aborted_after interval CHECK (aborted_after > interval '0'),
    -- This number of jobs of each name that ended last are kept in any case.
    keep_last integer NOT NULL DEFAULT 0 CHECK (keep_last >= 0)
);

-- What all managers share about retention: one row.
CREATE TABLE retention_state (
    -- The latest time by which jobs are judged. It runs at most twice as fast as time passes, so that a clock that jumps
    -- ahead does not make all jobs old.
    clock timestamptz NOT NULL DEFAULT now(),
    -- When the next pass over the ended jobs is due.
    next_pass timestamptz NOT NULL DEFAULT now(),
    -- The jobs that ended before migration 0020 are found in the order of their creation, up to here; null: all are.
    found_to timestamptz,
    found_seq bigint NOT NULL DEFAULT 0,
    -- What the last pass saw: the end of the oldest job of each status, and the number of jobs that were due.
    oldest_completed timestamptz,
    oldest_failed timestamptz,
    oldest_aborted timestamptz,
    due bigint NOT NULL DEFAULT 0,
    -- Whether a job must be in an archive before it is deleted.
    archive boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- A database is new if all of its migrations are recorded, and no manager has created its routines yet. Only a new
-- database deletes jobs by default, and only there all ended jobs are known.
WITH database AS (
    SELECT EXISTS (SELECT FROM applied_migrations WHERE number = '0001')
        AND NOT EXISTS (SELECT FROM routine_sets) AS is_new
), rules AS (
    INSERT INTO retention_rules (job_name, completed_after, failed_after, aborted_after)
    SELECT '', CASE WHEN is_new THEN interval '30 days' END, CASE WHEN is_new THEN interval '90 days' END,
        CASE WHEN is_new THEN interval '30 days' END
    FROM database
)
INSERT INTO retention_state (found_to) SELECT CASE WHEN NOT is_new THEN '-infinity'::timestamptz END FROM database;
