-- name: maintenance_begin(key)$
-- Tries to take the lock of a maintenance task, until maintenance_end or the end of the session. Returns whether it
-- did.
SELECT pg_try_advisory_lock(:key);

-- name: maintenance_end(key)!
-- Releases the lock of a maintenance task.
SELECT pg_advisory_unlock(:key);

-- name: leases_expired(limit)
-- Rows: expired leases; see routines/maintenance.sql.
SELECT task_id, lease_id, worker_id, timed_out, length, stage_type FROM expired_leases(:limit);

-- name: delayed_wake(limit)$
-- Returns due tasks of one stage to the queue; see routines/maintenance.sql.
SELECT wake_tasks(:limit);

-- name: task_sweep(limit)$
-- CREATED, PENDING, RETRIED, IN_PROGRESS → ABORTED, in the rows of aborted stages; see routines/maintenance.sql.
SELECT sweep_aborted_stage(:limit);

-- name: deltas_stages()
-- Rows: the stages that have deltas.
SELECT DISTINCT stage_id FROM stage_deltas;

-- name: deltas_fold(stage_id)!
-- Adds a stage's deltas to its counts; see routines/maintenance.sql.
SELECT fold_stage(:stage_id);

-- name: totals_fold()$
-- Sums up the totals for metrics; see routines/maintenance.sql.
SELECT fold_totals();
