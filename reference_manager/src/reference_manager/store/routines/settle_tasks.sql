-- settle_tasks: ends attempts: task IN_PROGRESS → COMPLETED, PENDING, RETRIED, FAILED; as a consequence, stage
-- IN_PROGRESS → COMPLETED, FAILED; next stage CREATED → PENDING; job PENDING, IN_PROGRESS, PAUSED → COMPLETED, FAILED.
-- Only for the holder of the task's lease (a null lease: the task was claimed without one), in stages that are not
-- ABORTED; EXPIRED and TIMED_OUT only once the lease has expired. A refused item does not affect the others.
-- Items: the task, the lease, the worker and the outcome; the result of a completed task; the error of a failed attempt
-- and whether the task may be retried; the delay before a task that returns to the queue is claimable (0: no delay;
-- null: the delay of the task's retry policy after a failed attempt, otherwise no delay); and the checkpoint for the
-- next attempt (null: keep the stored one).
-- Rows: one for each item, in the order of the arrays, with the previous status of the task (null: there is no such
-- task); its new status, set by this call or by an earlier one with this lease (null: refused); the task as JSON if it
-- was claimed without a lease; and, the same in each row, the stage types that have claimable tasks because of this
-- call.
--
-- Every change to a job's tree, except by a claim or complete_tasks, first takes the job's lock, so that the check for
-- the last task of a stage is exact. Plans are pinned to index scans, as in claim_tasks.
CREATE OR REPLACE FUNCTION settle_tasks(
    wanted_ids uuid[], wanted_leases bigint[], workers text[], outcomes attempt_outcome[], results json[],
    errors json[], retryables boolean[], delays interval[], checkpoints json[]
) RETURNS TABLE (source task_status, target task_status, body text, woken text[]) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    sources task_status[];
    targets task_status[];
    bodies text[];
    held bigint[];
    settled_ids uuid[];
    settled_places integer[];
    settled_statuses task_status[];
    wires text[];
    ended uuid[];
    refilled uuid[];
    opened text[];
BEGIN
    PERFORM lock_jobs(ARRAY(
        SELECT job_id FROM stages WHERE id = ANY (ARRAY(SELECT stage_id FROM tasks WHERE id = ANY (wanted_ids)))
    ));

    -- A repeated report gets the same answer as the first one: the lease identifies the attempt.
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
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
        WHERE task.id = ANY (wanted_ids)
    ) AS task ON task.id = wanted.id
    LEFT JOIN (
        SELECT task_id, lease_id, worker_id, target FROM attempts
        WHERE lease_id = ANY (wanted_leases) AND outcome NOT IN ('EXPIRED', 'TIMED_OUT')
    ) AS past ON past.lease_id = wanted.lease_id AND past.task_id = wanted.id AND past.worker_id = wanted.worker_id;

    -- The lease of each item; null if the item's worker does not hold the task, so that the item cannot replace that of
    -- the worker that does.
    SELECT array_agg(task.lease_id ORDER BY wanted.place) INTO held
    FROM unnest(wanted_ids, wanted_leases, workers, outcomes) WITH ORDINALITY
        AS wanted (id, lease_id, worker_id, outcome, place)
    LEFT JOIN (SELECT id, lease_id, worker_id FROM tasks WHERE id = ANY (wanted_ids)) AS task
        ON task.id = wanted.id AND task.lease_id = coalesce(wanted.lease_id, task.lease_id)
            AND (wanted.outcome IN ('EXPIRED', 'TIMED_OUT') OR task.worker_id IS NOT DISTINCT FROM wanted.worker_id);

    WITH removed AS (
        DELETE FROM leases AS lease
        WHERE id = ANY (held)
            AND (outcomes[array_position(held, id)] NOT IN ('EXPIRED', 'TIMED_OUT') OR expires_at <= now())
            AND (SELECT status FROM stages WHERE id = lease.stage_id) <> 'ABORTED'
        RETURNING task_id, array_position(held, id) AS place
    )
    SELECT array_agg(task_id), array_agg(place) INTO settled_ids, settled_places FROM removed;

    -- From here on, the arrays are in the order of settled_ids.
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
    INTO outcomes, results, errors, checkpoints, delays, settled_statuses
    FROM unnest(settled_ids, settled_places) WITH ORDINALITY AS listed (id, place, number)
    JOIN (SELECT id, attempts, max_attempts, retry FROM tasks WHERE id = ANY (settled_ids)) AS task
        ON task.id = listed.id;

    WITH settling AS (
        UPDATE tasks AS task SET
            status = settled_statuses[array_position(settled_ids, id)],
            attempts = attempts
                + (outcomes[array_position(settled_ids, id)] IN ('FAILED', 'EXPIRED', 'TIMED_OUT'))::integer,
            outcome = outcomes[array_position(settled_ids, id)],
            result = results[array_position(settled_ids, id)],
            error = errors[array_position(settled_ids, id)],
            checkpoint = coalesce(checkpoints[array_position(settled_ids, id)], checkpoint),
            end_time = CASE
                WHEN settled_statuses[array_position(settled_ids, id)] IN ('COMPLETED', 'FAILED') THEN now()
            END,
            updated_at = now()
        WHERE id = ANY (settled_ids)
        RETURNING array_position(settled_ids, id) AS number, task, task.id, task.stage_id, task.seq, task.status,
            task.attempts, CASE
                WHEN delays[array_position(settled_ids, id)] > interval '0'
                THEN now() + delays[array_position(settled_ids, id)]
            END AS due
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
    ), settled_counts AS (
        SELECT stage_id, count(*) AS settled,
            count(*) FILTER (WHERE status = 'PENDING') AS pending,
            count(*) FILTER (WHERE status = 'RETRIED') AS retried,
            count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
            count(*) FILTER (WHERE status = 'FAILED') AS failed,
            min(seq) FILTER (WHERE status IN ('PENDING', 'RETRIED') AND due IS NULL) AS oldest_waiting
        FROM settling GROUP BY stage_id
    ), folding AS (
        DELETE FROM stage_deltas WHERE stage_id = ANY (ARRAY(SELECT stage_id FROM settled_counts)) RETURNING *
    ), moved AS (
        SELECT stage_id, sum(pending) AS pending, sum(retried) AS retried, sum(in_progress) AS in_progress,
            sum(completed) AS completed
        FROM folding GROUP BY stage_id
    ), figures AS (
        SELECT settled_counts.stage_id, settled_counts.failed, settled_counts.oldest_waiting,
            settled_counts.pending + coalesce(moved.pending, 0) AS pending,
            settled_counts.retried + coalesce(moved.retried, 0) AS retried,
            coalesce(moved.in_progress, 0) - settled_counts.settled AS in_progress,
            settled_counts.completed + coalesce(moved.completed, 0) AS completed
        FROM settled_counts LEFT JOIN moved ON moved.stage_id = settled_counts.stage_id
    ), verdict AS (
        -- Under the job's lock, no other session ends a stage or adds a task, so these rows do not change until the
        -- update below.
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
        (
            SELECT array_agg(CASE WHEN (task).worker_id IS NULL THEN task_wire(task, NULL) END ORDER BY number)
            FROM settling
        ),
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
    FOR number IN 1 .. coalesce(cardinality(settled_ids), 0) LOOP
        targets[settled_places[number]] := settled_statuses[number];
        bodies[settled_places[number]] := wires[number];
    END LOOP;
    RETURN QUERY SELECT *, opened FROM unnest(sources, targets, bodies);
END
$$;

-- settle_free_tasks: like settle_tasks, but does not wait for the lock of any job. Rows: as for settle_tasks, with one
-- more column: an item whose job is locked by another session is unchanged, and its row has only that job, as `busy`.
-- Gives up after waiting 0.1 s for the lock of a row, as complete_tasks does.
CREATE OR REPLACE FUNCTION settle_free_tasks(
    wanted_ids uuid[], wanted_leases bigint[], workers text[], outcomes attempt_outcome[], results json[],
    errors json[], retryables boolean[], delays interval[], checkpoints json[]
) RETURNS TABLE (busy uuid, source task_status, target task_status, body text, woken text[]) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET lock_timeout = '100ms' AS $$
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
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
        WHERE task.id = ANY (wanted_ids)
    ) AS task ON task.id = wanted.id;

    locked := lock_free_jobs(jobs, false);
    free := ARRAY(
        SELECT place FROM unnest(jobs) WITH ORDINALITY AS owner (id, place)
        WHERE id IS NULL OR id <> ALL (locked) ORDER BY place
    );

    RETURN QUERY
    SELECT CASE WHEN settled.place IS NULL THEN owner.id END, settled.source, settled.target, settled.body,
        settled.woken
    FROM unnest(jobs) WITH ORDINALITY AS owner (id, place)
    LEFT JOIN (
        SELECT free[number] AS place, source, target, body, woken
        FROM settle_tasks(
            ARRAY(SELECT wanted_ids[place] FROM unnest(free) WITH ORDINALITY AS item(place, number) ORDER BY number),
            ARRAY(SELECT wanted_leases[place] FROM unnest(free) WITH ORDINALITY AS item(place, number) ORDER BY number),
            ARRAY(SELECT workers[place] FROM unnest(free) WITH ORDINALITY AS item(place, number) ORDER BY number),
            ARRAY(SELECT outcomes[place] FROM unnest(free) WITH ORDINALITY AS item(place, number) ORDER BY number),
            ARRAY(SELECT results[place] FROM unnest(free) WITH ORDINALITY AS item(place, number) ORDER BY number),
            ARRAY(SELECT errors[place] FROM unnest(free) WITH ORDINALITY AS item(place, number) ORDER BY number),
            ARRAY(SELECT retryables[place] FROM unnest(free) WITH ORDINALITY AS item(place, number) ORDER BY number),
            ARRAY(SELECT delays[place] FROM unnest(free) WITH ORDINALITY AS item(place, number) ORDER BY number),
            ARRAY(SELECT checkpoints[place] FROM unnest(free) WITH ORDINALITY AS item(place, number) ORDER BY number)
        ) WITH ORDINALITY AS settled (source, target, body, woken, number)
    ) AS settled ON settled.place = owner.place
    ORDER BY owner.place;
END
$$;

-- retry_delay: the delay after this number of failed attempts; null if there is no policy. Strategy fixed: the delay.
-- Exponential: the delay times factor ^ (failed - 1), up to the maximum; delay 5, factor 2, maximum 60 give 5, 10, 20,
-- 40, 60, 60 … The jitter then makes each delay longer or shorter by a random share. No delay is between 0 and 1 µs or
-- above a year, so the growth is limited to 10 ^ 14, which changes no result and prevents an overflow.
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

-- follow_ended_stages: applies the consequences of ended stages: the next stage opens and the job counts the completed
-- stage, or the job ends. The caller holds the locks of the jobs. Returns the types of the stages that opened.
CREATE OR REPLACE FUNCTION follow_ended_stages(ended uuid[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    opened text[];
    unfinished_jobs uuid[];
    failed_jobs uuid[];
BEGIN
    WITH counted AS (
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
            SELECT job_id, count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
                bool_or(status = 'FAILED') AS failed
            FROM stages WHERE job_id = ANY (ARRAY(SELECT job_id FROM stages WHERE id = ANY (ended)))
            GROUP BY job_id
        ) AS state
        WHERE job.id = ANY (ARRAY[state.job_id])
        RETURNING job.id, job.status, job.stages_total
    )
    SELECT array_agg(id) FILTER (WHERE stages_total > 1 AND status <> 'COMPLETED'),
        array_agg(id) FILTER (WHERE status = 'FAILED')
    INTO unfinished_jobs, failed_jobs FROM counted;

    -- Most jobs have a single stage, or end with their last one: nothing else follows.
    IF unfinished_jobs IS NOT NULL THEN
        WITH next AS (
            UPDATE stages AS next SET status = 'PENDING', opened_at = now(), updated_at = now()
            FROM stages AS stage
            WHERE stage.id = ANY (ended) AND stage.status = 'COMPLETED'
                AND next.job_id = ANY (ARRAY[stage.job_id]) AND next.position = stage.position + 1
                AND next.status = 'CREATED'
            RETURNING next.type
        )
        SELECT array_agg(DISTINCT type) INTO opened FROM next;
    END IF;
    IF failed_jobs IS NOT NULL THEN
        UPDATE stages SET job_open = false WHERE job_id = ANY (failed_jobs) AND job_open;
    END IF;
    RETURN opened;
END
$$;
