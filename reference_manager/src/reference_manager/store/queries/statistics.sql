-- What a scrape reads: rows for stage types and for what is under way, never for what has ended.

-- name: metric_jobs()
-- How many jobs have each status.
SELECT status, sum(jobs)::bigint AS count FROM job_totals GROUP BY status;

-- name: metric_stages()
-- How many stages have each type, priority and status, and how many tasks they have in each status by their own counts.
SELECT type, priority, status, sum(stages)::bigint AS stages, sum(pending)::bigint AS pending,
    sum(in_progress)::bigint AS in_progress, sum(retried)::bigint AS retried, sum(completed)::bigint AS completed,
    sum(failed)::bigint AS failed, sum(aborted)::bigint AS aborted
FROM stage_totals GROUP BY type, priority, status;

-- name: metric_moves()
-- What claims and reports have moved and nobody has added to the stages' counts yet; see routines/statistics.sql.
SELECT type, priority, pending, retried, in_progress, completed FROM unfolded_moves();

-- name: metric_oldest()
-- For how many seconds the oldest task of each stage type waits; see routines/statistics.sql.
SELECT type, age FROM oldest_waiting();

-- name: metric_dead_tuples()
-- Row versions that nobody sees any more and that vacuum has not removed yet, by table, as the server estimates them.
SELECT relname AS name, pg_stat_get_dead_tuples(oid) AS count FROM pg_class
WHERE relnamespace = 'jobnik'::regnamespace AND relkind = 'r' AND relname <> 'migrations';

-- name: metric_oldest_xmin()$
-- How many transactions ago the oldest began that keeps vacuum from removing row versions. Sessions of other users count only
-- for a user with pg_read_all_stats.
SELECT coalesce(max(age(xid)), 0) FROM (
    SELECT backend_xmin FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
        AND backend_type <> 'autovacuum worker' -- vacuum is not in its own way
    -- Of any database: the snapshots of this one reach back to whatever still writes.
    UNION ALL SELECT backend_xid FROM pg_stat_activity
    UNION ALL SELECT transaction FROM pg_prepared_xacts
    UNION ALL SELECT xmin FROM pg_replication_slots
) AS held (xid);

-- name: database_ping()$
-- 1, if the database answers.
SELECT 1;
