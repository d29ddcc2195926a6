-- The wire format of entities: PostgreSQL writes the JSON, and the manager passes it on unchanged. The JSON is built by
-- concatenation, which takes half the time of json_build_object, and claims spend most of their time here. Values
-- quoted by hand (ids, statuses, times, traceparent) contain no characters that need escaping. Payloads are stored as
-- JSON text.

-- wire_time: a time in UTC with milliseconds; null as JSON null.
CREATE OR REPLACE FUNCTION wire_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(to_char(moment AT TIME ZONE 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.MS"Z\""'), 'null')
$$;

-- wire_times: the times of creation and update under both names. format() formats each time only once.
CREATE OR REPLACE FUNCTION wire_times(created timestamptz, updated timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT format(
        ',"createdAt":%1$s,"updatedAt":%2$s,"creationTime":%1$s,"updateTime":%2$s',
        wire_time(created), wire_time(updated)
    )
$$;

-- wire_trace: the trace context; tracestate is left out if there is none.
CREATE OR REPLACE FUNCTION wire_trace(traceparent text, tracestate text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ',"traceparent":"' || traceparent || '"' || coalesce(',"tracestate":' || to_json(tracestate), '')
$$;

-- wire_share: a whole percentage, rounded down; 0 of nothing.
CREATE OR REPLACE FUNCTION wire_share(part bigint, total bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN total > 0 THEN part * 100 / total ELSE 0 END
$$;

-- wire_with: an entity with one more member at its end, such as `,"name":value`; unchanged if the member is null.
CREATE OR REPLACE FUNCTION wire_with(entity text, member text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(left(entity, -1) || member || '}', entity)
$$;

-- wire_list: a JSON list.
CREATE OR REPLACE FUNCTION wire_list(entities text[]) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '[' || coalesce(array_to_string(entities, ','), '') || ']'
$$;

-- aborted_at: when the stage and its unfinished tasks were aborted, even if the rows of the tasks are not updated yet;
-- null if it was not aborted.
CREATE OR REPLACE FUNCTION aborted_at(stage stages) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN stage.status = 'ABORTED' THEN stage.end_time END
$$;

-- task_unfinished: whether the row of a task has a status that is not final.
CREATE OR REPLACE FUNCTION task_unfinished(task tasks) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT task.status NOT IN ('COMPLETED', 'FAILED', 'ABORTED')
$$;

-- task_status: the status of a task, given when its stage was aborted (null: it was not).
CREATE OR REPLACE FUNCTION task_status(task tasks, aborted timestamptz) RETURNS task_status
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN aborted IS NOT NULL AND task_unfinished(task) THEN 'ABORTED' ELSE task.status END
$$;

-- task_listed: whether a task matches these filters (null matches all). The status is the shown one, which in an
-- aborted stage may differ from that of the row. A task of a deleted stage (null) matches none.
CREATE OR REPLACE FUNCTION task_listed(task tasks, stage stages, of_type text, of_status task_status) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT stage.id IS NOT NULL
        AND (of_type IS NULL OR stage.type = of_type)
        AND (of_status IS NULL OR task_status(task, aborted_at(stage)) = of_status)
$$;

-- wire_part_b: fields that only part B of the protocol has; empty in sessions of a manager that serves only part A
-- (pool.py).
CREATE OR REPLACE FUNCTION wire_part_b(fields text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN current_setting('jobnik.part_a_only', true) = 'on' THEN '' ELSE fields END
$$;

-- task_wire_open: a task without its closing brace, so that the caller can add members. `aborted` is when its stage was
-- aborted. Fields of part B are left out if they have no value.
CREATE OR REPLACE FUNCTION task_wire_open(task tasks, aborted timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || task.id
        || '","stageId":"' || task.stage_id
        || '","status":"' || task_status(task, aborted)
        || '","data":' || task.data
        || ',"userMetadata":' || task.user_metadata
        || ',"attempts":' || task.attempts
        || ',"maxAttempts":' || task.max_attempts
        || wire_times(task.created_at, greatest(task.updated_at, CASE WHEN task_unfinished(task) THEN aborted END))
        || ',"startTime":' || wire_time(task.start_time)
        || ',"endTime":' || wire_time(coalesce(task.end_time, aborted))
        || wire_trace(task.traceparent, task.tracestate)
        || wire_part_b(
            coalesce(',"timeoutSeconds":' || extract(epoch FROM task.timeout)::float8, '')
            || coalesce(',"retry":' || task.retry, '')
            || coalesce(',"result":' || task.result, '')
            || coalesce(',"error":' || task.error, '')
            || coalesce(',"progress":' || task.progress, '')
            || coalesce(',"checkpoint":' || task.checkpoint, '')
        )
$$;

-- task_wire: a task.
CREATE OR REPLACE FUNCTION task_wire(task tasks, aborted timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT task_wire_open(task, aborted) || '}'
$$;

-- stage_total: the number of tasks of a stage. Claims and reports only move tasks between statuses, so that the sum of
-- the counts of the stage is exact even without its deltas.
CREATE OR REPLACE FUNCTION stage_total(stage stages) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT stage.pending + stage.in_progress + stage.completed + stage.failed + stage.retried + stage.aborted
$$;

-- stage_summary: the exact number of tasks by status: the counts of the stage plus its deltas. The counts of an aborted
-- stage are final, so that deltas of a concurrent claim are ignored.
CREATE OR REPLACE FUNCTION stage_summary(stage stages) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"created":0,"pending":' || stage.pending + moved.pending
        || ',"inProgress":' || stage.in_progress + moved.in_progress
        || ',"completed":' || stage.completed + moved.completed
        || ',"failed":' || stage.failed
        || ',"retried":' || stage.retried + moved.retried
        || ',"aborted":' || stage.aborted
        || ',"total":' || stage_total(stage)
        || '}'
    FROM (
        SELECT coalesce(sum(pending), 0)::bigint AS pending,
            coalesce(sum(retried), 0)::bigint AS retried,
            coalesce(sum(in_progress), 0)::bigint AS in_progress,
            coalesce(sum(completed), 0)::bigint AS completed
        FROM stage_deltas WHERE stage_id = stage.id AND stage.status <> 'ABORTED'
    ) AS moved
$$;

-- stage_completed: the exact number of completed tasks.
CREATE OR REPLACE FUNCTION stage_completed(stage stages) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT stage.completed + (
        SELECT coalesce(sum(completed), 0)::bigint FROM stage_deltas
        WHERE stage_id = stage.id AND stage.status <> 'ABORTED'
    )
$$;

-- stage_wire: a stage, with its tasks if requested.
CREATE OR REPLACE FUNCTION stage_wire(stage stages, with_tasks boolean) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || stage.id
        || '","jobId":"' || stage.job_id
        || '","type":' || to_json(stage.type)
        || ',"order":' || stage.position
        || ',"status":"' || stage.status
        || '","data":' || stage.data
        || ',"userMetadata":' || stage.user_metadata
        || ',"summary":' || stage_summary(stage)
        || ',"percentage":' || wire_share(stage_completed(stage), stage_total(stage))
        || wire_times(stage.created_at, stage.updated_at)
        || ',"startTime":' || wire_time(stage.start_time)
        || ',"endTime":' || wire_time(stage.end_time)
        || wire_trace(stage.traceparent, stage.tracestate)
        || wire_part_b(
            CASE WHEN stage.weight <> 1 THEN ',"weight":' || stage.weight ELSE '' END
            || coalesce(',"taskDefaults":' || stage.task_defaults, '')
        )
        || CASE WHEN with_tasks THEN ',"tasks":' || (
            SELECT wire_list(array_agg(task_wire(task, aborted_at(stage)) ORDER BY task.seq))
            FROM tasks AS task WHERE task.stage_id = stage.id
        ) ELSE '' END
        || '}'
$$;

-- job_wire: a job, with its stages if requested.
CREATE OR REPLACE FUNCTION job_wire(job jobs, with_stages boolean) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || job.id
        || '","name":' || to_json(job.name)
        || ',"status":"' || job.status
        || '","data":' || job.data
        || ',"userMetadata":' || job.user_metadata
        || ',"priority":"' || job.priority
        || '","percentage":' || wire_share(job.stages_completed, job.stages_total)
        || wire_times(job.created_at, job.updated_at)
        || wire_trace(job.traceparent, job.tracestate)
        || CASE WHEN with_stages THEN ',"stages":' || (
            SELECT wire_list(array_agg(stage_wire(stage, false) ORDER BY stage.position))
            FROM stages AS stage WHERE stage.job_id = job.id
        ) ELSE '' END
        || '}'
$$;

-- task_wire_brief: a task without its closing brace, reduced to the fields that a worker needs.
CREATE OR REPLACE FUNCTION task_wire_brief(task tasks) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || task.id
        || '","stageId":"' || task.stage_id
        || '","data":' || task.data
        || ',"userMetadata":' || task.user_metadata
        || ',"attempts":' || task.attempts
        || ',"maxAttempts":' || task.max_attempts
        || wire_trace(task.traceparent, task.tracestate)
        || coalesce(',"timeoutSeconds":' || extract(epoch FROM task.timeout)::float8, '')
        || coalesce(',"checkpoint":' || task.checkpoint, '')
$$;

-- payload_size: the length of a payload in bytes.
CREATE OR REPLACE FUNCTION payload_size(payload json) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN pg_column_compression(payload) IS NULL THEN pg_column_size(payload)
        ELSE octet_length(payload::text) END
$$;

-- task_size: how many bytes the payloads of a task take in its JSON. Only compressed payloads are read for this.
CREATE OR REPLACE FUNCTION task_size(task tasks) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT payload_size(task.data) + payload_size(task.user_metadata)
        + coalesce(payload_size(task.checkpoint), 0) + coalesce(payload_size(task.result), 0)
        + coalesce(payload_size(task.error), 0)
$$;

-- claim_context: the stage of claimed tasks, and its job, reduced to the fields that a worker needs.
CREATE OR REPLACE FUNCTION claim_context(stage stages, job jobs) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT '{"stage":{"id":"' || stage.id
        || '","type":' || to_json(stage.type)
        || ',"order":' || stage.position
        || ',"data":' || stage.data
        || ',"userMetadata":' || stage.user_metadata
        || wire_trace(stage.traceparent, stage.tracestate)
        || '},"job":{"id":"' || job.id
        || '","name":' || to_json(job.name)
        || ',"priority":"' || job.priority
        || '","data":' || job.data
        || ',"userMetadata":' || job.user_metadata
        || wire_trace(job.traceparent, job.tracestate)
        || '}}'
$$;

-- worker_wire: a worker.
CREATE OR REPLACE FUNCTION worker_wire(worker workers) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":' || to_json(worker.id)
        || ',"stageTypes":' || to_json(worker.stage_types)
        || ',"host":' || coalesce(to_json(worker.host), 'null')
        || ',"version":' || coalesce(to_json(worker.version), 'null')
        || ',"draining":' || worker.draining
        || ',"drainWanted":' || worker.drain_wanted
        || ',"running":' || worker.running
        || ',"startTime":' || wire_time(worker.started_at)
        || ',"seenTime":' || wire_time(worker.seen_at)
        || '}'
$$;

-- attempts_wire: all attempts of a task, oldest first: those in the table of attempts, and the current or last one,
-- which is stored in the task itself.
CREATE OR REPLACE FUNCTION attempts_wire(task tasks, aborted timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT wire_list(array_agg(
        '{"number":' || number
        || ',"leaseId":' || attempt.lease_id
        || ',"workerId":' || coalesce(to_json(attempt.worker_id)::text, 'null')
        || ',"startTime":' || wire_time(attempt.start_time)
        || ',"endTime":' || wire_time(attempt.end_time)
        || ',"outcome":' || coalesce('"' || attempt.outcome || '"', 'null')
        || ',"error":' || coalesce(attempt.error::text, 'null')
        || '}' ORDER BY number
    ))
    FROM (
        SELECT row_number() OVER (ORDER BY lease_id) AS number, * FROM (
            SELECT lease_id, worker_id, start_time, end_time, outcome::text, error::text
            FROM attempts WHERE task_id = task.id
            UNION ALL
            SELECT task.lease_id, task.worker_id, task.start_time, coalesce(task.end_time, aborted),
                coalesce(task.outcome::text, CASE WHEN task_status(task, aborted) = 'ABORTED' THEN 'ABORTED' END),
                -- While an attempt runs, the task still has the error of the previous one.
                CASE WHEN task.outcome IS NOT NULL THEN task.error::text END
            WHERE task.lease_id IS NOT NULL AND NOT EXISTS (SELECT FROM attempts WHERE lease_id = task.lease_id)
        ) AS listed
    ) AS attempt
$$;
