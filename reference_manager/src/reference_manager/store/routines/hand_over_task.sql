-- hand_over_task: task CREATED → PENDING → IN_PROGRESS in one step: adds a task to a stage and claims it for a claim that
-- waits, as add_tasks and claim_tasks would do, in half of their time: the task never enters the queue, and the counts of
-- its stage change once. Does this only if claim_tasks would claim this very task and would have nothing else to do: the
-- stage and its job are IN_PROGRESS, and no other task of this type is waiting. The caller holds the job's lock.
-- Arguments: as for add_tasks and claim_tasks, each for one task and one claim. Rows: one with the type of the stage, the
-- seq of the task, the task as it was when it was PENDING if `written`, and what claim_tasks returns for it; none if
-- nothing was done.
-- Plans are pinned to index scans, as in claim_tasks.
CREATE OR REPLACE FUNCTION hand_over_task(
    stem text, wanted_stage uuid, usual_attempts integer, data json, user_metadata json, options json, traceparent text,
    tracestate text, written boolean, worker text, length interval, minimal boolean,
    OUT type text, OUT seq bigint, OUT body text, OUT lease bigint, OUT task uuid, OUT claimed text, OUT context text
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    added tasks;
    defaults json;
    claimed_at timestamptz := clock_timestamp();
BEGIN
    UPDATE stages AS stage SET in_progress = in_progress + 1, updated_at = now()
    FROM jobs AS job
    WHERE stage.id = wanted_stage AND stage.status = 'IN_PROGRESS' AND accepts_claims(stage)
        AND job.id = ANY (ARRAY[stage.job_id]) AND job.status = 'IN_PROGRESS'
        AND NOT EXISTS (
            SELECT FROM stages AS other
            WHERE other.type = stage.type AND other.oldest_waiting IS NOT NULL AND accepts_claims(other)
                AND EXISTS (SELECT FROM waiting_tasks WHERE stage_id = other.id AND seq >= other.head)
        )
    RETURNING stage.type, stage.task_defaults, CASE WHEN worker IS NOT NULL THEN claim_context(stage, job) END
    INTO type, defaults, context;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    seq := nextval('tasks_seq_seq');
    INSERT INTO tasks (
        id, seq, stage_id, status, data, user_metadata, max_attempts, traceparent, tracestate, timeout, retry,
        start_time, updated_at, lease_id, worker_id
    ) OVERRIDING SYSTEM VALUE VALUES (
        numbered_id(stem, hand_over_task.seq), hand_over_task.seq, wanted_stage, 'IN_PROGRESS', hand_over_task.data,
        coalesce(hand_over_task.user_metadata, '{}'),
        coalesce((options ->> 'maxAttempts')::integer, (defaults ->> 'maxAttempts')::integer, usual_attempts),
        coalesce(options ->> 'traceparent', hand_over_task.traceparent),
        CASE WHEN options ->> 'traceparent' IS NULL THEN hand_over_task.tracestate ELSE options ->> 'tracestate' END,
        make_interval(secs => coalesce(options ->> 'timeoutSeconds', defaults ->> 'timeoutSeconds')::float8),
        coalesce(options -> 'retry', defaults -> 'retry'),
        claimed_at, claimed_at, nextval('lease_ids'), worker
    ) RETURNING * INTO added;
    INSERT INTO leases (id, task_id, stage_id, worker_id, length, expires_at, deadline) VALUES (
        added.lease_id, added.id, added.stage_id, worker, hand_over_task.length,
        claimed_at + least(hand_over_task.length, added.timeout), claimed_at + added.timeout
    );
    IF written THEN
        body := wire_list(ARRAY[task_wire(task_as_created(added, added.user_metadata), NULL)]);
    END IF;
    lease := added.lease_id;
    task := added.id;
    IF minimal THEN
        claimed := task_wire_minimal(added) || ',"leaseId":' || added.lease_id || ',"waitedSeconds":0}';
    ELSIF worker IS NULL THEN
        claimed := task_wire(added, NULL);
    ELSE
        claimed := task_wire_open(added, NULL) || ',"leaseId":' || added.lease_id
            || ',"leaseExpiresAt":' || wire_time(claimed_at + least(hand_over_task.length, added.timeout))
            || ',' || substr(context, 2);
    END IF;
END
$$;
