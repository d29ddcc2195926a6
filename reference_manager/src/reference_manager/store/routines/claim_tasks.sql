-- claim_tasks(stage type, how many, for whom, how told): task PENDING, RETRIED → IN_PROGRESS; stage PENDING → IN_PROGRESS; job
-- PENDING → IN_PROGRESS. Only tasks that nobody else is claiming, in stages that are PENDING or IN_PROGRESS, of jobs that are
-- PENDING or IN_PROGRESS: the most urgent job first, then the stage that has waited longest, then its oldest task.
-- For whom: claimant n gets the tasks from number starts[n] on (from 1, ascending), as worker workers[n] with leases of
-- lengths[n]; a worker that is null has no lease and gets the task as part A of the protocol has it. Brief: each task is told
-- without what its worker does not need, and without its stage and its job.
-- Rows, one for each claimant and stage: the number of the claimant, the leases, the ids, the tasks as JSON with commas
-- between them, for how many seconds each could have been claimed, all in the order of the queue, and what is to be known of
-- the stage and its job, as JSON (null: there are no leases). No row: none wait. One row of nulls: others were busy with
-- all that waits; ask again.
--
-- A claim walks the index of claimable stages and, in each, the index of waiting tasks. It waits for nobody, with one
-- exception: to start a stage or a job it needs the job's lock. It waits for one such lock at the most, while it holds
-- nothing else, so that no ring of waiters can close.
--
-- Plans are pinned to index walks: planning anew at each call, which the varying limit would cause, takes longer than the
-- claim itself, and a plan made while the tables were empty must still serve when they are large. Hence the settings, and
-- hence rows are always named by = ANY (array): a join leaves the planner free to read the whole table first. And a row that
-- is named by its id is named by that alone: with a condition on its status beside it, a plan made while nothing was at work
-- walks the index of all that is at work, which seems empty, and later is not.
CREATE OR REPLACE FUNCTION claim_tasks(
    wanted_type text, wanted integer, starts integer[], workers text[], lengths interval[], brief boolean
) RETURNS TABLE (
    claimant integer, leases bigint[], tasks uuid[], bodies text, waits double precision[], context text
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    stage record;
    now_so record;
    picked uuid[];
    waited double precision[];
    taken integer := 0;
    before integer;
    holding boolean := false;
    delayed boolean := false;
    moment timestamptz;
    with_leases boolean := cardinality(array_remove(workers, NULL)) > 0;
    alone boolean := cardinality(workers) = 1;
    short uuid[] := '{}';
BEGIN
    FOR stage IN
        SELECT candidate.id, candidate.job_id, candidate.head, candidate.opened_at,
            candidate.status = 'PENDING' OR job.status = 'PENDING' AS unstarted
        FROM stages AS candidate
        JOIN jobs AS job ON job.id = ANY (ARRAY[candidate.job_id])
        WHERE candidate.type = wanted_type
            AND candidate.oldest_waiting IS NOT NULL
            AND candidate.job_open
            AND candidate.status IN ('PENDING', 'IN_PROGRESS')
        ORDER BY candidate.priority, candidate.oldest_waiting
    LOOP
        IF stage.unstarted THEN
            IF holding THEN
                IF NOT pg_try_advisory_xact_lock(job_key(stage.job_id)) THEN
                    IF taken = 0 THEN
                        claimant := NULL;
                        RETURN NEXT;
                    END IF;
                    EXIT;
                END IF;
            ELSE
                PERFORM pg_advisory_xact_lock(job_key(stage.job_id));
                holding := true;
            END IF;
            delayed := true;
        END IF;
        -- What the walk saw, here and further on, may have changed before the lock was ours.
        IF delayed THEN
            SELECT job_open, status INTO now_so FROM stages WHERE id = stage.id;
            CONTINUE WHEN NOT FOUND OR NOT now_so.job_open OR now_so.status NOT IN ('PENDING', 'IN_PROGRESS');
        END IF;
        IF with_leases THEN
            context := claim_context(stage.id);
        END IF;

        WITH picked AS MATERIALIZED (
            SELECT ctid AS place, task_id, seq, ready_at FROM waiting_tasks
            WHERE stage_id = stage.id AND seq >= stage.head
            ORDER BY seq
            LIMIT wanted - taken
            FOR UPDATE SKIP LOCKED
        ), unqueued AS (
            -- Rows of this table never move, so that it is safe to name them by their places.
            DELETE FROM waiting_tasks WHERE ctid = ANY (ARRAY(SELECT place FROM picked))
        )
        SELECT array_agg(task_id ORDER BY seq),
            array_agg(greatest(extract(epoch FROM now() - greatest(ready_at, stage.opened_at)), 0) ORDER BY seq)
        INTO picked, waited FROM picked;

        -- Not now(), when the claim began: it may have waited for a lock for longer than a lease lasts.
        moment := clock_timestamp();
        before := taken;
        FOR claimant, leases, tasks, bodies, waits IN
        WITH claimed AS (
            UPDATE tasks AS task SET
                status = 'IN_PROGRESS', start_time = moment, updated_at = moment, outcome = NULL, progress = NULL,
                lease_id = nextval('lease_ids'),
                worker_id = workers[
                    CASE WHEN alone THEN 1 ELSE width_bucket(taken + array_position(picked, task.id), starts) END
                ]
            WHERE task.id = ANY (picked) AND task.status IN ('PENDING', 'RETRIED')
            RETURNING task.seq, task.id, task.attempts, task.lease_id, task.worker_id, task.timeout,
                CASE WHEN alone THEN 1 ELSE width_bucket(taken + array_position(picked, task.id), starts) END AS claimant,
                CASE WHEN brief THEN task_wire_brief(task) ELSE task_wire_open(task, NULL) END AS body
        ), leased AS (
            INSERT INTO leases (id, task_id, stage_id, worker_id, length, expires_at, deadline)
            SELECT lease_id, id, stage.id, worker_id, lengths[claimed.claimant],
                moment + least(lengths[claimed.claimant], timeout), moment + timeout
            FROM claimed
        ), delta AS (
            INSERT INTO stage_deltas (stage_id, pending, retried, in_progress)
            SELECT stage.id, -count(*) FILTER (WHERE attempts = 0), -count(*) FILTER (WHERE attempts > 0), count(*)
            FROM claimed HAVING count(*) > 0
        )
        SELECT answered.claimant, array_agg(answered.lease_id ORDER BY seq), array_agg(answered.id ORDER BY seq),
            string_agg(
                answered.body || CASE
                    WHEN brief THEN ',"leaseId":' || answered.lease_id || ',"waitedSeconds":' || answered.wait || '}'
                    WHEN answered.worker_id IS NULL THEN '}'
                    ELSE ',"leaseId":' || answered.lease_id
                        || ',"leaseExpiresAt":' || wire_time(moment + least(lengths[answered.claimant], answered.timeout))
                        || ',' || substr(context, 2)
                END, ',' ORDER BY seq
            ),
            array_agg(answered.wait ORDER BY seq)
        FROM (SELECT *, waited[row_number() OVER (ORDER BY seq)] AS wait FROM claimed) AS answered
        GROUP BY answered.claimant
        ORDER BY answered.claimant
        LOOP
            taken := taken + cardinality(leases);
            RETURN NEXT;
        END LOOP;

        IF taken > before THEN
            holding := true;
            IF stage.unstarted THEN
                IF now_so.status = 'PENDING' THEN
                    UPDATE stages SET status = 'IN_PROGRESS', start_time = now(), updated_at = now() WHERE id = stage.id;
                END IF;
                UPDATE jobs SET status = 'IN_PROGRESS', updated_at = now()
                WHERE id = stage.job_id AND status = 'PENDING';
            END IF;
        END IF;
        EXIT WHEN taken = wanted;
        short := short || stage.id;
    END LOOP;

    -- Stages that had too few leave the index, unless somebody is changing them: whoever adds or returns a task to a
    -- stage locks its row too, so that under this lock "none waits" is exact and stays so until they have their turn.
    IF cardinality(short) > 0 THEN
        short := ARRAY(SELECT id FROM stages WHERE id = ANY (short) FOR NO KEY UPDATE SKIP LOCKED);
        UPDATE stages SET oldest_waiting = NULL
        WHERE id = ANY (short)
            AND NOT EXISTS (SELECT FROM waiting_tasks WHERE stage_id = stages.id AND seq >= stages.head);
    END IF;
END
$$;
