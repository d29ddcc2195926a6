-- keep_leases(worker, what it says of itself, what it runs): a heartbeat. Renews the leases that it still holds and keeps the
-- progress and the checkpoints of their tasks, and its fraction on the lease. Rows: the leases that it must give up, each LOST or CANCEL (its job
-- was aborted).
-- Waits for nobody: a lease that is just being settled needs no renewal.
--
-- Plans are pinned to index walks, as in claim_tasks. What is found so is joined with what was said without nested loops:
-- ten thousand tasks at once would be compared each with each.
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
    ), standing AS MATERIALIZED (
        SELECT task.id, stage.status = 'ABORTED' AS aborted
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id]) WHERE task.id = ANY (wanted_ids)
    ), held AS MATERIALIZED (
        SELECT lease.id, lease.task_id FROM leases AS lease
        WHERE lease.id = ANY (wanted_leases) AND lease.worker_id = wanted_worker
    ), locked AS MATERIALIZED (
        SELECT lease.id, lease.task_id FROM leases AS lease
        WHERE lease.id = ANY (ARRAY(
            SELECT held.id FROM held
            JOIN item ON item.lease_id = held.id AND item.task_id = held.task_id
            JOIN standing ON standing.id = held.task_id AND NOT standing.aborted
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
    SELECT item.lease_id, CASE WHEN standing.aborted THEN 'CANCEL' ELSE 'LOST' END
    FROM item
    LEFT JOIN standing ON standing.id = item.task_id
    WHERE coalesce(standing.aborted, true)
        OR NOT EXISTS (SELECT FROM held WHERE held.id = item.lease_id AND held.task_id = item.task_id);
END
$$;
