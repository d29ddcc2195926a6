-- name: work_notify(channel, sender, stage_types)!
-- Tells every manager that listens of stage types for which there is work.
SELECT pg_notify(:channel, :sender || ' ' || stage_type) FROM unnest(:stage_types::text[]) AS listed (stage_type);

-- name: maintenance_begin(key)$
-- Whether this session now has the duty; no other manager gets it until maintenance_end, or until the connection closes.
SELECT pg_try_advisory_lock(:key);

-- name: maintenance_end(key)!
-- Lets others have the duty.
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

-- name: work_depth(type)$
-- How much work there is for a stage type, as JSON: what may be claimed, what is in progress, and both together, which is
-- what an autoscaler reads.
SELECT format('{"waiting":%s,"inProgress":%s,"total":%s}', waiting, running, waiting + running)
FROM (
    SELECT coalesce(sum(figures.waiting) FILTER (WHERE stage.job_open), 0) AS waiting,
        coalesce(sum(figures.running), 0) AS running
    FROM stages AS stage, LATERAL (
        SELECT stage.pending + stage.retried + coalesce(sum(moved.pending + moved.retried), 0)
                - (SELECT count(*) FROM delayed_tasks WHERE stage_id = stage.id) AS waiting,
            stage.in_progress + coalesce(sum(moved.in_progress), 0) AS running
        FROM stage_deltas AS moved WHERE moved.stage_id = stage.id
    ) AS figures
    WHERE stage.type = :type AND stage.status IN ('PENDING', 'IN_PROGRESS')
) AS work;
