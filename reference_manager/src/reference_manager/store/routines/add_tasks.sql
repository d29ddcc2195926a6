-- add_tasks: CREATED → PENDING, only if neither the stage nor its job has ended. Adds all tasks to one stage, in order,
-- and updates the counts of the stage. Rows: one with the previous status of the stage and of its job, the type of the
-- stage, the number of added tasks (null: the stage or its job has ended), the smallest seq of those that can be claimed
-- (null: none can be) and, if `written`, the tasks as a JSON list;
-- or one with only `locked`: another session has locked the job; none if there is no such stage. Fails after waiting this
-- long for a lock; if `wait` is 0, it only tries to take that of the job. It takes the locks first, so that it does not
-- add tasks in vain. The payloads and options are as for insert_tasks, and so is `stem`.
-- Plans are pinned to index scans, as in claim_tasks.
CREATE OR REPLACE FUNCTION add_tasks(
    wanted_stage uuid, usual_attempts integer, data json, user_metadata json, options json, traceparent text,
    tracestate text, written boolean, wait interval, wanted integer, starts integer[], workers text[], lengths interval[],
    minimal boolean[], stem text DEFAULT left(new_id()::text, 28)
) RETURNS TABLE (
    status stage_status, job_status job_status, type text, added bigint, oldest bigint, body text, locked boolean,
    handed_over boolean, leases bigint[], tasks uuid[], bodies text, waits double precision[], context text
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    has_lock boolean;
    state record;
    answer record;
    handed record;
    option json := options -> 0;
    usual_limit text := current_setting('lock_timeout');
BEGIN
    PERFORM limit_lock_waits(wait);
    SELECT pg_try_advisory_xact_lock(job_key(job_id)) INTO has_lock FROM stages WHERE id = wanted_stage;
    IF NOT has_lock AND wait > interval '0' THEN
        PERFORM lock_jobs(ARRAY(SELECT job_id FROM stages WHERE id = wanted_stage));
    ELSIF NOT has_lock THEN
        locked := true;
        RETURN NEXT;
        RETURN;
    END IF;
    locked := false;
    handed_over := false;
    IF wanted IS NOT NULL AND starts = '{1}' AND json_array_length(data) = 1
        AND option ->> 'availableAt' IS NULL AND option ->> 'delaySeconds' IS NULL
    THEN
        -- Not data -> 0, which decodes all strings, and fails for those with \u0000 or half of a surrogate pair.
        handed := hand_over_task(
            stem, wanted_stage, usual_attempts, (SELECT value FROM json_array_elements(data)),
            (SELECT value FROM json_array_elements(user_metadata)), option, traceparent, tracestate, written,
            workers[1], lengths[1], minimal[1]
        );
        IF handed.lease IS NOT NULL THEN
            PERFORM set_config('lock_timeout', usual_limit, true);
            status := 'IN_PROGRESS'; job_status := 'IN_PROGRESS'; type := handed.type;
            added := 1; oldest := handed.seq; body := handed.body; handed_over := true;
            leases := ARRAY[handed.lease]; tasks := ARRAY[handed.task]; bodies := handed.claimed; waits := '{0}';
            context := handed.context;
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    SELECT stage.status, job.status AS job_status, stage.type, stage.task_defaults INTO state
    FROM stages AS stage JOIN jobs AS job ON job.id = ANY (ARRAY[stage.job_id]) WHERE stage.id = wanted_stage
    FOR NO KEY UPDATE OF stage;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF state.status IN ('COMPLETED', 'FAILED', 'ABORTED') OR state.job_status IN ('COMPLETED', 'FAILED', 'ABORTED') THEN
        status := state.status; job_status := state.job_status; type := state.type;
        RETURN NEXT;
        RETURN;
    END IF;
    PERFORM set_config('lock_timeout', usual_limit, true);
    SELECT inserted.added, inserted.body, inserted.oldest[1] AS oldest INTO answer FROM insert_tasks(
        stem, ARRAY[wanted_stage], ARRAY[state.task_defaults], usual_attempts, ARRAY[data],
        ARRAY[user_metadata], ARRAY[options], ARRAY[traceparent], ARRAY[tracestate], written
    ) AS inserted;
    -- If no task was waiting, the stage has waited since now, even if a claim has left it in the index.
    UPDATE stages SET
        pending = pending + answer.added,
        oldest_waiting = CASE
            WHEN answer.oldest IS NULL OR EXISTS (
                SELECT FROM waiting_tasks WHERE stage_id = stages.id AND seq >= head AND seq < answer.oldest
            ) THEN least(oldest_waiting, answer.oldest)
            ELSE answer.oldest
        END,
        updated_at = now()
    WHERE id = wanted_stage AND answer.added > 0;
    status := state.status; job_status := state.job_status; type := state.type;
    added := answer.added; oldest := answer.oldest; body := answer.body;
    RETURN NEXT;
END
$$;

-- insert_tasks: inserts PENDING tasks of one or more stages, in order. The caller holds the job's lock, or is creating the
-- job, and adds the tasks to the counts of the stages. `stem` is the beginning of the ids, as for numbered_id. Every array
-- has one item for each stage: its default options, JSON lists of the data, the metadata (null: no task has any) and the
-- options (null: no task has any; an element may be null) of its tasks, and the trace context of the tasks that do not
-- set their own. Options have the protocol's names; one that a task does not set comes from its stage. Rows: one with
-- the number of tasks; if `written`, the tasks as a JSON list; and the stages that have got tasks, with how many tasks
-- each has got and the smallest seq of those that can be claimed (null: none can be).
CREATE OR REPLACE FUNCTION insert_tasks(
    stem text, stage_ids uuid[], defaults json[], usual_attempts integer, datas json[], metadatas json[],
    options json[], traceparents text[], tracestates text[], written boolean
) RETURNS TABLE (added bigint, body text, filled uuid[], counts bigint[], oldest bigint[]) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH numbered AS MATERIALIZED (
        -- Numbered here, so that the following steps need no join.
        SELECT nextval('tasks_seq_seq') AS seq, * FROM (
            SELECT parent.stage_id, parent.task_defaults, task.data, task.user_metadata, task.options,
                parent.traceparent, parent.tracestate,
                coalesce(
                    (task.options ->> 'availableAt')::timestamptz,
                    now() + make_interval(secs => (task.options ->> 'delaySeconds')::float8)
                ) AS due
            FROM unnest(stage_ids, defaults, datas, metadatas, options, traceparents, tracestates) WITH ORDINALITY
                AS parent (stage_id, task_defaults, datas, metadatas, options, traceparent, tracestate, place),
            LATERAL ROWS FROM (
                json_array_elements(parent.datas), json_array_elements(parent.metadatas),
                json_array_elements(parent.options)
            ) WITH ORDINALITY AS task (data, user_metadata, options, place)
            ORDER BY parent.place, task.place
        ) AS ordered
    ), inserted AS (
        INSERT INTO tasks AS task
            (id, seq, stage_id, status, data, user_metadata, max_attempts, traceparent, tracestate, timeout, retry)
        OVERRIDING SYSTEM VALUE
        SELECT numbered_id(stem, seq), seq, stage_id, 'PENDING', data, coalesce(user_metadata, '{}'),
            coalesce((options ->> 'maxAttempts')::integer, (task_defaults ->> 'maxAttempts')::integer, usual_attempts),
            coalesce(options ->> 'traceparent', traceparent),
            CASE WHEN options ->> 'traceparent' IS NULL THEN tracestate ELSE options ->> 'tracestate' END,
            make_interval(secs => coalesce(options ->> 'timeoutSeconds', task_defaults ->> 'timeoutSeconds')::float8),
            coalesce(options -> 'retry', task_defaults -> 'retry')
        FROM numbered
        RETURNING seq, CASE WHEN written THEN task_wire(task, NULL) END AS body
    ), delayed AS (
        INSERT INTO delayed_tasks (task_id, stage_id, seq, due)
        SELECT numbered_id(stem, seq), stage_id, seq, due FROM numbered WHERE due > now()
    ), queued AS (
        INSERT INTO waiting_tasks (stage_id, seq, task_id)
        SELECT stage_id, seq, numbered_id(stem, seq) FROM numbered WHERE due IS NULL OR due <= now()
    ), counted AS (
        SELECT array_agg(stage_id) AS filled, array_agg(count) AS counts, array_agg(oldest) AS oldest FROM (
            SELECT stage_id, count(*) AS count, min(seq) FILTER (WHERE due IS NULL OR due <= now()) AS oldest
            FROM numbered GROUP BY stage_id
        ) AS added
    )
    SELECT answer.*, counted.*
    FROM (
        SELECT count(*), CASE WHEN written THEN wire_list(array_agg(body ORDER BY seq) FILTER (WHERE written)) END
        FROM inserted
    ) AS answer, counted;
END
$$;
