-- claim_tasks: task PENDING, RETRIED → IN_PROGRESS; stage PENDING → IN_PROGRESS; job PENDING → IN_PROGRESS. Claims only
-- tasks that no other session is claiming, in stages that are PENDING or IN_PROGRESS, of jobs that are PENDING or
-- IN_PROGRESS: the most urgent job first, then the stage that has waited longest, then its oldest task.
-- Arguments: claimant n gets the tasks from number starts[n] on (from 1, ascending), as worker workers[n], with leases
-- of lengths[n]. Null in `workers` is a client without leases, which gets tasks in the format of part A of the
-- protocol.
-- `brief` reduces tasks to the fields that a worker needs, without their stage and their job.
-- Rows: one for each claimant and stage, with the number of the claimant, the leases, the ids, the tasks as JSON
-- separated by commas, and for how many seconds each task was claimable, all in the order of the queue; then the stage
-- and its job as JSON (null: there are no leases). None if no task is waiting. One row of nulls if other sessions are
-- busy with all waiting tasks: try again.
-- A claim scans the index of claimable stages and, in each stage, the index of waiting tasks. It does not wait for
-- other sessions, with one exception: to start a stage or a job, it needs the job's lock. It waits for at most one such
-- lock, and holds no other lock meanwhile, so that no deadlock is possible.
-- Plans are pinned to index scans by the settings of the function. Making a new plan for each call, because of the
-- varying limit, would take longer than the claim itself, and a plan made while the tables were empty must remain good
-- when they are large. Rows are always selected with = ANY (array), because a join would let the planner read the whole
-- table first. A row selected by its id has no second condition on its status: a plan made while no task was in
-- progress would scan the index of everything in progress, which seemed empty then.
CREATE OR REPLACE FUNCTION claim_tasks(
    wanted_type text, wanted integer, starts integer[], workers text[], lengths interval[], brief boolean
) RETURNS TABLE (
    claimant integer, leases bigint[], tasks uuid[], bodies text, waits double precision[], context text
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    stage record;
    fresh record;
    picked uuid[];
    waited double precision[];
    claimed_count integer := 0;
    count_before integer;
    holds_lock boolean := false;
    may_be_stale boolean := false;
    claimed_at timestamptz;
    with_leases boolean := cardinality(array_remove(workers, NULL)) > 0;
    single boolean := cardinality(workers) = 1;
    drained uuid[] := '{}';
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
            IF holds_lock THEN
                IF NOT pg_try_advisory_xact_lock(job_key(stage.job_id)) THEN
                    IF claimed_count = 0 THEN
                        claimant := NULL;
                        RETURN NEXT;
                    END IF;
                    EXIT;
                END IF;
            ELSE
                PERFORM pg_advisory_xact_lock(job_key(stage.job_id));
                holds_lock := true;
            END IF;
            may_be_stale := true;
        END IF;
        -- This stage and the following ones may have changed while this session waited for the lock.
        IF may_be_stale THEN
            SELECT job_open, status INTO fresh FROM stages WHERE id = stage.id;
            CONTINUE WHEN NOT FOUND OR NOT fresh.job_open OR fresh.status NOT IN ('PENDING', 'IN_PROGRESS');
        END IF;
        IF with_leases THEN
            context := claim_context(stage.id);
        END IF;

        WITH picked AS MATERIALIZED (
            SELECT ctid AS place, task_id, seq, ready_at FROM waiting_tasks
            WHERE stage_id = stage.id AND seq >= stage.head
            ORDER BY seq
            LIMIT wanted - claimed_count
            FOR UPDATE SKIP LOCKED
        ), unqueued AS (
            -- Rows of this table are never updated, so that it is safe to select them by ctid.
            DELETE FROM waiting_tasks WHERE ctid = ANY (ARRAY(SELECT place FROM picked))
        )
        SELECT array_agg(task_id ORDER BY seq),
            array_agg(greatest(extract(epoch FROM now() - greatest(ready_at, stage.opened_at)), 0) ORDER BY seq)
        INTO picked, waited FROM picked;

        -- Not now(), the start of the claim, which may have waited for a lock for longer than a lease lasts.
        claimed_at := clock_timestamp();
        count_before := claimed_count;
        FOR claimant, leases, tasks, bodies, waits IN
        WITH claimed AS (
            UPDATE tasks AS task SET
                status = 'IN_PROGRESS', start_time = claimed_at, updated_at = claimed_at,
                outcome = NULL, progress = NULL,
                lease_id = nextval('lease_ids'),
                worker_id = workers[
                    CASE WHEN single THEN 1
                        ELSE width_bucket(claimed_count + array_position(picked, task.id), starts) END
                ]
            WHERE task.id = ANY (picked) AND task.status IN ('PENDING', 'RETRIED')
            RETURNING task.seq, task.id, task.attempts, task.lease_id, task.worker_id, task.timeout,
                CASE WHEN single THEN 1
                    ELSE width_bucket(claimed_count + array_position(picked, task.id), starts) END AS claimant,
                CASE WHEN brief THEN task_wire_brief(task) ELSE task_wire_open(task, NULL) END AS body
        ), leased AS (
            INSERT INTO leases (id, task_id, stage_id, worker_id, length, expires_at, deadline)
            SELECT lease_id, id, stage.id, worker_id, lengths[claimed.claimant],
                claimed_at + least(lengths[claimed.claimant], timeout), claimed_at + timeout
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
                        || ',"leaseExpiresAt":'
                        || wire_time(claimed_at + least(lengths[answered.claimant], answered.timeout))
                        || ',' || substr(context, 2)
                END, ',' ORDER BY seq
            ),
            array_agg(answered.wait ORDER BY seq)
        FROM (SELECT *, waited[row_number() OVER (ORDER BY seq)] AS wait FROM claimed) AS answered
        GROUP BY answered.claimant
        ORDER BY answered.claimant
        LOOP
            claimed_count := claimed_count + cardinality(leases);
            RETURN NEXT;
        END LOOP;

        IF claimed_count > count_before THEN
            holds_lock := true;
            IF stage.unstarted THEN
                IF fresh.status = 'PENDING' THEN
                    UPDATE stages SET status = 'IN_PROGRESS', start_time = now(), updated_at = now()
                    WHERE id = stage.id;
                END IF;
                UPDATE jobs SET status = 'IN_PROGRESS', updated_at = now()
                WHERE id = stage.job_id AND status = 'PENDING';
            END IF;
        END IF;
        EXIT WHEN claimed_count = wanted;
        drained := drained || stage.id;
    END LOOP;

    -- Remove drained stages from the index, unless another session is changing them. Every session that adds or returns
    -- a task also locks the row of the stage, so that under this lock the check for waiting tasks is exact.
    IF cardinality(drained) > 0 THEN
        drained := ARRAY(SELECT id FROM stages WHERE id = ANY (drained) FOR NO KEY UPDATE SKIP LOCKED);
        UPDATE stages SET oldest_waiting = NULL
        WHERE id = ANY (drained)
            AND NOT EXISTS (SELECT FROM waiting_tasks WHERE stage_id = stages.id AND seq >= stages.head);
    END IF;
END
$$;
