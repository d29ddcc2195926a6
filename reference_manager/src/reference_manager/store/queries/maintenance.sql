-- name: maintenance_begin(key)$
-- Tries to take the lock of a maintenance task, until maintenance_end or the end of the session. Returns whether it
-- did.
SELECT pg_try_advisory_lock(:key);

-- name: maintenance_end(key)!
-- Releases the lock of a maintenance task.
SELECT pg_advisory_unlock(:key);

-- name: leases_are_due()$
-- Returns whether a lease has expired; see routines/due_work.sql.
SELECT leases_are_due();

-- name: delayed_wait()$
-- Returns the seconds until the next delayed task is due, at most 0 if one is, null if there is none; see
-- routines/due_work.sql.
SELECT delayed_wait();

-- name: folding_is_due()$
-- Returns whether there are deltas to fold, or totals to sum up; see routines/due_work.sql.
SELECT folding_is_due();

-- name: aborted_are_due()$
-- Returns whether there are tasks to sweep. The stages of the table are waiting for nothing else.
SELECT EXISTS (SELECT FROM aborted_stages);

-- name: deleted_are_due()$
-- Returns whether there are tasks to delete. The stages of the table are waiting for nothing else.
SELECT EXISTS (SELECT FROM deleted_stages);

-- name: leases_expired(passed, limit)
-- Rows: expired leases of jobs that are not in `passed`; see routines/maintenance.sql.
SELECT job_id, task_id, lease_id, worker_id, timed_out, length, stage_type FROM expired_leases(:passed, :limit);

-- name: delayed_due(passed, limit)
-- Rows: due tasks of jobs that are not in `passed`; see routines/maintenance.sql.
SELECT job_id, task_id FROM due_tasks(:passed, :limit);

-- name: delayed_wake(ids, waits)^
-- Returns due tasks to the queue; see routines/maintenance.sql.
SELECT busy, woken FROM wake_tasks(:ids, :waits);

-- name: aborted_stages(passed, limit)
-- Rows: the stages with tasks to sweep, except those of the jobs in `passed`; see routines/maintenance.sql.
SELECT job_id, stage_id FROM unswept_stages(:passed, :limit);

-- name: tasks_sweep(stages, limit)$
-- CREATED, PENDING, RETRIED, IN_PROGRESS → ABORTED, in rows of aborted stages; see routines/maintenance.sql.
SELECT sweep_aborted_stages(:stages, :limit);

-- name: deleted_stages(passed, limit)
-- Rows: the deleted stages with tasks to delete, except those of the jobs in `passed`: one of
-- each job, then a second of each, and so on.
SELECT job_id, stage_id FROM (
    SELECT job_id, stage_id, deleted_at, row_number() OVER (PARTITION BY job_id ORDER BY stage_id) AS turn
    FROM deleted_stages WHERE job_id <> ALL (:passed::uuid[])
) AS queue
ORDER BY turn, deleted_at LIMIT :limit;

-- name: tasks_remove(stages, limit)$
-- Deletes tasks of deleted stages; see routines/maintenance.sql.
SELECT remove_deleted_stages(:stages, :limit);

-- name: deltas_stages(passed, limit)
-- Rows: the stages that have deltas, except those of the jobs in `passed`; see routines/maintenance.sql.
SELECT job_id, stage_id FROM unfolded_stages(:passed, :limit);

-- name: deltas_fold(stages, waits)$
-- Adds the deltas of stages to their counts. Returns the jobs that were skipped; see routines/maintenance.sql.
SELECT fold_stages(:stages, :waits);

-- name: totals_fold()$
-- Sums up the totals for metrics; see routines/maintenance.sql.
SELECT fold_totals();

-- name: keys_forget(limit)$
-- Deletes idempotency keys that are older than 24 hours. Returns their number; see routines/idempotency.sql.
SELECT forget_keys(:limit);
