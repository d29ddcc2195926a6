-- complete_tasks: task IN_PROGRESS → COMPLETED, only in the simple case: the lease is current and belongs to the worker
-- (both null: the task was claimed without a lease), no other session is changing the job, and the stage has waiting
-- tasks, so that the stage does not end. Rows: one for each completed item, with its place in the arrays and, if it was
-- claimed without a lease, the task as JSON; and one for each item that is unchanged because another session is changing
-- its job, with that job as `busy`. An item without a row is unchanged; settle_tasks has to process it.
--
-- Any number of sessions may do this at the same time: they share the job's lock, and update the counts of the stage by
-- inserting deltas. None of them can complete the last task of the stage: each saw a waiting task under the lock, and a
-- session that settles that task later either sees another waiting task, or takes the lock exclusively, which means
-- after these sessions have ended.
-- Fails after waiting 0.1 s for the lock of a row, so that a session that is not a manager's and has locked a task delays
-- only that task. If `wait` is given, it fails after this time, and unless this is 0, it also waits for sessions that are
-- changing a job. Plans are pinned to index scans, as in claim_tasks.
CREATE OR REPLACE FUNCTION complete_tasks(
    wanted_ids uuid[], wanted_leases bigint[], workers text[], results json[], wait interval
) RETURNS TABLE (place integer, body text, busy uuid) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET lock_timeout = '100ms' AS $$
#variable_conflict use_column
DECLARE
    held bigint[];
    owners uuid[];
    touched uuid[];
    locked uuid[];
    ended_ids uuid[];
    ended_places integer[];
BEGIN
    -- The task and the worker of a lease never change, so that it is enough to compare them once.
    SELECT array_agg(task.lease_id ORDER BY wanted.place), array_agg(task.stage_id ORDER BY wanted.place),
        array_agg(DISTINCT task.stage_id)
    INTO held, owners, touched
    FROM unnest(wanted_ids, wanted_leases, workers) WITH ORDINALITY AS wanted (id, lease_id, worker_id, place)
    LEFT JOIN (
        SELECT id, stage_id, lease_id, worker_id FROM tasks WHERE id = ANY (wanted_ids)
    ) AS task ON task.id = wanted.id
        AND task.lease_id = coalesce(wanted.lease_id, task.lease_id)
        AND task.worker_id IS NOT DISTINCT FROM wanted.worker_id;

    IF wait IS NOT NULL THEN
        PERFORM limit_lock_waits(wait);
    END IF;
    IF wait > interval '0' THEN
        PERFORM pg_advisory_xact_lock_shared(key) FROM (
            SELECT DISTINCT job_key(job_id) AS key FROM stages WHERE id = ANY (touched) ORDER BY key OFFSET 0
        ) AS keys;
        locked := touched;
    ELSE
        locked := ARRAY(
            SELECT id FROM stages WHERE id = ANY (touched) AND pg_try_advisory_xact_lock_shared(job_key(job_id))
        );
        IF NOT touched <@ locked THEN
            RETURN QUERY
            SELECT owner.place::integer, NULL, stage.job_id
            FROM unnest(owners) WITH ORDINALITY AS owner (stage_id, place)
            JOIN (SELECT id, job_id FROM stages WHERE id = ANY (touched) AND id <> ALL (locked)) AS stage
                ON stage.id = owner.stage_id;
        END IF;
    END IF;

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
    SELECT array_agg(task_id), array_agg(place) INTO ended_ids, ended_places FROM ended;

    RETURN QUERY
    UPDATE tasks SET
        status = 'COMPLETED', outcome = 'COMPLETED', error = NULL, end_time = now(), updated_at = now(),
        result = results[ended_places[array_position(ended_ids, id)]]
    WHERE id = ANY (ended_ids)
    RETURNING ended_places[array_position(ended_ids, id)], CASE WHEN worker_id IS NULL THEN task_wire(tasks, NULL) END,
        NULL::uuid;
END
$$;
