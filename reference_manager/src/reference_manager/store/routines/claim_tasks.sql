-- claim_tasks(stage type, limit): task PENDING, RETRIED → IN_PROGRESS; stage PENDING → IN_PROGRESS; job PENDING →
-- IN_PROGRESS. Only tasks that nobody else is claiming, in stages that are PENDING or IN_PROGRESS, of jobs that are
-- PENDING or IN_PROGRESS: the most urgent job first, then the stage that has waited longest, then its oldest task.
-- Rows: the tasks as JSON. No row: none wait. One null row: others were busy with all that waits; ask again.
--
-- A claim walks the index of claimable stages and, in each, the index of waiting tasks. It waits for nobody, with one
-- exception: to start a stage or a job it needs the job's lock. It waits for one such lock at the most, while it holds
-- nothing else, so that no ring of waiters can close.
--
-- Plans are pinned to index walks: planning anew at each call, which the varying limit would cause, takes longer than the
-- claim itself, and a plan made while the tables were empty must still serve when they are large. Hence the settings, and
-- hence rows are always named by = ANY (array): a join leaves the planner free to read the whole table first.
CREATE OR REPLACE FUNCTION claim_tasks(wanted_type text, wanted integer) RETURNS SETOF text LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    stage record;
    taken integer := 0;
    found_here integer;
    holding boolean := false;
    short uuid[] := '{}';
BEGIN
    FOR stage IN
        SELECT candidate.id, candidate.job_id, candidate.status = 'PENDING' OR job.status = 'PENDING' AS unstarted
        FROM stages AS candidate
        JOIN jobs AS job ON job.id = candidate.job_id
        WHERE candidate.type = wanted_type
            AND candidate.oldest_waiting IS NOT NULL
            AND candidate.job_open
            AND candidate.status IN ('PENDING', 'IN_PROGRESS')
        ORDER BY candidate.priority, candidate.oldest_waiting
    LOOP
        IF stage.unstarted THEN
            IF holding THEN
                PERFORM FROM jobs WHERE id = stage.job_id FOR NO KEY UPDATE SKIP LOCKED;
                IF NOT FOUND THEN
                    IF taken = 0 THEN
                        RETURN NEXT NULL;
                    END IF;
                    EXIT;
                END IF;
            ELSE
                PERFORM FROM jobs WHERE id = stage.job_id FOR NO KEY UPDATE;
                holding := true;
            END IF;
            -- What the walk saw may have changed before the lock was ours.
            CONTINUE WHEN NOT EXISTS (
                SELECT FROM stages WHERE id = stage.id AND job_open AND status IN ('PENDING', 'IN_PROGRESS')
            );
        END IF;

        RETURN QUERY
        WITH picked AS MATERIALIZED (
            SELECT id, status FROM tasks
            WHERE stage_id = stage.id AND waiting IS NOT NULL
            ORDER BY waiting
            LIMIT wanted - taken
            FOR NO KEY UPDATE SKIP LOCKED
        ), delta AS (
            INSERT INTO stage_deltas (stage_id, pending, retried, in_progress)
            SELECT stage.id, -count(*) FILTER (WHERE status = 'PENDING'),
                -count(*) FILTER (WHERE status = 'RETRIED'), count(*)
            FROM picked HAVING count(*) > 0
        ), claimed AS (
            UPDATE tasks AS task SET status = 'IN_PROGRESS', start_time = now(), updated_at = now()
            WHERE task.id = ANY (ARRAY(SELECT id FROM picked))
            RETURNING task.seq, task_wire(task) AS body
        )
        SELECT body FROM claimed ORDER BY seq;
        GET DIAGNOSTICS found_here = ROW_COUNT;

        IF found_here > 0 THEN
            holding := true;
            IF stage.unstarted THEN
                UPDATE stages SET status = 'IN_PROGRESS', start_time = now(), updated_at = now()
                WHERE id = stage.id AND status = 'PENDING';
                UPDATE jobs SET status = 'IN_PROGRESS', updated_at = now()
                WHERE id = stage.job_id AND status = 'PENDING';
            END IF;
        END IF;
        taken := taken + found_here;
        EXIT WHEN taken = wanted;
        short := short || stage.id;
    END LOOP;

    -- Stages that had too few leave the index, unless somebody is changing them: whoever adds or returns a task to a
    -- stage locks its row too, so that under this lock "none waits" is exact and stays so until they have their turn.
    IF cardinality(short) > 0 THEN
        short := ARRAY(SELECT id FROM stages WHERE id = ANY (short) FOR NO KEY UPDATE SKIP LOCKED);
        UPDATE stages SET oldest_waiting = NULL
        WHERE id = ANY (short)
            AND NOT EXISTS (SELECT FROM tasks WHERE stage_id = stages.id AND waiting IS NOT NULL);
    END IF;
END
$$;
