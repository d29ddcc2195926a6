-- Statistics for metrics. They read rows of stage types and of unfinished work, never of finished work.

-- name: metric_jobs()
-- Rows: the number of jobs by status.
SELECT status, sum(jobs)::bigint AS count FROM job_totals GROUP BY status;

-- name: metric_stages()
-- Rows: the number of stages by type, priority and status, and their counts of tasks by status.
SELECT type, priority, status, sum(stages)::bigint AS stages, sum(pending)::bigint AS pending,
    sum(in_progress)::bigint AS in_progress, sum(retried)::bigint AS retried, sum(completed)::bigint AS completed,
    sum(failed)::bigint AS failed, sum(aborted)::bigint AS aborted
FROM stage_totals GROUP BY type, priority, status;

-- name: metric_moves()
-- Rows: the deltas that are not in the counts of their stages yet; see routines/statistics.sql.
SELECT type, priority, pending, retried, in_progress, completed FROM unfolded_moves();

-- name: metric_oldest()
-- Rows: how long the oldest claimable task of each stage type has been waiting; see routines/statistics.sql.
SELECT type, age FROM oldest_waiting();

-- name: metric_maintenance_lag()
-- Rows: for how many seconds the oldest work of each maintenance task has been due; see routines/statistics.sql.
SELECT name, lag FROM maintenance_lag();

-- name: metric_dead_tuples()
-- Rows: the dead row versions that vacuum has not removed yet, by table, as estimated by the server.
SELECT relname AS name, pg_stat_get_dead_tuples(oid) AS count FROM pg_class
WHERE relnamespace = 'jobnik'::regnamespace AND relkind = 'r' AND relname <> 'migrations';

-- name: metric_oldest_xmin()$
-- Returns the age, in transactions, of the oldest transaction that keeps vacuum from removing row versions. Sessions of
-- other users count only if the manager's user has pg_read_all_stats.
SELECT coalesce(max(age(xid)), 0) FROM (
    SELECT backend_xmin FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
        AND backend_type <> 'autovacuum worker' -- vacuum does not hold itself up
    -- Of all databases: the snapshots in this one reach back to the oldest transaction that still writes.
    UNION ALL SELECT backend_xid FROM pg_stat_activity
    UNION ALL SELECT transaction FROM pg_prepared_xacts
    UNION ALL SELECT xmin FROM pg_replication_slots
) AS held (xid);
