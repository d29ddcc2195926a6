-- complete_tasks(task ids, lease ids, workers, results): task IN_PROGRESS → COMPLETED, where it is simple: the lease is the
-- current one and the worker's (both null: the task was claimed without), nobody changes the job at this moment, and the stage has tasks that wait, so that
-- nothing follows from it. Rows: the place of each item that was taken, and the task as JSON where it was claimed without
-- a lease. No row for an item: settle_tasks must look at it; nothing was changed.
--
-- Many may do this at once, since they hold the job's lock shared and add to the stage's counts by inserting deltas. None of
-- them can be the stage's last: each saw a task waiting under its lock, and whoever settles that one later either sees
-- another waiting or takes the lock alone, hence after these have ended. So the last of all is never in here.
--
-- Plans are pinned to index walks, as in claim_tasks.
CREATE OR REPLACE FUNCTION complete_tasks(wanted_ids uuid[], wanted_leases bigint[], workers text[], results json[])
RETURNS TABLE (place integer, body text) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    held bigint[];
    touched uuid[];
    locked uuid[];
    taken uuid[];
    places integer[];
BEGIN
    -- A lease has the same task and the same worker for as long as it lasts: it is enough to compare them once.
    SELECT array_agg(task.lease_id ORDER BY wanted.place), array_agg(DISTINCT task.stage_id)
    INTO held, touched
    FROM unnest(wanted_ids, wanted_leases, workers) WITH ORDINALITY AS wanted (id, lease_id, worker_id, place)
    LEFT JOIN (
        SELECT id, stage_id, lease_id, worker_id FROM tasks WHERE id = ANY (wanted_ids)
    ) AS task ON task.id = wanted.id
        AND task.lease_id = coalesce(wanted.lease_id, task.lease_id)
        AND task.worker_id IS NOT DISTINCT FROM wanted.worker_id;

    locked := ARRAY(
        SELECT id FROM stages WHERE id = ANY (touched) AND pg_try_advisory_xact_lock_shared(job_key(job_id))
    );

    locked := ARRAY(
        SELECT id FROM (SELECT id, status, head FROM stages WHERE id = ANY (locked) OFFSET 0) AS stage
        WHERE status = 'IN_PROGRESS'
            AND EXISTS (SELECT FROM waiting_tasks WHERE stage_id = stage.id AND seq >= stage.head)
    );

    WITH ended AS (
        DELETE FROM leases
        WHERE id = ANY (held) AND stage_id = ANY (locked)
        RETURNING task_id, stage_id, array_position(held, id) AS place
    ), delta AS (
        INSERT INTO stage_deltas (stage_id, pending, retried, in_progress, completed)
        SELECT stage_id, 0, 0, -count(*), count(*) FROM ended GROUP BY stage_id
    )
    SELECT array_agg(task_id), array_agg(place) INTO taken, places FROM ended;

    RETURN QUERY
    UPDATE tasks SET
        status = 'COMPLETED', outcome = 'COMPLETED', error = NULL, end_time = now(), updated_at = now(),
        result = results[places[array_position(taken, id)]]
    WHERE id = ANY (taken)
    RETURNING places[array_position(taken, id)], CASE WHEN worker_id IS NULL THEN task_wire(tasks, NULL) END;
END
$$;
