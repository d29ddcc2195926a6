-- The maintenance tasks, in small transactions, and the deletion of a job, which leaves most of its work to one of them.
-- A routine that changes the tree of a job needs the job's lock. With `waits` false, it only tries to take the lock and
-- skips the jobs that other sessions have locked, so that one job does not hold up the others. Trying alone could fail
-- for ever, because sessions that complete tasks may share a lock in turn. For a job that was skipped, `waits` is
-- therefore sometimes true, in a transaction without other jobs and with a short lock_timeout.

-- unfolded_stages: up to `most` stages that have deltas, those with the oldest first, except those of the jobs in
-- `passed`. Rows: the job (null: it was deleted) and the stage.
CREATE OR REPLACE FUNCTION unfolded_stages(passed uuid[], most integer) RETURNS TABLE (job_id uuid, stage_id uuid)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT late.job_id, late.stage_id FROM (
        SELECT stage_id, min(created_at) AS oldest, (SELECT job_id FROM stages WHERE id = stage_id) AS job_id
        FROM stage_deltas GROUP BY stage_id
    ) AS late
    WHERE late.job_id IS NULL OR late.job_id <> ALL (passed)
    ORDER BY late.oldest LIMIT most;
END
$$;

-- fold_stages: adds the deltas of claims and reports to the counts of these stages, and moves the heads of their queues
-- to their first waiting tasks. Deltas of stages that no longer exist are deleted. Returns the jobs that were skipped.
CREATE OR REPLACE FUNCTION fold_stages(wanted_stages uuid[], waits boolean) RETURNS uuid[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    busy uuid[] := lock_free_jobs(ARRAY(SELECT job_id FROM stages WHERE id = ANY (wanted_stages)), waits);
BEGIN
    WITH folding AS (
        DELETE FROM stage_deltas WHERE stage_id = ANY (ARRAY(
            SELECT id FROM unnest(wanted_stages) AS listed (id)
            WHERE (SELECT job_id FROM stages WHERE stages.id = listed.id) = ANY (busy) IS NOT TRUE
        )) RETURNING *
    ), moved AS (
        SELECT stage_id, sum(pending) AS pending, sum(retried) AS retried, sum(in_progress) AS in_progress,
            sum(completed) AS completed
        FROM folding GROUP BY stage_id
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
    FROM moved WHERE stage.id = ANY (ARRAY[moved.stage_id]) AND stage.status <> 'ABORTED';
    RETURN busy;
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

-- due_tasks: up to `most` delayed tasks that are due, the same share of each stage, except those of the jobs in
-- `passed`. Rows: the job (null: it was deleted) and the task; the stage with the oldest due task first.
CREATE OR REPLACE FUNCTION due_tasks(passed uuid[], most integer) RETURNS TABLE (job_id uuid, task_id uuid)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH late AS MATERIALIZED (
        SELECT * FROM (
            SELECT stage_id, min(due) AS oldest, (SELECT job_id FROM stages WHERE id = stage_id) AS job_id
            FROM delayed_tasks WHERE due <= now() GROUP BY stage_id
        ) AS grouped
        WHERE job_id IS NULL OR job_id <> ALL (passed)
    )
    SELECT late.job_id, task.task_id
    FROM late, LATERAL (
        SELECT task_id FROM delayed_tasks WHERE stage_id = late.stage_id AND due <= now()
        ORDER BY due LIMIT greatest(most / (SELECT count(*) FROM late), 1)
    ) AS task
    ORDER BY late.oldest LIMIT most;
END
$$;

-- wake_tasks: returns these tasks to the queue if they are due; in an aborted or deleted stage, it only ends their
-- delay. Rows: one with the jobs that were skipped, and the types of the stages that have claimable tasks now.
CREATE OR REPLACE FUNCTION wake_tasks(wanted_ids uuid[], waits boolean, OUT busy uuid[], OUT woken text[])
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    touched uuid[] := ARRAY(SELECT DISTINCT stage_id FROM delayed_tasks WHERE task_id = ANY (wanted_ids));
BEGIN
    busy := lock_free_jobs(ARRAY(SELECT job_id FROM stages WHERE id = ANY (touched)), waits);
    WITH owner AS MATERIALIZED (
        SELECT id, job_id, status FROM stages WHERE id = ANY (touched)
    ), due AS (
        DELETE FROM delayed_tasks
        WHERE task_id = ANY (wanted_ids) AND due <= now()
            AND stage_id <> ALL (ARRAY(SELECT id FROM owner WHERE job_id = ANY (busy)))
        RETURNING stage_id, seq, task_id
    ), requeued AS (
        INSERT INTO waiting_tasks (stage_id, seq, task_id) SELECT * FROM due
        WHERE stage_id = ANY (ARRAY(SELECT id FROM owner WHERE status <> 'ABORTED'))
    ), oldest AS (
        SELECT stage_id, min(seq) AS seq FROM due GROUP BY stage_id
    ), refilled AS (
        UPDATE stages AS stage SET
            oldest_waiting = least(stage.oldest_waiting, oldest.seq),
            head = least(stage.head, oldest.seq)
        FROM oldest WHERE stage.id = ANY (ARRAY[oldest.stage_id]) AND stage.status <> 'ABORTED'
        RETURNING type
    )
    SELECT array_agg(DISTINCT type) INTO woken FROM refilled;
END
$$;

-- unswept_stages: up to `most` aborted stages with tasks to sweep, except those of the jobs in `passed`: one of each job,
-- then a second of each, and so on.
CREATE OR REPLACE FUNCTION unswept_stages(passed uuid[], most integer) RETURNS TABLE (job_id uuid, stage_id uuid)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT queue.job_id, queue.stage_id FROM (
        SELECT stage.job_id, aborted.stage_id, stage.end_time,
            row_number() OVER (PARTITION BY stage.job_id ORDER BY aborted.stage_id) AS turn
        FROM aborted_stages AS aborted, LATERAL (
            SELECT job_id, end_time FROM stages WHERE id = aborted.stage_id OFFSET 0
        ) AS stage
        WHERE stage.job_id <> ALL (passed)
    ) AS queue
    ORDER BY queue.turn, queue.end_time LIMIT most;
END
$$;

-- sweep_aborted_stages: task CREATED, PENDING, RETRIED, IN_PROGRESS → ABORTED, in the rows of up to `most` tasks of these
-- aborted stages, the same share of each. Skips stages that another session is sweeping. Returns the number of
-- examined tasks and finished stages.
CREATE OR REPLACE FUNCTION sweep_aborted_stages(wanted_stages uuid[], most integer) RETURNS bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    share integer := greatest(most / cardinality(wanted_stages), 1);
    parents uuid[];
    positions bigint[];
    owners uuid[];
    seqs bigint[];
    ids uuid[];
    finished uuid[];
BEGIN
    SELECT array_agg(stage_id), array_agg(swept_to) INTO parents, positions FROM (
        SELECT stage_id, swept_to FROM aborted_stages WHERE stage_id = ANY (wanted_stages)
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS locked;
    SELECT array_agg(parent), array_agg(seq), array_agg(id) INTO owners, seqs, ids
    FROM unnest(parents, positions) AS locked (parent, swept_to), LATERAL (
        SELECT seq, id FROM tasks WHERE stage_id = parent AND seq > swept_to ORDER BY seq LIMIT share
    ) AS task;
    -- In the same order as a claim that started before the abort: waiting_tasks before tasks.
    PERFORM unqueue_tasks(owners, seqs, ids);
    -- In the same order as a heartbeat that started before the abort.
    PERFORM FROM tasks WHERE id = ANY (ids) ORDER BY seq FOR NO KEY UPDATE;
    UPDATE tasks SET status = 'ABORTED', end_time = ended_at, updated_at = greatest(updated_at, ended_at)
    FROM (SELECT id, end_time AS ended_at FROM stages WHERE id = ANY (parents)) AS stage
    WHERE tasks.id = ANY (ids) AND stage.id = stage_id AND status NOT IN ('COMPLETED', 'FAILED', 'ABORTED');

    UPDATE aborted_stages SET swept_to = swept.seq
    FROM (SELECT owner, max(seq) AS seq FROM unnest(owners, seqs) AS task (owner, seq) GROUP BY owner) AS swept
    WHERE stage_id = ANY (ARRAY[swept.owner]);
    finished := finish_stages(parents, owners, share);
    DELETE FROM aborted_stages WHERE stage_id = ANY (finished);
    RETURN coalesce(cardinality(ids), 0) + cardinality(finished);
END
$$;

-- delete_job: deletes a job with its key, its stages and its history. Without their stage, its tasks are invisible at
-- once. The caller holds the job's lock. Not a plain statement, so that the cascades use index scans, too.
CREATE OR REPLACE FUNCTION delete_job(wanted_id uuid) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM jobs WHERE id = wanted_id;
END
$$;

-- remove_deleted_stages: deletes up to `most` tasks of these deleted stages, the same share of each, with everything that
-- belongs to them; or, if these tasks have more attempts than that, only `most` of the attempts. Skips stages that
-- another session is working on. Returns the number of deleted tasks or attempts and finished stages.
CREATE OR REPLACE FUNCTION remove_deleted_stages(wanted_stages uuid[], most integer) RETURNS bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    share integer := greatest(most / cardinality(wanted_stages), 1);
    parents uuid[];
    owners uuid[];
    seqs bigint[];
    ids uuid[];
    removed integer;
    last_attempts bigint[];
    finished uuid[];
BEGIN
    parents := ARRAY(SELECT stage_id FROM deleted_stages WHERE stage_id = ANY (wanted_stages) FOR UPDATE SKIP LOCKED);
    SELECT array_agg(parent), array_agg(seq), array_agg(id) INTO owners, seqs, ids
    FROM unnest(parents) AS locked (parent), LATERAL (
        SELECT seq, id FROM tasks WHERE stage_id = parent ORDER BY seq LIMIT share
    ) AS task;
    DELETE FROM attempts WHERE lease_id = ANY (ARRAY(
        SELECT lease_id FROM attempts WHERE task_id = ANY (ids) LIMIT most
    ));
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed = most THEN
        RETURN removed;
    END IF;
    -- In the same order as a claim that started before the deletion. The lease of that claim is found, because deleting
    -- the task waits for the claim.
    PERFORM unqueue_tasks(owners, seqs, ids);
    -- In the same order as a heartbeat that started before the deletion.
    PERFORM FROM tasks WHERE id = ANY (ids) ORDER BY seq FOR UPDATE;
    WITH deleted AS (
        DELETE FROM tasks WHERE id = ANY (ids) RETURNING lease_id
    )
    SELECT array_agg(lease_id) INTO last_attempts FROM deleted;
    DELETE FROM leases WHERE id = ANY (last_attempts);

    finished := finish_stages(parents, owners, share);
    DELETE FROM deleted_stages WHERE stage_id = ANY (finished);
    RETURN coalesce(cardinality(ids), 0) + cardinality(finished);
END
$$;

-- unqueue_tasks: deletes tasks from the queue of their stages, and their delays. Rows of waiting_tasks are never updated,
-- so that it is safe to select them by ctid.
CREATE OR REPLACE FUNCTION unqueue_tasks(stage_ids uuid[], seqs bigint[], ids uuid[]) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM waiting_tasks WHERE ctid = ANY (ARRAY(
        SELECT row.place FROM unnest(stage_ids, seqs) AS task (stage, number), LATERAL (
            SELECT ctid AS place FROM waiting_tasks WHERE stage_id = task.stage AND seq = task.number OFFSET 0
        ) AS row
    ));
    DELETE FROM delayed_tasks WHERE task_id = ANY (ids);
END
$$;

-- finish_stages: deletes the deltas of those stages of `parents` of which fewer than `share` tasks were found: they have
-- no more. `owners` has the stage of each found task. Returns these stages.
CREATE OR REPLACE FUNCTION finish_stages(parents uuid[], owners uuid[], share integer) RETURNS uuid[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    finished uuid[] := ARRAY(
        SELECT parent FROM unnest(parents) AS locked (parent)
        LEFT JOIN (SELECT owner, count(*) FROM unnest(owners) AS task (owner) GROUP BY owner) AS found ON owner = parent
        WHERE coalesce(count, 0) < share
    );
BEGIN
    DELETE FROM stage_deltas WHERE stage_id = ANY (finished);
    RETURN finished;
END
$$;

-- expired_leases: up to `most` expired leases, with the arguments that settle_tasks needs to end their attempts, except
-- those of the jobs in `passed`: the oldest of each stage, then the second of each, and so on. Leases whose task was
-- aborted or deleted meanwhile are deleted here.
CREATE OR REPLACE FUNCTION expired_leases(passed uuid[], most integer) RETURNS TABLE (
    job_id uuid, task_id uuid, lease_id bigint, worker_id text, timed_out boolean, length interval, stage_type text
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    expired bigint[];
BEGIN
    expired := ARRAY(
        SELECT id FROM (
            SELECT id, expires_at, row_number() OVER (PARTITION BY stage_id ORDER BY expires_at, id) AS turn
            FROM leases
            WHERE expires_at <= now()
                AND stage_id <> ALL (ARRAY(SELECT stages.id FROM stages WHERE stages.job_id = ANY (passed)))
        ) AS queue
        ORDER BY turn, expires_at, id LIMIT most
    );
    DELETE FROM leases WHERE id = ANY (ARRAY(
        SELECT id FROM leases AS lease
        WHERE id = ANY (expired) AND (
            SELECT task_status(task, aborted_at(stage))
            FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id WHERE task.id = lease.task_id
        ) IS DISTINCT FROM 'IN_PROGRESS'
        FOR UPDATE SKIP LOCKED
    ));
    RETURN QUERY
    SELECT stage.job_id, lease.task_id, lease.id, lease.worker_id, coalesce(lease.deadline <= now(), false),
        lease.length, stage.type
    FROM unnest(expired) WITH ORDINALITY AS chosen (id, place), LATERAL (
        SELECT * FROM leases WHERE id = chosen.id OFFSET 0
    ) AS lease, LATERAL (
        SELECT job_id, type FROM stages WHERE id = lease.stage_id OFFSET 0
    ) AS stage
    ORDER BY chosen.place;
END
$$;
