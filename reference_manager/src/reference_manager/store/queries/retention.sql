-- name: retention_is_on()$
-- Returns whether a rule deletes jobs.
SELECT retention_is_on();

-- name: retention_archives()$
-- Returns whether a job must be in an archive before it is deleted.
SELECT archive FROM retention_state;

-- name: retention_is_due()$
-- Returns whether jobs are deleted, and a pass is due; see routines/retention.sql.
SELECT retention_is_due();

-- name: retention_advance(seen, passed)^
-- Moves the clock of retention; see routines/retention.sql.
SELECT clock, behind FROM advance_retention_clock(:seen, :passed);

-- name: retention_find(limit)$
-- Records jobs that ended before their ends were recorded. Returns the number of examined jobs; see
-- routines/retention.sql.
SELECT find_ended_jobs(:limit);

-- name: retention_due_jobs(first_name, again, passed, names, limit)
-- Rows: due jobs of the names from this one on; see routines/retention.sql.
SELECT name, status, ended_at, job_id, due FROM due_jobs(:first_name, :again, :passed, :names, :limit);

-- name: retention_delete(ids, prints, stages, waits)^
-- Deletes jobs that are due. Rows: the skipped jobs, and the numbers of deleted ones; see routines/retention.sql.
SELECT busy, completed, failed, aborted FROM delete_due_jobs(:ids, :prints, :stages, :waits);

-- name: retention_finish(duration, completed, failed, aborted, due)!
-- Records what a pass saw, and when the next one is due; see routines/retention.sql.
SELECT finish_retention_pass(:duration, :completed, :failed, :aborted, :due);

-- name: retention_get()$
-- Returns the rules as JSON.
SELECT retention_wire();

-- name: retention_set(names, completed, failed, aborted, kept, archive)$
-- Replaces the rules. Returns them as JSON; see routines/retention.sql.
SELECT set_retention(:names, :completed, :failed, :aborted, :kept, :archive);

-- name: metric_retention()^
-- Rows: for how long the oldest ended job of each status has been kept, the number of due jobs, as the last pass saw them,
-- and how far the clock of retention is behind.
SELECT
    extract(epoch FROM now() - oldest_completed)::float8 AS completed,
    extract(epoch FROM now() - oldest_failed)::float8 AS failed,
    extract(epoch FROM now() - oldest_aborted)::float8 AS aborted,
    due,
    greatest(extract(epoch FROM now() - clock), 0)::float8 AS behind
FROM retention_state;
