-- How entities look on the wire: PostgreSQL writes the JSON, the manager passes it on as it is.
-- tracestate is left out when there is none, which is why it is appended to the finished object.

CREATE OR REPLACE FUNCTION wire_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

CREATE OR REPLACE FUNCTION wire_share(part bigint, total bigint) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN total > 0 THEN (part * 100 / total)::integer ELSE 0 END
$$;

CREATE OR REPLACE FUNCTION wire_with(object json, name text, member json) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN member IS NULL THEN object::text
        ELSE left(object::text, -1) || ', "' || name || '" : ' || member::text || '}' END
$$;

CREATE OR REPLACE FUNCTION task_wire(task tasks) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT wire_with(json_build_object(
        'id', task.id,
        'stageId', task.stage_id,
        'status', task.status,
        'data', task.data,
        'userMetadata', task.user_metadata,
        'attempts', task.attempts,
        'maxAttempts', task.max_attempts,
        'createdAt', wire_time(task.created_at),
        'updatedAt', wire_time(task.updated_at),
        'creationTime', wire_time(task.created_at),
        'updateTime', wire_time(task.updated_at),
        'startTime', wire_time(task.start_time),
        'endTime', wire_time(task.end_time),
        'traceparent', task.traceparent
    ), 'tracestate', to_json(task.tracestate))
$$;

-- The exact summary: the stage's own figures plus what claims have moved since they were last folded.
CREATE OR REPLACE FUNCTION stage_summary(stage stages) RETURNS json LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT json_build_object(
        'created', 0,
        'pending', stage.pending + moved.pending,
        'inProgress', stage.in_progress + moved.in_progress,
        'completed', stage.completed,
        'failed', stage.failed,
        'retried', stage.retried + moved.retried,
        'aborted', stage.aborted,
        'total', stage.pending + stage.in_progress + stage.completed + stage.failed + stage.retried + stage.aborted
    )
    FROM (
        SELECT coalesce(sum(pending), 0)::bigint AS pending,
            coalesce(sum(retried), 0)::bigint AS retried,
            coalesce(sum(in_progress), 0)::bigint AS in_progress
        FROM stage_deltas WHERE stage_id = stage.id
    ) AS moved
$$;

CREATE OR REPLACE FUNCTION stage_wire(stage stages, with_tasks boolean) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT wire_with(wire_with(json_build_object(
        'id', stage.id,
        'jobId', stage.job_id,
        'type', stage.type,
        'order', stage.position,
        'status', stage.status,
        'data', stage.data,
        'userMetadata', stage.user_metadata,
        'summary', stage_summary(stage),
        'percentage', wire_share(stage.completed,
            stage.pending + stage.in_progress + stage.completed + stage.failed + stage.retried + stage.aborted),
        'createdAt', wire_time(stage.created_at),
        'updatedAt', wire_time(stage.updated_at),
        'creationTime', wire_time(stage.created_at),
        'updateTime', wire_time(stage.updated_at),
        'startTime', wire_time(stage.start_time),
        'endTime', wire_time(stage.end_time),
        'traceparent', stage.traceparent
    ), 'tracestate', to_json(stage.tracestate))::json, 'tasks', CASE WHEN with_tasks THEN (
        SELECT coalesce('[' || string_agg(task_wire(task), ',' ORDER BY task.seq) || ']', '[]')::json
        FROM tasks AS task WHERE task.stage_id = stage.id
    ) END)
$$;

CREATE OR REPLACE FUNCTION job_wire(job jobs, with_stages boolean) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT wire_with(wire_with(json_build_object(
        'id', job.id,
        'name', job.name,
        'status', job.status,
        'data', job.data,
        'userMetadata', job.user_metadata,
        'priority', job.priority,
        'percentage', wire_share(job.stages_completed, job.stages_total),
        'createdAt', wire_time(job.created_at),
        'updatedAt', wire_time(job.updated_at),
        'creationTime', wire_time(job.created_at),
        'updateTime', wire_time(job.updated_at),
        'traceparent', job.traceparent
    ), 'tracestate', to_json(job.tracestate))::json, 'stages', CASE WHEN with_stages THEN (
        SELECT coalesce('[' || string_agg(stage_wire(stage, false), ',' ORDER BY stage.position) || ']', '[]')::json
        FROM stages AS stage WHERE stage.job_id = job.id
    ) END)
$$;
