-- settle_tasks(task ids, outcomes): task IN_PROGRESS → COMPLETED, RETRIED, FAILED; then, together with it, stage
-- IN_PROGRESS → COMPLETED, FAILED; next stage CREATED → PENDING; job PENDING, IN_PROGRESS, PAUSED → COMPLETED, FAILED.
-- Only tasks that are IN_PROGRESS; outcomes are COMPLETED or FAILED. An item that is refused spoils no other.
-- Rows: one an item, in the order of the arrays: the task's status when the call came (null: no such task), and the task
-- as JSON where this call settled it. IN_PROGRESS without JSON: somebody else settled it while this call waited.
--
-- Plans are pinned to index walks, as in claim_tasks.
--
-- Everything that changes a job's tree, claims apart, first takes the job's lock, several in the order of their ids:
-- the rings of waiters that would be deadlocks cannot close, and "this was the last task" is exact.
CREATE OR REPLACE FUNCTION settle_tasks(wanted_ids uuid[], outcomes task_status[])
RETURNS TABLE (source task_status, body text) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    sources task_status[];
    settled bigint[];
    wires text[];
    bodies text[];
    ended uuid[];
BEGIN
    sources := ARRAY(
        SELECT task.status FROM unnest(wanted_ids) WITH ORDINALITY AS wanted (id, place)
        LEFT JOIN (SELECT id, status FROM tasks WHERE id = ANY (wanted_ids)) AS task USING (id)
        ORDER BY wanted.place
    );

    PERFORM FROM jobs WHERE id = ANY (ARRAY(
        SELECT job_id FROM stages WHERE id = ANY (ARRAY(SELECT stage_id FROM tasks WHERE id = ANY (wanted_ids)))
    )) ORDER BY id FOR NO KEY UPDATE;

    WITH wanted AS (
        SELECT DISTINCT ON (id) id, outcome, place
        FROM unnest(wanted_ids, outcomes) WITH ORDINALITY AS listed (id, outcome, place)
        ORDER BY id, place
    ), settling AS (
        UPDATE tasks AS task SET
            status = CASE
                WHEN outcome = 'COMPLETED' THEN outcome
                WHEN task.attempts + 1 < task.max_attempts THEN 'RETRIED'
                ELSE 'FAILED'
            END,
            attempts = task.attempts + (outcome = 'FAILED')::integer,
            end_time = CASE WHEN outcome = 'COMPLETED' OR task.attempts + 1 >= task.max_attempts THEN now() END,
            updated_at = now()
        FROM wanted
        WHERE task.id = ANY (wanted_ids) AND task.id = wanted.id AND task.status = 'IN_PROGRESS'
        RETURNING wanted.place, task.stage_id, task.status, task.waiting, task_wire(task) AS wire
    ), tally AS (
        SELECT stage_id, count(*) AS reported,
            count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
            count(*) FILTER (WHERE status = 'RETRIED') AS retried,
            count(*) FILTER (WHERE status = 'FAILED') AS failed,
            min(waiting) AS oldest_waiting
        FROM settling GROUP BY stage_id
    ), folding AS (
        DELETE FROM stage_deltas WHERE stage_id = ANY (ARRAY(SELECT stage_id FROM tally)) RETURNING *
    ), moved AS (
        SELECT stage_id, sum(pending) AS pending, sum(retried) AS retried, sum(in_progress) AS in_progress
        FROM folding GROUP BY stage_id
    ), verdict AS (
        -- Under the job's lock nobody else ends a stage or adds a task, so what is read here is what is updated below.
        SELECT stage.id, tally.*, stage.status AS source,
            CASE
                WHEN stage.status <> 'IN_PROGRESS' THEN stage.status
                WHEN tally.failed > 0 THEN 'FAILED'
                WHEN stage.completed + tally.completed = stage_total(stage) THEN 'COMPLETED'
                ELSE stage.status
            END AS target,
            coalesce(moved.pending, 0) AS moved_pending,
            coalesce(moved.retried, 0) AS moved_retried,
            coalesce(moved.in_progress, 0) AS moved_in_progress
        FROM tally JOIN stages AS stage ON stage.id = tally.stage_id
        LEFT JOIN moved ON moved.stage_id = tally.stage_id
        WHERE stage.id = ANY (ARRAY(SELECT stage_id FROM tally))
    ), counting AS (
        UPDATE stages AS stage SET
            status = verdict.target,
            end_time = CASE WHEN verdict.target <> verdict.source THEN now() ELSE stage.end_time END,
            pending = stage.pending + verdict.moved_pending,
            retried = stage.retried + verdict.moved_retried + verdict.retried,
            in_progress = stage.in_progress + verdict.moved_in_progress - verdict.reported,
            completed = stage.completed + verdict.completed,
            failed = stage.failed + verdict.failed,
            oldest_waiting = least(stage.oldest_waiting, verdict.oldest_waiting),
            updated_at = now()
        FROM verdict WHERE stage.id = ANY (ARRAY(SELECT id FROM verdict)) AND stage.id = verdict.id
    )
    SELECT
        (SELECT array_agg(place) FROM settling),
        (SELECT array_agg(wire) FROM settling),
        (SELECT array_agg(id) FROM verdict WHERE target <> verdict.source)
    INTO settled, wires, ended;

    IF ended IS NOT NULL THEN
        PERFORM follow_ended_stages(ended);
    END IF;

    bodies := array_fill(NULL::text, ARRAY[cardinality(sources)]);
    FOR number IN 1 .. coalesce(cardinality(settled), 0) LOOP
        bodies[settled[number]] := wires[number];
    END LOOP;
    RETURN QUERY SELECT * FROM unnest(sources, bodies);
END
$$;

-- What follows when stages end: the next stage opens and the job's share of completed stages grows, or the job ends.
-- The caller holds the locks of their jobs.
CREATE OR REPLACE FUNCTION follow_ended_stages(ended uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE stages AS next SET status = 'PENDING', updated_at = now()
    FROM stages AS stage
    WHERE stage.id = ANY (ended) AND stage.status = 'COMPLETED'
        AND next.job_id = stage.job_id AND next.position = stage.position + 1 AND next.status = 'CREATED';

    UPDATE jobs AS job SET
        stages_completed = state.completed,
        status = CASE
            WHEN job.status NOT IN ('PENDING', 'IN_PROGRESS', 'PAUSED') THEN job.status
            WHEN state.failed THEN 'FAILED'
            WHEN state.completed = job.stages_total THEN 'COMPLETED'
            ELSE job.status
        END,
        updated_at = now()
    FROM (
        SELECT job_id, count(*) FILTER (WHERE status = 'COMPLETED') AS completed, bool_or(status = 'FAILED') AS failed
        FROM stages WHERE job_id IN (SELECT job_id FROM stages WHERE id = ANY (ended))
        GROUP BY job_id
    ) AS state
    WHERE job.id = state.job_id;

    UPDATE stages SET job_open = false
    FROM jobs AS job
    WHERE job.id = stages.job_id AND stages.job_open AND job.status = 'FAILED'
        AND job.id IN (SELECT job_id FROM stages WHERE id = ANY (ended));
END
$$;
