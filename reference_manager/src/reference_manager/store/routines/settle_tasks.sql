-- settle_tasks(items): an attempt ends, in whatever way. Task IN_PROGRESS → COMPLETED, PENDING, RETRIED, FAILED; then,
-- together with it, stage IN_PROGRESS → COMPLETED, FAILED; next stage CREATED → PENDING; job PENDING, IN_PROGRESS, PAUSED →
-- COMPLETED, FAILED. Only for the holder of the task's lease (a lease that is null: the task was claimed without one), in
-- stages that were not aborted; EXPIRED and TIMED_OUT only once the lease is over. An item that is refused spoils no other.
-- Items: task, lease, worker, outcome; the result of a completed one; for failed ones the error and whether another attempt may
-- follow; the delay before a task that goes back to the queue may be claimed (0: none; null: after a failed attempt what the
-- task's retry policy says, else none); what the attempt leaves for the next one (null: what was there before).
-- Rows: one an item, in the order of the arrays: the status that the task had (null: no such task), the one that it has got
-- (null: refused) by this call or by an earlier one with this lease, and the task as JSON if it was claimed without. The
-- last column, the same in each row: the stage types for which there is work now.
--
-- Everything that changes a job's tree, claims and complete_tasks apart, first takes the job's lock, so that "this was the
-- last task" is exact. Plans are pinned to index walks, as in claim_tasks.
CREATE OR REPLACE FUNCTION settle_tasks(
    wanted_ids uuid[], wanted_leases bigint[], workers text[], outcomes attempt_outcome[], results json[], errors json[],
    retryables boolean[], delays interval[], checkpoints json[]
) RETURNS TABLE (source task_status, target task_status, body text, woken text[]) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    sources task_status[];
    targets task_status[];
    bodies text[];
    held bigint[];
    taken uuid[];
    places integer[];
    settled_to task_status[];
    wires text[];
    ended uuid[];
    refilled uuid[];
    opened text[];
BEGIN
    PERFORM lock_jobs(ARRAY(
        SELECT job_id FROM stages WHERE id = ANY (ARRAY(SELECT stage_id FROM tasks WHERE id = ANY (wanted_ids)))
    ));

    -- What a worker says again is answered as the first time: the lease tells which attempt is meant.
    SELECT array_agg(task.status ORDER BY wanted.place),
        array_agg(coalesce(
            past.target,
            CASE WHEN task.lease_id = wanted.lease_id AND task.worker_id = wanted.worker_id THEN task.settled END
        ) ORDER BY wanted.place)
    INTO sources, targets
    FROM unnest(wanted_ids, wanted_leases, workers) WITH ORDINALITY AS wanted (id, lease_id, worker_id, place)
    LEFT JOIN (
        SELECT task.id, task.lease_id, task.worker_id, task_status(task, aborted_at(stage)) AS status,
            CASE WHEN task.outcome IN ('COMPLETED', 'FAILED') AND task.status IN ('COMPLETED', 'FAILED')
                THEN task.status END AS settled
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id]) WHERE task.id = ANY (wanted_ids)
    ) AS task ON task.id = wanted.id
    LEFT JOIN (
        SELECT task_id, lease_id, worker_id, target FROM attempts
        WHERE lease_id = ANY (wanted_leases) AND outcome NOT IN ('EXPIRED', 'TIMED_OUT')
    ) AS past ON past.lease_id = wanted.lease_id AND past.task_id = wanted.id AND past.worker_id = wanted.worker_id;

    -- Null for whoever does not hold the task, so that he is not in the way of who does.
    SELECT array_agg(task.lease_id ORDER BY wanted.place) INTO held
    FROM unnest(wanted_ids, wanted_leases, workers, outcomes) WITH ORDINALITY
        AS wanted (id, lease_id, worker_id, outcome, place)
    LEFT JOIN (SELECT id, lease_id, worker_id FROM tasks WHERE id = ANY (wanted_ids)) AS task
        ON task.id = wanted.id AND task.lease_id = coalesce(wanted.lease_id, task.lease_id)
            AND (wanted.outcome IN ('EXPIRED', 'TIMED_OUT') OR task.worker_id IS NOT DISTINCT FROM wanted.worker_id);

    WITH over AS (
        DELETE FROM leases AS lease
        WHERE id = ANY (held)
            AND (outcomes[array_position(held, id)] NOT IN ('EXPIRED', 'TIMED_OUT') OR expires_at <= now())
            AND (SELECT status FROM stages WHERE id = lease.stage_id) <> 'ABORTED'
        RETURNING task_id, array_position(held, id) AS place
    )
    SELECT array_agg(task_id), array_agg(place) INTO taken, places FROM over;

    -- From here on everything stands at its task's place in taken.
    SELECT array_agg(outcomes[place] ORDER BY number), array_agg(results[place] ORDER BY number),
        array_agg(errors[place] ORDER BY number), array_agg(checkpoints[place] ORDER BY number),
        array_agg(coalesce(delays[place], CASE
            WHEN outcomes[place] IN ('FAILED', 'EXPIRED', 'TIMED_OUT') THEN retry_delay(task.retry, task.attempts + 1)
        END) ORDER BY number),
        array_agg(CASE
            WHEN outcomes[place] = 'COMPLETED' THEN 'COMPLETED'
            WHEN outcomes[place] IN ('RELEASED', 'SNOOZED') AND task.attempts = 0 THEN 'PENDING'
            WHEN outcomes[place] IN ('RELEASED', 'SNOOZED') THEN 'RETRIED'
            WHEN retryables[place] AND task.attempts + 1 < task.max_attempts THEN 'RETRIED'
            ELSE 'FAILED'
        END::task_status ORDER BY number)
    INTO outcomes, results, errors, checkpoints, delays, settled_to
    FROM unnest(taken, places) WITH ORDINALITY AS listed (id, place, number)
    JOIN (SELECT id, attempts, max_attempts, retry FROM tasks WHERE id = ANY (taken)) AS task ON task.id = listed.id;

    WITH settling AS (
        UPDATE tasks AS task SET
            status = settled_to[array_position(taken, id)],
            attempts = attempts + (outcomes[array_position(taken, id)] IN ('FAILED', 'EXPIRED', 'TIMED_OUT'))::integer,
            outcome = outcomes[array_position(taken, id)],
            result = results[array_position(taken, id)],
            error = errors[array_position(taken, id)],
            checkpoint = coalesce(checkpoints[array_position(taken, id)], checkpoint),
            end_time = CASE WHEN settled_to[array_position(taken, id)] IN ('COMPLETED', 'FAILED') THEN now() END,
            updated_at = now()
        WHERE id = ANY (taken)
        RETURNING array_position(taken, id) AS number, task, task.id, task.stage_id, task.seq, task.status, task.attempts,
            CASE WHEN delays[array_position(taken, id)] > interval '0' THEN now() + delays[array_position(taken, id)] END
                AS due
    ), past AS (
        INSERT INTO attempts (lease_id, task_id, worker_id, outcome, source, target, error, start_time, end_time)
        SELECT (task).lease_id, id, (task).worker_id, (task).outcome,
            CASE WHEN attempts - ((task).outcome IN ('FAILED', 'EXPIRED', 'TIMED_OUT'))::integer = 0
                THEN 'PENDING' ELSE 'RETRIED' END::task_status,
            status, (task).error, (task).start_time, now()
        FROM settling WHERE status IN ('PENDING', 'RETRIED')
    ), requeued AS (
        INSERT INTO waiting_tasks (stage_id, seq, task_id)
        SELECT stage_id, seq, id FROM settling WHERE status IN ('PENDING', 'RETRIED') AND due IS NULL
    ), delayed AS (
        INSERT INTO delayed_tasks (task_id, stage_id, seq, due)
        SELECT id, stage_id, seq, due FROM settling WHERE status IN ('PENDING', 'RETRIED') AND due IS NOT NULL
    ), tally AS (
        SELECT stage_id, count(*) AS settled,
            count(*) FILTER (WHERE status = 'PENDING') AS pending,
            count(*) FILTER (WHERE status = 'RETRIED') AS retried,
            count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
            count(*) FILTER (WHERE status = 'FAILED') AS failed,
            min(seq) FILTER (WHERE status IN ('PENDING', 'RETRIED') AND due IS NULL) AS oldest_waiting
        FROM settling GROUP BY stage_id
    ), folding AS (
        DELETE FROM stage_deltas WHERE stage_id = ANY (ARRAY(SELECT stage_id FROM tally)) RETURNING *
    ), moved AS (
        SELECT stage_id, sum(pending) AS pending, sum(retried) AS retried, sum(in_progress) AS in_progress,
            sum(completed) AS completed
        FROM folding GROUP BY stage_id
    ), figures AS (
        SELECT tally.stage_id, tally.failed, tally.oldest_waiting,
            tally.pending + coalesce(moved.pending, 0) AS pending,
            tally.retried + coalesce(moved.retried, 0) AS retried,
            coalesce(moved.in_progress, 0) - tally.settled AS in_progress,
            tally.completed + coalesce(moved.completed, 0) AS completed
        FROM tally LEFT JOIN moved ON moved.stage_id = tally.stage_id
    ), verdict AS (
        -- Under the job's lock nobody else ends a stage or adds a task, so what is read here is what is updated below.
        SELECT figures.*, stage.status AS source,
            CASE
                WHEN stage.status <> 'IN_PROGRESS' THEN stage.status
                WHEN figures.failed > 0 THEN 'FAILED'
                WHEN stage.completed + figures.completed = stage_total(stage) THEN 'COMPLETED'
                ELSE stage.status
            END AS target
        FROM figures JOIN stages AS stage ON stage.id = ANY (ARRAY[figures.stage_id])
    ), counting AS (
        UPDATE stages AS stage SET
            status = verdict.target,
            end_time = CASE WHEN verdict.target <> verdict.source THEN now() ELSE stage.end_time END,
            pending = stage.pending + verdict.pending,
            retried = stage.retried + verdict.retried,
            in_progress = stage.in_progress + verdict.in_progress,
            completed = stage.completed + verdict.completed,
            failed = stage.failed + verdict.failed,
            oldest_waiting = least(stage.oldest_waiting, verdict.oldest_waiting),
            head = least(stage.head, verdict.oldest_waiting),
            updated_at = now()
        FROM verdict WHERE stage.id = ANY (ARRAY[verdict.stage_id])
    )
    SELECT
        (SELECT array_agg(CASE WHEN (task).worker_id IS NULL THEN task_wire(task, NULL) END ORDER BY number) FROM settling),
        (SELECT array_agg(stage_id) FROM verdict WHERE target <> source),
        (SELECT array_agg(stage_id) FROM verdict WHERE oldest_waiting IS NOT NULL)
    INTO wires, ended, refilled;

    IF ended IS NOT NULL THEN
        opened := follow_ended_stages(ended);
    END IF;
    IF refilled IS NOT NULL THEN
        opened := opened || ARRAY(SELECT DISTINCT type FROM stages WHERE id = ANY (refilled));
    END IF;

    bodies := array_fill(NULL::text, ARRAY[cardinality(wanted_ids)]);
    FOR number IN 1 .. coalesce(cardinality(taken), 0) LOOP
        targets[places[number]] := settled_to[number];
        bodies[places[number]] := wires[number];
    END LOOP;
    RETURN QUERY SELECT *, opened FROM unnest(sources, targets, bodies);
END
$$;

-- settle_free_tasks(items): the same without a wait for any job's lock. Rows: one an item, in the order of the arrays, as
-- above; but an item whose job is locked by somebody else is left alone, and its row has that job as busy, and nothing else.
CREATE OR REPLACE FUNCTION settle_free_tasks(
    wanted_ids uuid[], wanted_leases bigint[], workers text[], outcomes attempt_outcome[], results json[], errors json[],
    retryables boolean[], delays interval[], checkpoints json[]
) RETURNS TABLE (busy uuid, source task_status, target task_status, body text, woken text[]) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    jobs uuid[];
    locked uuid[];
    free integer[];
BEGIN
    SELECT array_agg(task.job_id ORDER BY wanted.place) INTO jobs
    FROM unnest(wanted_ids) WITH ORDINALITY AS wanted (id, place)
    LEFT JOIN (
        SELECT task.id, stage.job_id
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id]) WHERE task.id = ANY (wanted_ids)
    ) AS task ON task.id = wanted.id;

    locked := ARRAY(
        SELECT id FROM (SELECT DISTINCT id FROM unnest(jobs) AS listed (id) WHERE id IS NOT NULL OFFSET 0) AS job
        WHERE NOT pg_try_advisory_xact_lock(job_key(id))
    );
    free := ARRAY(
        SELECT place FROM unnest(jobs) WITH ORDINALITY AS owner (id, place)
        WHERE id IS NULL OR id <> ALL (locked) ORDER BY place
    );

    RETURN QUERY
    SELECT CASE WHEN settled.place IS NULL THEN owner.id END, settled.source, settled.target, settled.body, settled.woken
    FROM unnest(jobs) WITH ORDINALITY AS owner (id, place)
    LEFT JOIN (
        SELECT free[number] AS place, source, target, body, woken
        FROM settle_tasks(
            ARRAY(SELECT wanted_ids[place] FROM unnest(free) WITH ORDINALITY AS kept (place, number) ORDER BY number),
            ARRAY(SELECT wanted_leases[place] FROM unnest(free) WITH ORDINALITY AS kept (place, number) ORDER BY number),
            ARRAY(SELECT workers[place] FROM unnest(free) WITH ORDINALITY AS kept (place, number) ORDER BY number),
            ARRAY(SELECT outcomes[place] FROM unnest(free) WITH ORDINALITY AS kept (place, number) ORDER BY number),
            ARRAY(SELECT results[place] FROM unnest(free) WITH ORDINALITY AS kept (place, number) ORDER BY number),
            ARRAY(SELECT errors[place] FROM unnest(free) WITH ORDINALITY AS kept (place, number) ORDER BY number),
            ARRAY(SELECT retryables[place] FROM unnest(free) WITH ORDINALITY AS kept (place, number) ORDER BY number),
            ARRAY(SELECT delays[place] FROM unnest(free) WITH ORDINALITY AS kept (place, number) ORDER BY number),
            ARRAY(SELECT checkpoints[place] FROM unnest(free) WITH ORDINALITY AS kept (place, number) ORDER BY number)
        ) WITH ORDINALITY AS settled (source, target, body, woken, number)
    ) AS settled ON settled.place = owner.place
    ORDER BY owner.place;
END
$$;

-- How long a task waits after so many failed attempts; null: it has no policy. Fixed: the delay. Exponential: the delay times
-- factor ^ (failed - 1), up to the longest; delay 5, factor 2, longest 60: 5, 10, 20, 40, 60, 60 … Then more or less by up to
-- the jitter's share, by chance. No delay is between 0 and 1 µs and none above a year: a growth beyond 10 ^ 14 changes
-- nothing, and without that bound it would overflow.
CREATE OR REPLACE FUNCTION retry_delay(retry json, failed integer) RETURNS interval LANGUAGE sql VOLATILE STRICT AS $$
    SELECT make_interval(secs => (1 + jitter * (2 * random() - 1)) * CASE strategy
        WHEN 'fixed' THEN delay
        ELSE least(delay * factor ^ least(failed - 1, 14 / nullif(log(factor), 0)), longest)
    END)
    FROM (
        SELECT retry->>'strategy' AS strategy, (retry->>'delaySeconds')::float8 AS delay,
            (retry->>'factor')::float8 AS factor, (retry->>'maxDelaySeconds')::float8 AS longest,
            (retry->>'jitter')::float8 AS jitter
    ) AS policy
$$;

-- What follows when stages end: the next stage opens and the job's share of completed stages grows, or the job ends. The
-- caller holds the locks of their jobs. The types of the stages that opened.
CREATE OR REPLACE FUNCTION follow_ended_stages(ended uuid[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    opened text[];
BEGIN
    WITH next AS (
        UPDATE stages AS next SET status = 'PENDING', opened_at = now(), updated_at = now()
        FROM stages AS stage
        WHERE stage.id = ANY (ended) AND stage.status = 'COMPLETED'
            AND next.job_id = ANY (ARRAY[stage.job_id]) AND next.position = stage.position + 1 AND next.status = 'CREATED'
        RETURNING next.type
    )
    SELECT array_agg(DISTINCT type) INTO opened FROM next;

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
        FROM stages WHERE job_id = ANY (ARRAY(SELECT job_id FROM stages WHERE id = ANY (ended)))
        GROUP BY job_id
    ) AS state
    WHERE job.id = ANY (ARRAY[state.job_id]);

    UPDATE stages SET job_open = false
    FROM jobs AS job
    WHERE job.id = ANY (ARRAY(SELECT job_id FROM stages WHERE id = ANY (ended))) AND job.status = 'FAILED'
        AND stages.job_id = ANY (ARRAY[job.id]) AND stages.job_open;
    RETURN opened;
END
$$;
