-- What is always true of a manager's tables, at any moment and whatever was killed: each query counts what contradicts it.

-- name: false_summaries()$
-- Stages whose figures are not those of their tasks' rows.
SELECT count(*) FROM stages AS stage WHERE stage_summary(stage)::jsonb <> (
    SELECT jsonb_build_object(
        'created', 0,
        'pending', count(*) FILTER (WHERE status = 'PENDING'),
        'inProgress', count(*) FILTER (WHERE status = 'IN_PROGRESS'),
        'completed', count(*) FILTER (WHERE status = 'COMPLETED'),
        'failed', count(*) FILTER (WHERE status = 'FAILED'),
        'retried', count(*) FILTER (WHERE status = 'RETRIED'),
        'aborted', count(*) FILTER (WHERE status = 'ABORTED'),
        'total', count(*)
    )
    FROM (SELECT task_status(task, aborted_at(stage)) AS status FROM tasks AS task WHERE stage_id = stage.id) AS listed
);

-- name: unfinished_stages()$
-- Stages that have not ended although all their tasks are completed.
SELECT count(*) FROM stages AS stage
WHERE status <> 'COMPLETED' AND EXISTS (SELECT FROM tasks WHERE stage_id = stage.id)
    AND NOT EXISTS (SELECT FROM tasks WHERE stage_id = stage.id AND status <> 'COMPLETED');

-- name: forgotten_stages()$
-- Stages that have waiting tasks and do not stand in the index that claims walk.
SELECT count(*) FROM stages AS stage
WHERE oldest_waiting IS NULL AND status <> 'ABORTED'
    AND EXISTS (SELECT FROM waiting_tasks WHERE stage_id = stage.id);

-- name: false_queues()$
-- Tasks that wait, or wait for a moment, or are leased, and stand not once in the table for it; or stand there and do not.
SELECT count(*) FROM (
    SELECT task.id FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id
    WHERE stage.status <> 'ABORTED' AND (
        (SELECT count(*) FROM waiting_tasks WHERE stage_id = task.stage_id AND seq = task.seq)
            + (SELECT count(*) FROM delayed_tasks WHERE task_id = task.id) <> (task.status IN ('PENDING', 'RETRIED'))::integer
        OR (SELECT count(*) FROM leases WHERE task_id = task.id) <> (task.status = 'IN_PROGRESS')::integer
    )
) AS wrong;

-- name: attempts_recorded_twice()$
-- Attempts that stand among those that ended and on a task that has ended, or runs, by them.
SELECT count(*) FROM tasks WHERE status IN ('IN_PROGRESS', 'COMPLETED', 'FAILED')
    AND EXISTS (SELECT FROM attempts WHERE lease_id = tasks.lease_id);

-- name: false_attempts()$
-- Tasks whose number of failed attempts is not that of their recorded ones.
SELECT count(*) FROM tasks WHERE attempts <> (
    SELECT count(*) FROM attempts WHERE task_id = tasks.id AND outcome IN ('FAILED', 'EXPIRED', 'TIMED_OUT')
) + (status = 'FAILED')::integer;

-- name: false_totals()$
-- Statuses of jobs, and types, priorities and statuses of stages, whose totals are not those of the rows.
WITH jobs_counted AS (
    SELECT status, count(*) FROM jobs GROUP BY status
), jobs_told AS (
    SELECT status, sum(jobs) FROM job_totals GROUP BY status HAVING sum(jobs) <> 0
), stages_counted AS (
    SELECT type, priority, status, count(*), sum(pending), sum(in_progress), sum(retried), sum(completed), sum(failed),
        sum(aborted)
    FROM stages GROUP BY type, priority, status
), stages_told AS (
    SELECT type, priority, status, sum(stages), sum(pending), sum(in_progress), sum(retried), sum(completed), sum(failed),
        sum(aborted)
    FROM stage_totals GROUP BY type, priority, status HAVING sum(stages) <> 0
)
SELECT (SELECT count(*) FROM (TABLE jobs_counted EXCEPT TABLE jobs_told) AS jobs)
    + (SELECT count(*) FROM (TABLE jobs_told EXCEPT TABLE jobs_counted) AS jobs)
    + (SELECT count(*) FROM (TABLE stages_counted EXCEPT TABLE stages_told) AS stages)
    + (SELECT count(*) FROM (TABLE stages_told EXCEPT TABLE stages_counted) AS stages);

-- name: left_over()$
-- What must be gone some time after everything has ended: leases, delays, counts that were not added up, aborted stages whose
-- tasks do not say so, and waiting tasks in stages that have not failed.
SELECT (SELECT count(*) FROM leases)
    + (SELECT count(*) FROM delayed_tasks)
    + (SELECT count(*) FROM stage_deltas)
    + (SELECT count(*) FROM aborted_stages)
    + (SELECT count(*) FROM waiting_tasks AS waiting JOIN stages AS stage ON stage.id = waiting.stage_id
       WHERE stage.status <> 'FAILED');
