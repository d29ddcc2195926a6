-- add_tasks(stage, what each array says of a task): CREATED → PENDING, all of one stage, in the order of the arrays; the
-- stage's figures with them. All of them, or none where the stage or its job has ended. An option that is null is the
-- stage's. One row: the status of the stage and of its job before, the stage's type, and the tasks as one JSON list, null
-- where none was added. No row: there is no such stage.
--
-- Plans are pinned to index walks, as in claim_tasks.
CREATE OR REPLACE FUNCTION add_tasks(
    wanted_stage uuid, usual_attempts integer, datas json[], metadatas json[], most_attempts integer[], traceparents text[],
    tracestates text[], timeouts interval[], retries json[], moments timestamptz[], delays interval[]
) RETURNS TABLE (status stage_status, job_status job_status, type text, body text) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    state record;
    bodies text;
BEGIN
    PERFORM lock_jobs(ARRAY(SELECT job_id FROM stages WHERE id = wanted_stage));
    SELECT stage.status, job.status AS job_status, stage.type, stage.task_defaults INTO state
    FROM stages AS stage JOIN jobs AS job ON job.id = ANY (ARRAY[stage.job_id]) WHERE stage.id = wanted_stage;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF state.status IN ('COMPLETED', 'FAILED', 'ABORTED') OR state.job_status IN ('COMPLETED', 'FAILED', 'ABORTED') THEN
        RETURN QUERY SELECT state.status, state.job_status, state.type, NULL::text;
        RETURN;
    END IF;

    WITH listed AS (
        SELECT * FROM unnest(
            datas, metadatas, most_attempts, traceparents, tracestates, timeouts, retries, moments, delays
        ) WITH ORDINALITY
        AS listed (data, user_metadata, max_attempts, traceparent, tracestate, timeout, retry, available_at, delay, place)
    ), inserted AS (
        INSERT INTO tasks AS task (stage_id, status, data, user_metadata, max_attempts, traceparent, tracestate, timeout, retry)
        SELECT wanted_stage, 'PENDING', data, user_metadata,
            coalesce(max_attempts, (state.task_defaults->>'maxAttempts')::integer, usual_attempts),
            traceparent, tracestate,
            coalesce(timeout, make_interval(secs => (state.task_defaults->>'timeoutSeconds')::float8)),
            coalesce(retry, state.task_defaults->'retry')
        FROM listed ORDER BY place
        RETURNING id, seq, task_wire(task, NULL) AS body
    ), placed AS (
        SELECT id, seq, due
        FROM (SELECT id, seq, row_number() OVER (ORDER BY seq) AS place FROM inserted) AS numbered
        JOIN (SELECT place, coalesce(available_at, now() + delay) AS due FROM listed) AS dated USING (place)
    ), delayed AS (
        INSERT INTO delayed_tasks (task_id, stage_id, seq, due)
        SELECT id, wanted_stage, seq, due FROM placed WHERE due > now()
    ), queued AS (
        INSERT INTO waiting_tasks (stage_id, seq, task_id)
        SELECT wanted_stage, seq, id FROM placed WHERE due IS NULL OR due <= now()
        RETURNING seq
    ), counting AS (
        UPDATE stages SET
            pending = pending + added.count,
            oldest_waiting = least(oldest_waiting, (SELECT min(seq) FROM queued)),
            updated_at = now()
        FROM (SELECT count(*) FROM inserted) AS added
        WHERE id = wanted_stage AND added.count > 0
    )
    SELECT wire_list(array_agg(body ORDER BY seq)) INTO bodies FROM inserted;
    RETURN QUERY SELECT state.status, state.job_status, state.type, bodies;
END
$$;
