-- The wire format of entities: PostgreSQL writes the JSON, and the manager passes it on unchanged. The JSON is built by
-- concatenation, which takes half the time of json_build_object, and claims spend most of their time here. Values
-- quoted by hand (ids, statuses, times, traceparent) contain no characters that need escaping. Payloads are stored as
-- JSON text.
-- A manager that serves only part A of the protocol imitates the original manager (0.2.1): it leaves out the fields of
-- part B, the newer names of times, times that are not set, and the times of stages.

-- wire_part_a_only: whether this session belongs to a manager that serves only part A (pool.py).
CREATE OR REPLACE FUNCTION wire_part_a_only() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT current_setting('jobnik.part_a_only', true) IS NOT DISTINCT FROM 'on'
$$;

-- wire_part_b: fields that only part B of the protocol has.
CREATE OR REPLACE FUNCTION wire_part_b(fields text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN wire_part_a_only() THEN '' ELSE fields END
$$;

-- wire_time: a time in UTC with milliseconds; null as JSON null.
CREATE OR REPLACE FUNCTION wire_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(to_char(moment AT TIME ZONE 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.MS"Z\""'), 'null')
$$;

-- wire_times: the times of creation and update under both names. format() formats each time only once.
CREATE OR REPLACE FUNCTION wire_times(created timestamptz, updated timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT format(
        CASE WHEN wire_part_a_only() THEN ',"creationTime":%1$s,"updateTime":%2$s'
            ELSE ',"createdAt":%1$s,"updatedAt":%2$s,"creationTime":%1$s,"updateTime":%2$s' END,
        wire_time(created), wire_time(updated)
    )
$$;

-- wire_moments: when something started and ended; null until then, or left out in part A.
CREATE OR REPLACE FUNCTION wire_moments(started timestamptz, ended timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN started IS NULL AND wire_part_a_only() THEN '' ELSE ',"startTime":' || wire_time(started) END
        || CASE WHEN ended IS NULL AND wire_part_a_only() THEN '' ELSE ',"endTime":' || wire_time(ended) END
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

-- metadata_listed: whether the members that `wanted` names have these values: strings, or numbers and booleans as JSON
-- shows them. `wanted` is a list of pairs of a name and a value. JSON text that contains the character NUL cannot be
-- read as text, so that it is replaced.
CREATE OR REPLACE FUNCTION metadata_listed(metadata json, wanted text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    readable json := metadata;
    pair text[];
BEGIN
    IF strpos(metadata::text, '\u0000') > 0 THEN
        readable := regexp_replace(metadata::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\uffff', 'g');
    END IF;
    FOREACH pair SLICE 1 IN ARRAY wanted LOOP
        IF readable ->> pair[1] IS DISTINCT FROM pair[2]
            OR json_typeof(readable -> pair[1]) NOT IN ('string', 'number', 'boolean')
        THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

-- job_listed: whether a job matches these filters. A filter that is null matches all.
CREATE OR REPLACE FUNCTION job_listed(
    job jobs, of_name text, of_priority job_priority, of_statuses job_status[], of_metadata text[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (of_name IS NULL OR job.name = of_name) AND (of_priority IS NULL OR job.priority = of_priority)
        AND (of_statuses IS NULL OR job.status = ANY (of_statuses))
        AND (of_metadata IS NULL OR metadata_listed(job.user_metadata, of_metadata))
$$;

-- stage_listed: the same for a stage.
CREATE OR REPLACE FUNCTION stage_listed(
    stage stages, of_type text, of_statuses stage_status[], of_metadata text[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (of_type IS NULL OR stage.type = of_type) AND (of_statuses IS NULL OR stage.status = ANY (of_statuses))
        AND (of_metadata IS NULL OR metadata_listed(stage.user_metadata, of_metadata))
$$;

-- task_listed: the same for a task. The status is the shown one, which in an aborted stage may differ from that of the
-- row. A task of a deleted stage (null) matches none.
CREATE OR REPLACE FUNCTION task_listed(
    task tasks, stage stages, of_type text, of_statuses task_status[], of_metadata text[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT stage.id IS NOT NULL AND (of_type IS NULL OR stage.type = of_type)
        AND (of_statuses IS NULL OR task_status(task, aborted_at(stage)) = ANY (of_statuses))
        AND (of_metadata IS NULL OR metadata_listed(task.user_metadata, of_metadata))
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
        || wire_moments(task.start_time, coalesce(task.end_time, aborted))
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

-- stage_moves: the sums of the deltas of a stage. The counts of an aborted stage are final, so that deltas of a
-- concurrent claim are ignored.
CREATE OR REPLACE FUNCTION stage_moves(stage stages) RETURNS TABLE (
    pending bigint, retried bigint, in_progress bigint, completed bigint
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(sum(pending), 0)::bigint, coalesce(sum(retried), 0)::bigint,
        coalesce(sum(in_progress), 0)::bigint, coalesce(sum(completed), 0)::bigint
    FROM stage_deltas WHERE stage_id = stage.id AND stage.status <> 'ABORTED'
$$;

-- stage_counts: the number of tasks by status, given the sums of the deltas.
CREATE OR REPLACE FUNCTION stage_counts(
    stage stages, moved_pending bigint, moved_retried bigint, moved_in_progress bigint, moved_completed bigint
) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"created":0,"pending":' || stage.pending + moved_pending
        || ',"inProgress":' || stage.in_progress + moved_in_progress
        || ',"completed":' || stage.completed + moved_completed
        || ',"failed":' || stage.failed
        || ',"retried":' || stage.retried + moved_retried
        || wire_part_b(',"aborted":' || stage.aborted)
        || ',"total":' || stage_total(stage)
        || '}'
$$;

-- stage_summary: the exact number of tasks by status: the counts of the stage plus its deltas.
CREATE OR REPLACE FUNCTION stage_summary(stage stages) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT stage_counts(stage, moved.pending, moved.retried, moved.in_progress, moved.completed)
    FROM stage_moves(stage) AS moved
$$;

-- stage_completed: the exact number of completed tasks.
CREATE OR REPLACE FUNCTION stage_completed(stage stages) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT stage.completed + moved.completed FROM stage_moves(stage) AS moved
$$;

-- stage_wire_open: a stage without its closing brace, given the sums of the deltas. PostgreSQL inlines a function that is
-- one expression, so that a call is no statement.
CREATE OR REPLACE FUNCTION stage_wire_open(
    stage stages, moved_pending bigint, moved_retried bigint, moved_in_progress bigint, moved_completed bigint
) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || stage.id
        || '","jobId":"' || stage.job_id
        || '","type":' || to_json(stage.type)
        || ',"order":' || stage.position
        || ',"status":"' || stage.status
        || '","data":' || stage.data
        || ',"userMetadata":' || stage.user_metadata
        || ',"summary":'
        || stage_counts(stage, moved_pending, moved_retried, moved_in_progress, moved_completed)
        || ',"percentage":' || wire_share(stage.completed + moved_completed, stage_total(stage))
        || wire_trace(stage.traceparent, stage.tracestate)
        || wire_part_b(
            wire_times(stage.created_at, stage.updated_at)
            || wire_moments(stage.start_time, stage.end_time)
            || CASE WHEN stage.weight <> 1 THEN ',"weight":' || stage.weight ELSE '' END
            || coalesce(',"taskDefaults":' || stage.task_defaults, '')
        )
$$;

-- stage_wire_new: a stage that was just created, so that it has no deltas.
CREATE OR REPLACE FUNCTION stage_wire_new(stage stages) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT stage_wire_open(stage, 0, 0, 0, 0) || '}'
$$;

-- stage_wire: a stage, with its tasks if requested.
CREATE OR REPLACE FUNCTION stage_wire(stage stages, with_tasks boolean) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT stage_wire_open(stage, moved.pending, moved.retried, moved.in_progress, moved.completed)
        || CASE WHEN with_tasks THEN ',"tasks":' || (
            SELECT wire_list(array_agg(task_wire(task, aborted_at(stage)) ORDER BY task.seq))
            FROM tasks AS task WHERE task.stage_id = stage.id
        ) ELSE '' END
        || '}'
    FROM stage_moves(stage) AS moved
$$;

-- job_ended_at: when a job reached its final status; null before. For a job that ended before this was recorded, when it
-- last changed.
CREATE OR REPLACE FUNCTION job_ended_at(job jobs) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN job.status IN ('COMPLETED', 'FAILED', 'ABORTED') THEN coalesce(job.ended_at, job.updated_at) END
$$;

-- job_wire_open: a job without its closing brace.
CREATE OR REPLACE FUNCTION job_wire_open(job jobs) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || job.id
        || '","name":' || to_json(job.name)
        || ',"status":"' || job.status
        || '","data":' || job.data
        || ',"userMetadata":' || job.user_metadata
        || ',"priority":"' || job.priority
        || '","percentage":' || wire_share(job.stages_completed, job.stages_total)
        || wire_times(job.created_at, job.updated_at)
        || wire_part_b(',"endedAt":' || wire_time(job_ended_at(job)))
        || wire_trace(job.traceparent, job.tracestate)
$$;

-- job_wire: a job, with its stages if requested.
CREATE OR REPLACE FUNCTION job_wire(job jobs, with_stages boolean) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT job_wire_open(job)
        || CASE WHEN with_stages THEN ',"stages":' || (
            SELECT wire_list(array_agg(stage_wire(stage, false) ORDER BY stage.position))
            FROM stages AS stage WHERE stage.job_id = job.id
        ) ELSE '' END
        || '}'
$$;

-- task_wire_minimal: a task without its closing brace, reduced to the fields that a worker needs.
CREATE OR REPLACE FUNCTION task_wire_minimal(task tasks) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || task.id
        || '","stageId":"' || task.stage_id
        || '","data":' || task.data
        || ',"userMetadata":' || task.user_metadata
        || ',"attempts":' || task.attempts
        || ',"maxAttempts":' || task.max_attempts
        || wire_trace(task.traceparent, task.tracestate)
        || coalesce(',"timeoutSeconds":' || extract(epoch FROM task.timeout)::float8, '')
        || coalesce(',"retry":' || task.retry, '')
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

-- payload_bound: the length of a payload in bytes, or more, without reading it. The algorithms of PostgreSQL compress by
-- a factor of at most 256.
CREATE OR REPLACE FUNCTION payload_bound(payload json) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT pg_column_size(payload)::bigint * CASE WHEN pg_column_compression(payload) IS NULL THEN 1 ELSE 256 END
$$;

-- task_bound: a bound of the size of a task.
CREATE OR REPLACE FUNCTION task_bound(task tasks) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT payload_bound(task.data) + payload_bound(task.user_metadata)
        + coalesce(payload_bound(task.checkpoint), 0) + coalesce(payload_bound(task.result), 0)
        + coalesce(payload_bound(task.error), 0)
$$;

-- context_bound: a bound of the size of the context of a stage.
CREATE OR REPLACE FUNCTION context_bound(stage stages, job jobs) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT payload_bound(stage.data) + payload_bound(stage.user_metadata)
        + payload_bound(job.data) + payload_bound(job.user_metadata)
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

-- attempt_wire: an attempt.
CREATE OR REPLACE FUNCTION attempt_wire(
    number bigint, lease_id bigint, worker_id text, start_time timestamptz, end_time timestamptz, outcome text, error json
) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"number":' || number
        || ',"leaseId":' || lease_id
        || ',"workerId":' || coalesce(to_json(worker_id)::text, 'null')
        || ',"startTime":' || wire_time(start_time)
        || ',"endTime":' || wire_time(end_time)
        || ',"outcome":' || coalesce('"' || outcome || '"', 'null')
        || ',"error":' || coalesce(error::text, 'null')
        || '}'
$$;

-- token_wire: a token as JSON.
CREATE OR REPLACE FUNCTION token_wire(token tokens) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || token.id
        || '","name":' || to_json(token.name)
        || ',"scopes":' || to_json(token.scopes)
        || ',"stageTypes":' || coalesce(to_json(token.stage_types)::text, 'null')
        || ',"jobNames":' || coalesce(to_json(token.job_names)::text, 'null')
        || ',"createdBy":' || to_json(token.created_by)
        || ',"createdAt":' || wire_time(token.created_at)
        || ',"expiresAt":' || wire_time(token.expires_at)
        || ',"rotatedAt":' || wire_time(token.rotated_at)
        || ',"previousExpiresAt":' || wire_time(token.previous_expires_at)
        || ',"revokedAt":' || wire_time(token.revoked_at)
        || ',"lastUsedAt":' || wire_time(token.last_used_at)
        || '}'
$$;

-- change_fields: a status change as JSON, with the fields that the database has.
CREATE OR REPLACE FUNCTION change_fields(change history) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"source":' || coalesce('"' || change.source || '"', 'null')
        || ',"target":"' || change.target
        || '","at":' || wire_time(change.changed_at)
        || '}'
$$;
