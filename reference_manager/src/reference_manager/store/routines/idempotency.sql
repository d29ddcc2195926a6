-- Idempotency keys: a request that creates something records its key in the same transaction. A repeated request with
-- that key creates nothing, and gets the response of the first one. The response is not stored: it follows from the
-- repeated request, which has the same body, and from the columns of the created rows that never change.
-- OFFSET 0 keeps PostgreSQL from computing the first version of a row anew for each of its columns.
-- A session takes a key before any other lock, and only one key, so that no deadlock is possible.
-- Plans are pinned to index scans, as in claim_tasks.

-- take_key: records a key, unless it was used. If another session is using it, this waits until that session commits or
-- rolls back, and fails after waiting this long. Returns null if the key was free, otherwise its row.
CREATE OR REPLACE FUNCTION take_key(wanted text, new_digest uuid, new_entity uuid, wait interval)
RETURNS idempotency_keys LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    used idempotency_keys;
    usual_limit text := current_setting('lock_timeout');
BEGIN
    PERFORM limit_lock_waits(wait);
    LOOP
        INSERT INTO idempotency_keys (key, digest, entity) VALUES (wanted, new_digest, new_entity)
        ON CONFLICT (key) DO NOTHING;
        EXIT WHEN FOUND;
        SELECT * INTO used FROM idempotency_keys WHERE key = wanted;
        EXIT WHEN FOUND; -- otherwise, its row was deleted meanwhile
    END LOOP;
    PERFORM set_config('lock_timeout', usual_limit, true);
    RETURN used;
END
$$;

-- create_job_once: create_job for a request with an idempotency key. Rows: as create_job, and whether the key was used by
-- another request (`reused`, then the other columns are null); none if the job was deleted.
CREATE OR REPLACE FUNCTION create_job_once(
    wanted_key text, request_digest uuid,
    name text, priority job_priority, data json, user_metadata json, traceparent text, tracestate text,
    unique_key text, unique_for interval,
    types text[], statuses stage_status[], datas json[], metadatas json[], weights double precision[], defaults json[],
    traceparents text[], tracestates text[],
    usual_attempts integer, task_datas json[], task_metadatas json[], task_options json[], wait interval
) RETURNS TABLE (reused boolean, created boolean, body text, woken text[]) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    new_job uuid := new_id();
    used idempotency_keys := take_key(wanted_key, request_digest, new_job, wait);
    answer record;
BEGIN
    IF used.key IS NULL AND types IS NULL AND unique_key IS NULL THEN
        -- As job_insert.
        RETURN QUERY
        INSERT INTO jobs AS job (id, name, status, priority, data, user_metadata, traceparent, tracestate)
        VALUES (new_job, name, 'PENDING', priority, data, user_metadata, traceparent, tracestate)
        RETURNING false, true, job_wire_open(job) || '}', '{}'::text[];
    ELSIF used.key IS NULL THEN
        SELECT * INTO answer FROM create_job(
            name, priority, data, user_metadata, traceparent, tracestate, unique_key, unique_for,
            types, statuses, datas, metadatas, weights, defaults, traceparents, tracestates,
            usual_attempts, task_datas, task_metadatas, task_options, wait, new_job
        );
        IF NOT answer.created THEN
            UPDATE idempotency_keys
            SET is_new = false, entity = (SELECT job_id FROM job_keys WHERE job_keys.key = unique_key)
            WHERE key = wanted_key;
        END IF;
        RETURN QUERY SELECT false, answer.created, answer.body, answer.woken;
    ELSIF used.digest <> request_digest THEN
        RETURN QUERY SELECT true, NULL::boolean, NULL::text, NULL::text[];
    ELSIF NOT used.is_new THEN
        RETURN QUERY
        SELECT false, false, job_wire(job, types IS NOT NULL), '{}'::text[] FROM jobs AS job WHERE id = used.entity;
    ELSE
        RETURN QUERY
        SELECT false, true,
            job_wire_open(first) || CASE WHEN types IS NOT NULL THEN ',"stages":' || (
                SELECT wire_list(array_agg(stage_wire_new(first) ORDER BY position))
                FROM (
                    SELECT position, stage_as_created(
                        stage, statuses[position], metadatas[position], json_array_length(task_datas[position])
                    ) AS first
                    FROM stages AS stage WHERE job_id = used.entity AND position <= cardinality(types) OFFSET 0
                ) AS stage
            ) ELSE '' END || '}',
            '{}'::text[]
        FROM (
            SELECT job_as_created(job, create_job_once.priority, create_job_once.user_metadata) AS first
            FROM jobs AS job WHERE id = used.entity OFFSET 0
        ) AS job;
    END IF;
END
$$;

-- create_stage_once: takes the key of a request that adds a stage. Rows: the id for the new stage; whether it exists
-- already, and then as JSON (null: it was deleted); and whether the key was used by another request (`reused`).
CREATE OR REPLACE FUNCTION create_stage_once(wanted_key text, request_digest uuid, user_metadata json, wait interval)
RETURNS TABLE (reused boolean, created boolean, id uuid, body text) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    new_stage uuid := new_id();
    used idempotency_keys := take_key(wanted_key, request_digest, new_stage, wait);
BEGIN
    RETURN QUERY
    SELECT coalesce(used.digest <> request_digest, false), used.key IS NULL, new_stage, (
        SELECT stage_wire_new(first) FROM (
            SELECT stage_as_created(stage, (
                -- The change without a source is the creation.
                SELECT target::stage_status FROM history
                WHERE job_id = stage.job_id AND stage_id = stage.id AND source IS NULL
            ), create_stage_once.user_metadata, 0) AS first
            FROM stages AS stage WHERE stage.id = used.entity AND used.digest = request_digest OFFSET 0
        ) AS stage
    );
END
$$;

-- add_tasks_once: add_tasks for a request with an idempotency key. Rows: as add_tasks, and whether the tasks were created
-- now, and whether the key was used by another request (`reused`, then the other columns are null).
CREATE OR REPLACE FUNCTION add_tasks_once(
    wanted_key text, request_digest uuid,
    wanted_stage uuid, usual_attempts integer, data json, user_metadata json, options json, traceparent text,
    tracestate text, written boolean, wait interval, wanted integer, starts integer[], workers text[], lengths interval[],
    minimal boolean[]
) RETURNS TABLE (
    reused boolean, created boolean, status stage_status, job_status job_status, type text, added bigint,
    oldest bigint, body text, locked boolean, handed_over boolean, leases bigint[],
    tasks uuid[], bodies text, waits double precision[], context text
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    stem text := left(new_id()::text, 28);
    used idempotency_keys := take_key(wanted_key, request_digest, numbered_id(stem, 0), wait);
BEGIN
    IF used.key IS NULL THEN
        SELECT false, true, adding.*
        INTO reused, created, status, job_status, type, added, oldest, body, locked, handed_over, leases, tasks, bodies,
            waits, context
        FROM add_tasks(
            wanted_stage, usual_attempts, data, user_metadata, options, traceparent, tracestate, written, wait,
            wanted, starts, workers, lengths, minimal, stem
        ) AS adding;
        IF FOUND THEN
            RETURN NEXT;
        END IF;
        IF added IS NULL THEN
            DELETE FROM idempotency_keys WHERE key = wanted_key; -- nothing was created
        END IF;
    ELSIF used.digest <> request_digest THEN
        reused := true; locked := false; handed_over := false;
        RETURN NEXT;
    ELSE
        SELECT false, false, stage.status, job.status, stage.type, json_array_length(add_tasks_once.data),
            CASE WHEN written THEN tasks_as_created(used.entity, add_tasks_once.user_metadata) END, false, false
        INTO reused, created, status, job_status, type, added, body, locked, handed_over
        FROM stages AS stage JOIN jobs AS job ON job.id = ANY (ARRAY[stage.job_id]) WHERE stage.id = wanted_stage;
        IF FOUND THEN
            RETURN NEXT;
        END IF;
    END IF;
END
$$;

-- job_as_created: a job as it was when it was created, with this priority and metadata.
CREATE OR REPLACE FUNCTION job_as_created(job jobs, first_priority job_priority, metadata json) RETURNS jobs
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    job.status := 'PENDING';
    job.priority := first_priority;
    job.user_metadata := metadata;
    job.stages_completed := 0;
    job.updated_at := job.created_at;
    job.ended_at := NULL;
    RETURN job;
END
$$;

-- stage_as_created: a stage as it was when it was created, in this status, with this metadata and this number of tasks.
CREATE OR REPLACE FUNCTION stage_as_created(stage stages, first_status stage_status, metadata json, tasks bigint)
RETURNS stages LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    stage.status := first_status;
    stage.user_metadata := metadata;
    stage.updated_at := stage.created_at;
    stage.start_time := NULL;
    stage.end_time := NULL;
    stage.pending := tasks;
    stage.in_progress := 0;
    stage.retried := 0;
    stage.completed := 0;
    stage.failed := 0;
    stage.aborted := 0;
    RETURN stage;
END
$$;

-- task_as_created: a task as it was when it was created, with this metadata.
CREATE OR REPLACE FUNCTION task_as_created(task tasks, metadata json) RETURNS tasks LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    task.status := 'PENDING';
    task.attempts := 0;
    task.user_metadata := metadata;
    task.updated_at := task.created_at;
    task.start_time := NULL;
    task.end_time := NULL;
    task.result := NULL;
    task.error := NULL;
    task.progress := NULL;
    task.checkpoint := NULL;
    RETURN task;
END
$$;

-- tasks_as_created: the tasks of one request as they were when they were created, as a JSON list. `stem` is the beginning
-- of their ids, followed by zeros. `metadatas` is a JSON list of their metadata; null: none has any.
CREATE OR REPLACE FUNCTION tasks_as_created(stem uuid, metadatas json) RETURNS text LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN (
        SELECT wire_list(array_agg(task_wire(first, NULL) ORDER BY place)) FROM (
            SELECT place, task_as_created(task, coalesce(metadata, '{}')) AS first
            FROM (
                SELECT task, row_number() OVER (ORDER BY seq) AS place FROM tasks AS task
                WHERE id BETWEEN stem AND numbered_id(left(stem::text, 28), 4294967295)
            ) AS numbered
            LEFT JOIN json_array_elements(metadatas) WITH ORDINALITY AS given (metadata, place) USING (place)
            OFFSET 0
        ) AS listed
    );
END
$$;

-- forget_keys: deletes up to `most` idempotency keys that are older than 24 hours, the oldest first. Skips those that
-- another session has locked. Returns the number of rows.
CREATE OR REPLACE FUNCTION forget_keys(most integer) RETURNS bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    removed bigint;
BEGIN
    DELETE FROM idempotency_keys WHERE key = ANY (ARRAY(
        SELECT key FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
        ORDER BY created_at LIMIT most FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;
