-- What an archive keeps of a job before it is deleted: the job with its history, its stages, and their tasks with all
-- attempts. Plans are pinned to index scans, as in claim_tasks.

-- archive_sizes: the numbers of stages and tasks of these jobs, in their order.
CREATE OR REPLACE FUNCTION archive_sizes(wanted_ids uuid[]) RETURNS TABLE (job_id uuid, stages bigint, tasks bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT wanted.id, counted.stages, counted.tasks::bigint FROM unnest(wanted_ids) WITH ORDINALITY AS wanted (id, place),
        LATERAL (
            SELECT count(*) AS stages, coalesce(sum(stage_total(stage)), 0) AS tasks
            FROM stages AS stage WHERE stage.job_id = wanted.id
        ) AS counted
    ORDER BY wanted.place;
END
$$;

-- job_print: a number that changes with every change to the row of a job, of a stage or of a task. Whatever changes their
-- attempts or their history changes one of these rows, too.
CREATE OR REPLACE FUNCTION job_print(of_job uuid) RETURNS bigint LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN (
        SELECT bit_xor(hashtextextended(version, 0)) FROM (
            SELECT 'job ' || xmin || ' ' || ctid AS version FROM jobs WHERE id = of_job
            UNION ALL SELECT 'stage ' || xmin || ' ' || ctid FROM stages WHERE job_id = of_job
            UNION ALL
            SELECT 'task ' || task.xmin || ' ' || task.ctid FROM stages AS stage, LATERAL (
                SELECT xmin, ctid FROM tasks WHERE stage_id = stage.id OFFSET 0
            ) AS task
            WHERE stage.job_id = of_job
        ) AS versions
    );
END
$$;

-- archived_job: the job as JSON, with its history: the changes of its own status and those of its stages (`stageId`).
CREATE OR REPLACE FUNCTION archived_job(of_job uuid) RETURNS text LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN (
        SELECT wire_with(job_wire(job, false), ',"history":' || (
            SELECT wire_list(array_agg(
                wire_with(
                    change_fields(change), ',"stageId":' || coalesce('"' || change.stage_id || '"', 'null')
                ) ORDER BY change.id
            ))
            FROM history AS change WHERE change.job_id = of_job
        ))
        FROM jobs AS job WHERE id = of_job
    );
END
$$;

-- archived_stages: the next stages of a job as JSON, by their position.
CREATE OR REPLACE FUNCTION archived_stages(of_job uuid, after_position integer, most integer)
RETURNS TABLE (stage_id uuid, place integer, body text) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT stage.id, stage.position, stage_wire(stage, false) FROM stages AS stage
    WHERE stage.job_id = of_job AND stage.position > after_position ORDER BY stage.position LIMIT most;
END
$$;

-- archived_tasks: the next tasks of a stage as JSON, by their age, each with its attempts.
CREATE OR REPLACE FUNCTION archived_tasks(of_stage uuid, after_seq bigint, most integer)
RETURNS TABLE (place bigint, body text) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    aborted CONSTANT timestamptz := (SELECT aborted_at(stage) FROM stages AS stage WHERE id = of_stage);
BEGIN
    RETURN QUERY
    SELECT task.seq, wire_with(task_wire(task, aborted), ',"attemptList":' || (
        SELECT wire_list(array_agg(attempt_wire(
            number, lease_id, worker_id, start_time, end_time, outcome, error
        ) ORDER BY number))
        FROM attempts_of(task, aborted, false, NULL, 2147483646) WITH ORDINALITY AS attempt (
            lease_id, worker_id, source, target, outcome, error, start_time, end_time, number
        )
    ))
    FROM tasks AS task WHERE task.stage_id = of_stage AND task.seq > after_seq ORDER BY task.seq LIMIT most;
END
$$;
