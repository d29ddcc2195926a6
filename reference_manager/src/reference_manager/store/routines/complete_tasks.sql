-- complete_tasks: task IN_PROGRESS → COMPLETED, only in the simple case: the lease is current and belongs to the worker
-- (both null: the task was claimed without a lease), no other session is changing the job, and the stage has waiting
-- tasks, so that the stage does not end. Rows: one for all completed items, with their places in the arrays and, if some
-- were claimed without a lease, with each task as JSON or null; and one for each job that another session is changing,
-- with the places of its items, which are unchanged, and the job as `busy`. An item in no row is unchanged;
-- settle_tasks has to process it.
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
) RETURNS TABLE (places integer[], bodies text[], busy uuid) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET lock_timeout = '100ms' AS $$
#variable_conflict use_column
DECLARE
    has_results boolean := num_nonnulls(VARIADIC results) > 0;
    -- The leases of the items that may be completed, ascending; the places of these items; and the stages.
    held bigint[];
    held_places integer[];
    owners uuid[];
    touched uuid[];
    locked uuid[];
BEGIN
    -- The task and the worker of a lease never change, so that it is enough to compare them once. Of several items with
    -- the same lease, the binary search below finds the last one in this order: the first of the arrays.
    SELECT array_agg(lease.id ORDER BY lease.id, wanted.place DESC),
        array_agg(wanted.place ORDER BY lease.id, wanted.place DESC),
        array_agg(lease.stage_id ORDER BY lease.id, wanted.place DESC), array_agg(DISTINCT lease.stage_id)
    INTO held, held_places, owners, touched
    FROM unnest(wanted_ids, wanted_leases, workers) WITH ORDINALITY AS wanted (id, lease_id, worker_id, place)
    JOIN (
        SELECT id, task_id, stage_id, worker_id FROM leases WHERE id = ANY (wanted_leases)
        UNION ALL
        SELECT lease_id, id, stage_id, worker_id FROM tasks
        WHERE id = ANY (CASE WHEN num_nulls(VARIADIC wanted_leases) > 0 THEN wanted_ids END) AND worker_id IS NULL
    ) AS lease ON lease.task_id = wanted.id AND lease.id = coalesce(wanted.lease_id, lease.id)
        AND lease.worker_id IS NOT DISTINCT FROM wanted.worker_id;

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
            SELECT array_agg(owner.place), NULL::text[], stage.job_id
            FROM unnest(owners, held_places) AS owner (stage_id, place)
            JOIN (SELECT id, job_id FROM stages WHERE id = ANY (touched) AND id <> ALL (locked)) AS stage
                ON stage.id = owner.stage_id
            GROUP BY stage.job_id;
        END IF;
    END IF;

    -- Usually, the newest task is still waiting. Before the oldest one, the index has entries of claimed tasks.
    locked := ARRAY(
        SELECT id FROM (SELECT id, status, head FROM stages WHERE id = ANY (locked) OFFSET 0) AS stage
        WHERE status = 'IN_PROGRESS' AND (
            SELECT seq FROM waiting_tasks WHERE stage_id = stage.id AND seq >= stage.head ORDER BY seq DESC LIMIT 1
        ) IS NOT NULL
    );

    -- A binary search (width_bucket) finds the item of a lease. A linear one takes ten times as long for 250 items.
    RETURN QUERY
    WITH ended AS (
        DELETE FROM leases WHERE id = ANY (held) AND stage_id = ANY (locked) RETURNING task_id, stage_id
    ), delta AS (
        INSERT INTO stage_deltas (stage_id, pending, retried, in_progress, completed)
        SELECT stage_id, 0, 0, -count(*), count(*) FROM ended GROUP BY stage_id
    ), completed AS (
        UPDATE tasks SET
            status = 'COMPLETED', outcome = 'COMPLETED', error = NULL, end_time = now(), updated_at = now(),
            result = CASE WHEN has_results THEN results[held_places[width_bucket(lease_id, held)]] END
        WHERE id = ANY (ARRAY(SELECT task_id FROM ended))
        RETURNING held_places[width_bucket(lease_id, held)] AS place,
            CASE WHEN worker_id IS NULL THEN task_wire(tasks, NULL) END AS body
    )
    SELECT array_agg(place), CASE WHEN count(body) > 0 THEN array_agg(body) END, NULL::uuid
    FROM completed
    HAVING count(*) > 0;
END
$$;
