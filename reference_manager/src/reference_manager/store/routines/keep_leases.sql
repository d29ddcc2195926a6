-- keep_leases: a heartbeat of a worker. Renews the leases that the worker still holds, and stores the progress and the
-- checkpoints of their tasks, and the fraction of the progress in the lease. Rows: the leases that the worker must give
-- up, each LOST, or CANCEL if its job was aborted. Does not wait for locks: a lease that is being settled needs no
-- renewal.
-- Plans are pinned to index scans, as in claim_tasks. The results are joined with the arguments without nested loops,
-- which would compare ten thousand tasks with one another.
CREATE OR REPLACE FUNCTION keep_leases(
    wanted_worker text, wanted_ids uuid[], wanted_leases bigint[], progresses json[], checkpoints json[]
) RETURNS TABLE (lease_id bigint, verdict text) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_nestloop = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH item AS MATERIALIZED (
        SELECT * FROM unnest(wanted_ids, wanted_leases, progresses, checkpoints)
            AS item (task_id, lease_id, progress, checkpoint)
    ), current_status AS MATERIALIZED (
        SELECT task.id, stage.status = 'ABORTED' AS aborted
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
        WHERE task.id = ANY (wanted_ids)
    ), held AS MATERIALIZED (
        SELECT lease.id, lease.task_id FROM leases AS lease
        WHERE lease.id = ANY (wanted_leases) AND lease.worker_id = wanted_worker
    ), locked AS MATERIALIZED (
        SELECT lease.id, lease.task_id FROM leases AS lease
        WHERE lease.id = ANY (ARRAY(
            SELECT held.id FROM held
            JOIN item ON item.lease_id = held.id AND item.task_id = held.task_id
            JOIN current_status ON current_status.id = held.task_id AND NOT current_status.aborted
        ))
        FOR NO KEY UPDATE SKIP LOCKED
    ), renewed AS (
        UPDATE leases AS lease SET
            expires_at = least(now() + length, deadline),
            fraction = coalesce((item.progress->>'fraction')::numeric, fraction)
        FROM item WHERE lease.id = ANY (ARRAY(SELECT id FROM locked)) AND lease.id = item.lease_id
    ), reported AS (
        UPDATE tasks AS task SET
            progress = coalesce(item.progress, task.progress),
            checkpoint = coalesce(item.checkpoint, task.checkpoint),
            updated_at = now()
        FROM item JOIN locked ON locked.id = item.lease_id
        WHERE task.id = ANY (ARRAY(SELECT task_id FROM locked)) AND task.id = item.task_id
            AND (item.progress IS NOT NULL OR item.checkpoint IS NOT NULL)
    )
    SELECT item.lease_id, CASE WHEN current_status.aborted THEN 'CANCEL' ELSE 'LOST' END
    FROM item
    LEFT JOIN current_status ON current_status.id = item.task_id
    WHERE coalesce(current_status.aborted, true)
        OR NOT EXISTS (SELECT FROM held WHERE held.id = item.lease_id AND held.task_id = item.task_id);
END
$$;
