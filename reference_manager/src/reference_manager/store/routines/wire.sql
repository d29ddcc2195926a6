-- How entities look on the wire: PostgreSQL writes the JSON, the manager passes it on as it is. The texts are put together
-- by hand since that takes half the time of json_build_object, and claims spend most of theirs here. What is quoted by
-- hand (ids, statuses, times, traceparent) has only characters that need no escape; payloads are stored as JSON text.

CREATE OR REPLACE FUNCTION wire_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(to_char(moment AT TIME ZONE 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.MS"Z\""'), 'null')
$$;

CREATE OR REPLACE FUNCTION wire_times(created timestamptz, updated timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ',"createdAt":' || wire_time(created)
        || ',"updatedAt":' || wire_time(updated)
        || ',"creationTime":' || wire_time(created)
        || ',"updateTime":' || wire_time(updated)
$$;

-- tracestate is left out when there is none.
CREATE OR REPLACE FUNCTION wire_trace(traceparent text, tracestate text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ',"traceparent":"' || traceparent || '"' || coalesce(',"tracestate":' || to_json(tracestate), '')
$$;

CREATE OR REPLACE FUNCTION wire_share(part bigint, total bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN total > 0 THEN part * 100 / total ELSE 0 END
$$;

CREATE OR REPLACE FUNCTION wire_list(entities text[]) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '[' || coalesce(array_to_string(entities, ','), '') || ']'
$$;

CREATE OR REPLACE FUNCTION task_wire(task tasks) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || task.id
        || '","stageId":"' || task.stage_id
        || '","status":"' || task.status
        || '","data":' || task.data
        || ',"userMetadata":' || task.user_metadata
        || ',"attempts":' || task.attempts
        || ',"maxAttempts":' || task.max_attempts
        || wire_times(task.created_at, task.updated_at)
        || ',"startTime":' || wire_time(task.start_time)
        || ',"endTime":' || wire_time(task.end_time)
        || wire_trace(task.traceparent, task.tracestate)
        || '}'
$$;

-- Claims move tasks between statuses, so that the stage's own figures always sum to the number of its tasks.
CREATE OR REPLACE FUNCTION stage_total(stage stages) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT stage.pending + stage.in_progress + stage.completed + stage.failed + stage.retried + stage.aborted
$$;

-- The exact summary: the stage's own figures plus what claims have moved since they were last folded.
CREATE OR REPLACE FUNCTION stage_summary(stage stages) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"created":0,"pending":' || stage.pending + moved.pending
        || ',"inProgress":' || stage.in_progress + moved.in_progress
        || ',"completed":' || stage.completed
        || ',"failed":' || stage.failed
        || ',"retried":' || stage.retried + moved.retried
        || ',"aborted":' || stage.aborted
        || ',"total":' || stage_total(stage)
        || '}'
    FROM (
        SELECT coalesce(sum(pending), 0)::bigint AS pending,
            coalesce(sum(retried), 0)::bigint AS retried,
            coalesce(sum(in_progress), 0)::bigint AS in_progress
        FROM stage_deltas WHERE stage_id = stage.id
    ) AS moved
$$;

CREATE OR REPLACE FUNCTION stage_wire(stage stages, with_tasks boolean) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"' || stage.id
        || '","jobId":"' || stage.job_id
        || '","type":' || to_json(stage.type)
        || ',"order":' || stage.position
        || ',"status":"' || stage.status
        || '","data":' || stage.data
        || ',"userMetadata":' || stage.user_metadata
        || ',"summary":' || stage_summary(stage)
        || ',"percentage":' || wire_share(stage.completed, stage_total(stage))
        || wire_times(stage.created_at, stage.updated_at)
        || ',"startTime":' || wire_time(stage.start_time)
        || ',"endTime":' || wire_time(stage.end_time)
        || wire_trace(stage.traceparent, stage.tracestate)
        || CASE WHEN with_tasks THEN ',"tasks":' || (
            SELECT wire_list(array_agg(task_wire(task) ORDER BY task.seq)) FROM tasks AS task WHERE task.stage_id = stage.id
        ) ELSE '' END
        || '}'
$$;

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
