-- The maintenance tasks, in small transactions. A maintenance task that needs a job's lock waits for it like any other
-- session. Only trying to take the lock could fail for ever, because sessions that complete tasks may share it in turn.

-- fold_stage: adds the deltas of claims and reports to the counts of one stage, and moves the head of its queue to its
-- first waiting task.
CREATE OR REPLACE FUNCTION fold_stage(wanted_stage uuid) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    PERFORM lock_jobs(ARRAY(SELECT job_id FROM stages WHERE id = wanted_stage));
    WITH folding AS (
        DELETE FROM stage_deltas WHERE stage_id = wanted_stage RETURNING *
    ), moved AS (
        SELECT sum(pending) AS pending, sum(retried) AS retried, sum(in_progress) AS in_progress,
            sum(completed) AS completed
        FROM folding HAVING count(*) > 0
    )
    UPDATE stages AS stage SET
        pending = stage.pending + moved.pending,
        retried = stage.retried + moved.retried,
        in_progress = stage.in_progress + moved.in_progress,
        completed = stage.completed + moved.completed,
        head = coalesce(
            (SELECT seq FROM waiting_tasks WHERE stage_id = stage.id AND seq >= stage.head ORDER BY seq LIMIT 1),
            stage.head
        )
    FROM moved WHERE stage.id = wanted_stage AND stage.status <> 'ABORTED';
END
$$;

-- fold_totals: replaces the rows of each total by their sum. Returns the number of rows that this saved.
CREATE OR REPLACE FUNCTION fold_totals() RETURNS bigint LANGUAGE sql AS $$
    WITH jobs_before AS (
        DELETE FROM job_totals WHERE status IN (SELECT status FROM job_totals GROUP BY status HAVING count(*) > 1)
        RETURNING *
    ), jobs_after AS (
        INSERT INTO job_totals
        SELECT status, sum(jobs) FROM jobs_before GROUP BY status HAVING sum(jobs) <> 0 RETURNING status
    ), stages_before AS (
        DELETE FROM stage_totals WHERE (type, priority, status) IN (
            SELECT type, priority, status FROM stage_totals GROUP BY type, priority, status HAVING count(*) > 1
        ) RETURNING *
    ), stages_after AS (
        -- A total without stages has no tasks either.
        INSERT INTO stage_totals
        SELECT type, priority, status, sum(stages), sum(pending), sum(in_progress), sum(retried), sum(completed),
            sum(failed), sum(aborted)
        FROM stages_before GROUP BY type, priority, status HAVING sum(stages) <> 0 RETURNING status
    )
    SELECT (SELECT count(*) FROM jobs_before) - (SELECT count(*) FROM jobs_after)
        + (SELECT count(*) FROM stages_before) - (SELECT count(*) FROM stages_after)
$$;

-- wake_tasks: returns up to `most` due tasks of one stage to the queue. Returns the type of the stage; null if no task
-- is due.
CREATE OR REPLACE FUNCTION wake_tasks(most integer) RETURNS text LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    wanted_stage uuid;
    woken text;
BEGIN
    SELECT stage_id INTO wanted_stage FROM delayed_tasks WHERE due <= now() ORDER BY due LIMIT 1;
    PERFORM lock_jobs(ARRAY(SELECT job_id FROM stages WHERE id = wanted_stage));
    WITH due AS (
        DELETE FROM delayed_tasks WHERE task_id = ANY (ARRAY(
            SELECT task_id FROM delayed_tasks WHERE stage_id = wanted_stage AND due <= now() LIMIT most
        )) RETURNING stage_id, seq, task_id
    ), requeued AS (
        INSERT INTO waiting_tasks (stage_id, seq, task_id) SELECT * FROM due
        WHERE EXISTS (SELECT FROM stages WHERE id = wanted_stage AND status <> 'ABORTED')
    ), oldest AS (
        SELECT min(seq) AS seq FROM due
    )
    UPDATE stages AS stage SET
        oldest_waiting = least(stage.oldest_waiting, oldest.seq),
        head = least(stage.head, oldest.seq)
    FROM oldest WHERE stage.id = wanted_stage AND stage.status <> 'ABORTED'
    RETURNING type INTO woken;
    RETURN woken;
END
$$;

-- sweep_aborted_stage: task CREATED, PENDING, RETRIED, IN_PROGRESS → ABORTED, in the rows of up to `most` tasks of an
-- aborted stage. Returns the number of examined tasks; 0 if the stage is finished; null if no aborted stage is left, or
-- another session has locked it.
CREATE OR REPLACE FUNCTION sweep_aborted_stage(most integer) RETURNS integer LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    sweep record;
    seqs bigint[];
BEGIN
    SELECT aborted.stage_id, aborted.swept_to, stage.end_time INTO sweep
    FROM aborted_stages AS aborted JOIN stages AS stage ON stage.id = aborted.stage_id
    LIMIT 1 FOR NO KEY UPDATE OF aborted SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    seqs := ARRAY(
        SELECT seq FROM tasks WHERE stage_id = sweep.stage_id AND seq > sweep.swept_to ORDER BY seq LIMIT most
    );
    IF cardinality(seqs) = 0 THEN
        DELETE FROM delayed_tasks WHERE stage_id = sweep.stage_id;
        DELETE FROM stage_deltas WHERE stage_id = sweep.stage_id;
        DELETE FROM aborted_stages WHERE stage_id = sweep.stage_id;
        RETURN 0;
    END IF;
    -- In the same order as a claim that started before the abort: waiting_tasks before tasks.
    DELETE FROM waiting_tasks WHERE stage_id = sweep.stage_id AND seq = ANY (seqs);
    UPDATE tasks SET status = 'ABORTED', end_time = sweep.end_time, updated_at = greatest(updated_at, sweep.end_time)
    WHERE stage_id = sweep.stage_id AND seq = ANY (seqs) AND status NOT IN ('COMPLETED', 'FAILED', 'ABORTED');
    UPDATE aborted_stages SET swept_to = seqs[cardinality(seqs)] WHERE stage_id = sweep.stage_id;
    RETURN cardinality(seqs);
END
$$;

-- expired_leases: up to `most` expired leases, the oldest first, with the arguments that settle_tasks needs to end
-- their attempts. Leases whose task has been aborted meanwhile are deleted here.
CREATE OR REPLACE FUNCTION expired_leases(most integer)
RETURNS TABLE (task_id uuid, lease_id bigint, worker_id text, timed_out boolean, length interval, stage_type text)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    expired bigint[];
BEGIN
    expired := ARRAY(SELECT id FROM leases WHERE expires_at <= now() ORDER BY expires_at LIMIT most);
    DELETE FROM leases AS lease
    WHERE id = ANY (expired) AND (
        SELECT task_status(task, aborted_at(stage)) FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id
        WHERE task.id = lease.task_id
    ) IS DISTINCT FROM 'IN_PROGRESS';
    RETURN QUERY
    SELECT task_id, id, worker_id, coalesce(deadline <= now(), false), length,
        (SELECT type FROM stages WHERE id = lease.stage_id)
    FROM leases AS lease WHERE id = ANY (expired);
END
$$;
