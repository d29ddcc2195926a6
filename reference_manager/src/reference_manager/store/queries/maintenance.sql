-- name: maintenance_begin(key)$
-- Whether this session now holds the lock of the maintenance task. It does until maintenance_end, or until it closes.
SELECT pg_try_advisory_lock(:key);

-- name: maintenance_end(key)!
-- Releases the lock of the maintenance task.
SELECT pg_advisory_unlock(:key);

-- name: leases_expired(most)
-- Leases that are over; see routines/maintenance.sql.
SELECT task_id, lease_id, worker_id, timed_out, length, stage_type FROM expired_leases(:most);

-- name: delayed_wake(most)$
-- Delayed tasks of a stage, whose moment has come, go back to the queue; see routines/maintenance.sql.
SELECT wake_tasks(:most);

-- name: task_sweep(most)$
-- CREATED, PENDING, RETRIED, IN_PROGRESS → ABORTED; see routines/maintenance.sql.
SELECT sweep_aborted_stage(:most);

-- name: deltas_stages()
-- The stages whose counts have deltas.
SELECT DISTINCT stage_id FROM stage_deltas;

-- name: deltas_fold(stage_id)!
-- Adds a stage's deltas to its counts; see routines/maintenance.sql.
SELECT fold_stage(:stage_id);

-- name: totals_fold()$
-- Sums up the totals that metrics read; see routines/maintenance.sql.
SELECT fold_totals();
