-- upsert_workers: records heartbeats of different workers; the arrays have one item for each. Rows: each worker, and
-- whether it must drain. Locks the rows by id, so that two sessions cannot deadlock, and fails after waiting this long
-- for one.
CREATE OR REPLACE FUNCTION upsert_workers(
    ids text[], stage_types json[], hosts text[], versions text[], draining boolean[], running integer[],
    wait interval
) RETURNS TABLE (id text, drain_wanted boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM limit_lock_waits(wait);
    RETURN QUERY
    INSERT INTO workers AS worker (id, stage_types, host, version, draining, running)
    SELECT id, ARRAY(SELECT json_array_elements_text(stage_types)), host, version, draining, running
    FROM unnest(ids, stage_types, hosts, versions, draining, running)
        AS heartbeat (id, stage_types, host, version, draining, running)
    ORDER BY id
    ON CONFLICT (id) DO UPDATE SET
        stage_types = excluded.stage_types,
        host = coalesce(excluded.host, worker.host), version = coalesce(excluded.version, worker.version),
        draining = excluded.draining, running = excluded.running, seen_at = now()
    RETURNING worker.id, worker.drain_wanted;
END
$$;

-- renew_leases: the leases of heartbeats of any number of workers; the arrays have one item for each lease. Renews the
-- leases that their workers still hold, and stores the progress and the checkpoints of their tasks, and the fraction of
-- the progress in the lease. Rows: the items whose leases the workers must give up, each LOST, or CANCEL if its job was
-- aborted; and those whose progress or checkpoint is not stored, because another session has locked the task, each LOCKED;
-- with their places in the arrays. Does not wait for locks: a lease that is being settled needs no renewal, and a
-- settlement that waits for its job holds no lease (see lock_to_settle).
-- Plans are pinned to index scans, as in claim_tasks. The results are joined with the arguments without nested loops,
-- which would compare ten thousand tasks with one another.
CREATE OR REPLACE FUNCTION renew_leases(
    workers text[], wanted_ids uuid[], wanted_leases bigint[], progresses json[], checkpoints json[]
) RETURNS TABLE (place integer, verdict text) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_nestloop = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH item AS MATERIALIZED (
        SELECT * FROM unnest(workers, wanted_ids, wanted_leases, progresses, checkpoints) WITH ORDINALITY
            AS item (worker_id, task_id, lease_id, progress, checkpoint, place)
    ), current_status AS MATERIALIZED (
        SELECT task.id, stage.status = 'ABORTED' AS aborted
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
        WHERE task.id = ANY (wanted_ids)
    ), held AS MATERIALIZED (
        SELECT item.place, lease.id, lease.task_id FROM (
            SELECT id, task_id, worker_id FROM leases WHERE id = ANY (wanted_leases)
        ) AS lease
        JOIN item ON item.lease_id = lease.id AND item.task_id = lease.task_id AND item.worker_id = lease.worker_id
    ), locked AS MATERIALIZED (
        SELECT lease.id, lease.task_id FROM leases AS lease
        WHERE lease.id = ANY (ARRAY(
            SELECT held.id FROM held
            JOIN current_status ON current_status.id = held.task_id AND NOT current_status.aborted
        ))
        FOR NO KEY UPDATE SKIP LOCKED
    ), reported AS MATERIALIZED (
        SELECT item.* FROM item
        JOIN held ON held.place = item.place
        JOIN locked ON locked.id = item.lease_id
    ), renewed AS (
        UPDATE leases AS lease SET
            expires_at = least(now() + length, deadline),
            fraction = coalesce((reported.progress->>'fraction')::numeric, fraction)
        FROM reported WHERE lease.id = ANY (ARRAY(SELECT id FROM locked)) AND lease.id = reported.lease_id
    ), changing AS MATERIALIZED (
        SELECT id FROM tasks
        WHERE id = ANY (ARRAY(
            SELECT task_id FROM reported WHERE progress IS NOT NULL OR checkpoint IS NOT NULL
        ))
        FOR NO KEY UPDATE SKIP LOCKED
    ), changed AS (
        UPDATE tasks AS task SET
            progress = coalesce(reported.progress, task.progress),
            checkpoint = coalesce(reported.checkpoint, task.checkpoint),
            updated_at = now()
        FROM reported
        WHERE task.id = ANY (ARRAY(SELECT id FROM changing)) AND task.id = reported.task_id
            AND (reported.progress IS NOT NULL OR reported.checkpoint IS NOT NULL)
    )
    SELECT item.place::integer, CASE WHEN current_status.aborted THEN 'CANCEL' ELSE 'LOST' END
    FROM item
    LEFT JOIN current_status ON current_status.id = item.task_id
    WHERE coalesce(current_status.aborted, true) OR NOT EXISTS (SELECT FROM held WHERE held.place = item.place)
    UNION ALL
    SELECT reported.place::integer, 'LOCKED' FROM reported
    WHERE (progress IS NOT NULL OR checkpoint IS NOT NULL) AND task_id <> ALL (ARRAY(SELECT id FROM changing))
    ORDER BY 1;
END
$$;
