-- claim_tasks: task PENDING, RETRIED → IN_PROGRESS; stage PENDING → IN_PROGRESS; job PENDING → IN_PROGRESS. Claims only
-- tasks that no other session is claiming, in stages that are PENDING or IN_PROGRESS, of jobs that are PENDING or
-- IN_PROGRESS: the most urgent job first, then the stage that has waited longest, then its oldest task.
-- Arguments: claim n gets the tasks from number starts[n] on (from 1, ascending), as worker workers[n], with leases
-- of lengths[n]. Null in `workers` is a client without leases, which gets tasks in the format of part A of the
-- protocol. Where minimal[n] is true, tasks have only the fields that a worker needs, without their stage and their job.
-- The tasks of one call have at most `budget` bytes of JSON, or are a single task. Nothing is claimed if `wanted` is null.
-- `newest` is the seq of the first task that this transaction has added to its stage: see the end of the function.
-- Rows: one for each claim and stage, in the order of the queue, with the number of the claim, the leases, the
-- ids, the tasks as JSON separated by commas, for how many seconds each task was claimable, and the stage and its job as
-- JSON (null: there are no leases). If fewer tasks were claimed than wanted, there is a last row with only `more`:
-- whether others may be left. False is exact: at one moment during the call, no task was claimable, apart from those
-- that other sessions were claiming.
-- A claim scans the index of claimable stages and, in each stage, the index of waiting tasks. It never waits for another
-- session. It skips what another session has locked: a task, or, if it would have to start the stage or the job, the
-- stage. Only if another session locks a task between the scan and the claim does the claim wait for it.
-- Plans are pinned to index scans by the settings of the function. Making a new plan for each call, because of the
-- varying limit, would take longer than the claim itself, and a plan made while the tables were empty must remain good
-- when they are large. Rows are always selected with = ANY (array), because a join would let the planner read the whole
-- table first. A row selected by its id has no second condition on its status: a plan made while no task was in
-- progress would scan the index of everything in progress, which seemed empty then.
CREATE OR REPLACE FUNCTION claim_tasks(
    wanted_type text, wanted integer, starts integer[], workers text[], lengths interval[], minimal boolean[],
    budget bigint, newest bigint DEFAULT 0
) RETURNS TABLE (
    claim integer, leases bigint[], tasks uuid[], bodies text, waits double precision[], context text, more boolean
) LANGUAGE plpgsql STRICT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    -- The picked tasks, in the order of the queue: their rows in waiting_tasks, their ids, stages and so on.
    places tid[];
    picked uuid[];
    owners uuid[];
    waited double precision[];
    last_seq bigint;
    -- The size of all of them, or more, and that of the contexts if each task gets its own.
    tasks_bound bigint;
    contexts_bound bigint;
    total_size bigint := 0;
    recipient integer;
    previous_recipient integer;
    stage_context text;
    -- Their stages, and the number of stages from the front of the queue to the last of them.
    picked_stages uuid[];
    walked integer;
    contexts text[];
    has_leases boolean := cardinality(array_remove(workers, NULL)) > 0;
    -- Those that are not started or whose job is not; those of them that may be started now; and those of them that are
    -- not started themselves.
    unstarted uuid[];
    startable uuid[];
    starting uuid[] := '{}';
    -- Whether another session has locked one of the tasks, and whether to lock one row after another.
    has_locked boolean;
    lock_each boolean := false;
    -- The number of picked tasks, then of those that fit into the budget.
    fitting integer;
    -- The ids of these tasks, ascending, with their numbers in the order of the queue and the numbers of their claims.
    ids uuid[];
    numbers integer[];
    recipients integer[];
    claimed_from uuid[] := '{}';
    claimed_counts integer[] := '{}';
    started uuid[];
    started_counts bigint[];
    owner uuid;
    drained uuid[];
    is_more boolean;
    claimed_at timestamptz;
BEGIN
    LOOP
        -- The locks are taken in the order of the scan, and only until enough tasks are picked.
        SELECT array_agg(place), array_agg(task_id), array_agg(stage_id), array_agg(wait),
            count(*), (array_agg(seq))[count(*)], max(number), sum(context_bound),
            coalesce(array_agg(stage_id) FILTER (WHERE picking.unstarted), '{}')
        INTO places, picked, owners, waited, fitting, last_seq, walked, contexts_bound, unstarted
        FROM (
            SELECT candidate.number, candidate.id AS stage_id, candidate.unstarted,
                candidate.context_bound, waiting.place, waiting.task_id, waiting.seq,
                greatest(extract(epoch FROM now() - greatest(waiting.ready_at, candidate.opened_at)), 0) AS wait
            FROM (
                SELECT row_number() OVER (ORDER BY stage.priority, stage.oldest_waiting) AS number,
                    stage.id, stage.job_id, stage.head, stage.opened_at, context_bound(stage, job) AS context_bound,
                    stage.status = 'PENDING' OR job.status = 'PENDING' AS unstarted
                FROM stages AS stage
                JOIN jobs AS job ON job.id = ANY (ARRAY[stage.job_id])
                WHERE stage.type = wanted_type
                    AND stage.oldest_waiting IS NOT NULL
                    AND accepts_claims(stage)
                ORDER BY stage.priority, stage.oldest_waiting
            ) AS candidate
            CROSS JOIN LATERAL (
                SELECT ctid AS place, task_id, seq, ready_at FROM waiting_tasks
                WHERE stage_id = candidate.id AND seq >= candidate.head
                    AND CASE WHEN lock_each THEN lock_task_to_claim(task_id) ELSE true END
                ORDER BY seq
                LIMIT wanted
                FOR UPDATE SKIP LOCKED
            ) AS waiting
            WHERE CASE
                WHEN NOT candidate.unstarted THEN true
                WHEN lock_each THEN lock_stage_to_start(candidate.id, candidate.job_id)
                ELSE pg_try_advisory_xact_lock(job_key(candidate.job_id))
            END
            LIMIT wanted
        ) AS picking;

        -- A row that no session has locked since it was written has no xmax, and need not be locked to find out.
        SELECT sum(task_bound(task)), bool_or(xmax <> '0') INTO tasks_bound, has_locked
        FROM tasks AS task WHERE id = ANY (picked);
        IF has_locked THEN
            has_locked := fitting > (
                SELECT count(*)
                FROM (SELECT FROM tasks WHERE id = ANY (picked) FOR NO KEY UPDATE SKIP LOCKED) AS locked
            );
        END IF;

        IF cardinality(unstarted) > 0 THEN
            SELECT array_agg(id), coalesce(array_agg(id) FILTER (WHERE status = 'PENDING'), '{}')
            INTO startable, starting
            FROM (
                SELECT stage.id, stage.status, accepts_claims(stage) AS may_start
                FROM stages AS stage JOIN jobs AS job ON job.id = ANY (ARRAY[stage.job_id])
                WHERE stage.id = ANY (unstarted)
                OFFSET 0
                FOR NO KEY UPDATE SKIP LOCKED
            ) AS locked
            WHERE may_start;
        END IF;

        -- A stage may have changed before this session got the lock of its job, and a session that is not a manager's
        -- may have locked the row of a job, a stage or a task. This is rare. If it has happened, the second scan locks
        -- one row after another.
        EXIT WHEN (cardinality(unstarted) = 0 OR unstarted <@ startable) AND has_locked IS NOT TRUE;
        lock_each := true;
    END LOOP;

    IF fitting > 0 THEN
        IF fitting > 1 AND tasks_bound + (CASE WHEN has_leases THEN contexts_bound ELSE 0 END) > budget THEN
            -- Read one task after another until the budget is used up. All of them may be too large to be read at once.
            picked_stages := '{}';
            contexts := '{}';
            FOR number IN 1 .. fitting LOOP
                recipient := width_bucket(number, starts);
                total_size := total_size + (SELECT task_size(task) FROM tasks AS task WHERE id = picked[number]);
                IF workers[recipient] IS NOT NULL THEN
                    IF array_position(picked_stages, owners[number]) IS NULL THEN
                        SELECT claim_context(stage, job) INTO stage_context
                        FROM stages AS stage JOIN jobs AS job ON job.id = ANY (ARRAY[stage.job_id])
                        WHERE stage.id = owners[number];
                        picked_stages := picked_stages || owners[number];
                        contexts := contexts || stage_context;
                    END IF;
                    -- A claim of minimal tasks gets the context of a stage once; all others get it with each task.
                    IF NOT minimal[recipient] OR recipient IS DISTINCT FROM previous_recipient
                        OR owners[number] <> owners[number - 1]
                    THEN
                        total_size := total_size
                            + octet_length(contexts[array_position(picked_stages, owners[number])]);
                    END IF;
                    previous_recipient := recipient;
                END IF;
                IF total_size > budget AND number > 1 THEN
                    fitting := number - 1;
                    EXIT;
                END IF;
            END LOOP;
            places := places[:fitting];
            picked := picked[:fitting];
        ELSIF has_leases THEN
            -- An expression without a query takes PostgreSQL a tenth of the time of one with a query.
            IF walked = 1 THEN
                picked_stages := owners[:1];
            ELSE
                picked_stages := ARRAY(SELECT DISTINCT unnest(owners));
            END IF;
            contexts := ARRAY(
                SELECT (
                    SELECT claim_context(stage, job)
                    FROM stages AS stage JOIN jobs AS job ON job.id = ANY (ARRAY[stage.job_id])
                    WHERE stage.id = listed.id
                )
                FROM unnest(picked_stages) WITH ORDINALITY AS listed (id, number)
                ORDER BY number
            );
        END IF;

        IF fitting = 1 THEN
            ids := picked; numbers := '{1}'; recipients := '{1}';
        ELSE
            SELECT array_agg(id), array_agg(number), array_agg(width_bucket(number, starts))
            INTO ids, numbers, recipients
            FROM (SELECT id, number::integer FROM unnest(picked) WITH ORDINALITY AS picking (id, number) ORDER BY id)
                AS sorted;
        END IF;

        -- Not now(), because the claim may have been sent long before its tasks became available.
        claimed_at := clock_timestamp();
        FOR claim, owner, leases, tasks, bodies, waits IN
        WITH unqueued AS (
            -- Rows of this table are never updated, so that it is safe to select them by ctid.
            DELETE FROM waiting_tasks WHERE ctid = ANY (places)
        ), claimed AS (
            UPDATE tasks AS task SET
                status = 'IN_PROGRESS', start_time = claimed_at, updated_at = claimed_at,
                outcome = NULL, progress = NULL,
                lease_id = nextval('lease_ids'),
                worker_id = workers[recipients[width_bucket(task.id, ids)]]
            WHERE task.id = ANY (ids) AND task.status IN ('PENDING', 'RETRIED')
            RETURNING width_bucket(task.id, ids) AS place, task.stage_id, task.id, task.attempts, task.lease_id,
                task.worker_id, task.timeout,
                CASE WHEN minimal[recipients[width_bucket(task.id, ids)]]
                    THEN task_wire_minimal(task) ELSE task_wire_open(task, NULL) END AS body
        ), assigned AS (
            SELECT *, numbers[place] AS number, waited[numbers[place]] AS wait, recipients[place] AS claim FROM claimed
        ), leased AS (
            INSERT INTO leases (id, task_id, stage_id, worker_id, length, expires_at, deadline)
            SELECT lease_id, id, stage_id, worker_id, lengths[claim],
                claimed_at + least(lengths[claim], timeout), claimed_at + timeout
            FROM assigned
        ), delta AS (
            INSERT INTO stage_deltas (stage_id, pending, retried, in_progress)
            SELECT stage_id, -count(*) FILTER (WHERE attempts = 0), -count(*) FILTER (WHERE attempts > 0), count(*)
            FROM claimed WHERE stage_id <> ALL (starting) GROUP BY stage_id
        )
        SELECT answered.claim, answered.stage_id, array_agg(lease_id ORDER BY number), array_agg(id ORDER BY number),
            string_agg(
                body || CASE
                    WHEN minimal[answered.claim] THEN ',"leaseId":' || lease_id || ',"waitedSeconds":' || wait || '}'
                    WHEN worker_id IS NULL THEN '}'
                    ELSE ',"leaseId":' || lease_id
                        || ',"leaseExpiresAt":' || wire_time(claimed_at + least(lengths[answered.claim], timeout))
                        || ',' || substr(contexts[array_position(picked_stages, answered.stage_id)], 2)
                END, ',' ORDER BY number
            ),
            array_agg(wait ORDER BY number)
        FROM assigned AS answered
        GROUP BY answered.claim, answered.stage_id
        ORDER BY answered.claim, min(number)
        LOOP
            context := contexts[array_position(picked_stages, owner)];
            claimed_from := claimed_from || owner;
            claimed_counts := claimed_counts || cardinality(tasks);
            RETURN NEXT;
        END LOOP;

        IF cardinality(unstarted) > 0 THEN
            unstarted := ARRAY(SELECT unnest(unstarted) INTERSECT SELECT unnest(claimed_from));
            -- The locks of the jobs also keep other sessions from adding tasks to these stages. No task of a stage that
            -- was not started has had an attempt.
            SELECT array_agg(id), array_agg(count) INTO started, started_counts FROM (
                SELECT id, sum(count) AS count FROM unnest(claimed_from, claimed_counts) AS part (id, count)
                WHERE id = ANY (starting) GROUP BY id
            ) AS claimed;
            UPDATE stages AS stage SET
                status = 'IN_PROGRESS', start_time = now(), updated_at = now(),
                pending = pending - started_counts[array_position(started, id)],
                in_progress = in_progress + started_counts[array_position(started, id)],
                oldest_waiting = CASE WHEN EXISTS (
                    SELECT seq FROM waiting_tasks WHERE stage_id = stage.id AND seq >= stage.head ORDER BY seq LIMIT 1
                ) THEN oldest_waiting END
            WHERE id = ANY (started);
            UPDATE jobs SET status = 'IN_PROGRESS', updated_at = now() WHERE id = ANY (ARRAY(
                SELECT id FROM (SELECT id, status FROM jobs WHERE id = ANY (ARRAY(
                    SELECT job_id FROM stages WHERE id = ANY (unstarted)
                )) OFFSET 0) AS job
                WHERE status = 'PENDING'
            ));
        END IF;
    END IF;

    -- Look for stages without waiting tasks; if too few tasks were found, for waiting tasks in all stages, in a new
    -- snapshot. Remove the former from the index, unless another session is changing them. Every session that adds or
    -- returns a task also locks the row of the stage, so that under this lock the check for waiting tasks is exact.
    -- A stage whose only waiting task is handed over by the transaction that adds it is left to the next claim: its worker
    -- does not wait for another update of the stage. The next claim that passes it removes it, so that such stages do
    -- not pile up.
    IF fitting < wanted OR walked > 1 OR (wanted > 1 OR last_seq <> newest) AND NOT EXISTS (
        SELECT FROM waiting_tasks WHERE stage_id = owners[cardinality(owners)] AND seq > last_seq
    ) THEN
        SELECT coalesce(array_agg(id) FILTER (WHERE seq IS NULL), '{}'), coalesce(bool_or(seq IS NOT NULL), false)
        INTO drained, is_more
        FROM (
            SELECT id, (
                SELECT seq FROM waiting_tasks WHERE stage_id = stage.id AND seq >= stage.head ORDER BY seq LIMIT 1
            ) AS seq
            FROM stages AS stage
            WHERE type = wanted_type AND oldest_waiting IS NOT NULL AND accepts_claims(stage)
            ORDER BY priority, oldest_waiting
            LIMIT CASE WHEN fitting = wanted THEN walked END
        ) AS candidate;
        IF cardinality(drained) > 0 THEN
            drained := ARRAY(SELECT id FROM stages WHERE id = ANY (drained) FOR NO KEY UPDATE SKIP LOCKED);
            UPDATE stages AS stage SET oldest_waiting = NULL
            WHERE id = ANY (drained) AND (
                SELECT seq FROM waiting_tasks WHERE stage_id = stage.id AND seq >= stage.head ORDER BY seq LIMIT 1
            ) IS NULL;
        END IF;
    END IF;

    IF fitting < wanted THEN
        RETURN QUERY SELECT NULL::integer, NULL::bigint[], NULL::uuid[], NULL, NULL::double precision[], NULL, is_more;
    END IF;
END
$$;
