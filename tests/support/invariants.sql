-- Invariants of a manager's tables, which hold at any moment and after any crash. Each query counts the violations.

-- name: wrong_summaries()$
-- Stages whose summary differs from the rows of their tasks.
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
-- Stages that are not completed although all their tasks are.
SELECT count(*) FROM stages AS stage
WHERE status <> 'COMPLETED' AND EXISTS (SELECT FROM tasks WHERE stage_id = stage.id)
    AND NOT EXISTS (SELECT FROM tasks WHERE stage_id = stage.id AND status <> 'COMPLETED');

-- name: unqueued_stages()$
-- Stages with waiting tasks that are missing from the index that claims scan.
SELECT count(*) FROM stages AS stage
WHERE oldest_waiting IS NULL AND status <> 'ABORTED'
    AND EXISTS (SELECT FROM waiting_tasks WHERE stage_id = stage.id);

-- name: wrong_queue_entries()$
-- Waiting, delayed or leased tasks without exactly one row in the matching table, and tasks with a row that they should not have.
SELECT count(*) FROM (
    SELECT task.id FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id
    WHERE stage.status <> 'ABORTED' AND (
        (SELECT count(*) FROM waiting_tasks WHERE stage_id = task.stage_id AND seq = task.seq)
            + (SELECT count(*) FROM delayed_tasks WHERE task_id = task.id) <> (task.status IN ('PENDING', 'RETRIED'))::integer
        OR (SELECT count(*) FROM leases WHERE task_id = task.id) <> (task.status = 'IN_PROGRESS')::integer
    )
) AS wrong;

-- name: attempts_recorded_twice()$
-- Attempts that are recorded both among the ended attempts and as the current or last attempt of their task.
SELECT count(*) FROM tasks WHERE status IN ('IN_PROGRESS', 'COMPLETED', 'FAILED')
    AND EXISTS (SELECT FROM attempts WHERE lease_id = tasks.lease_id);

-- name: wrong_attempt_counts()$
-- Tasks whose number of failed attempts differs from the recorded attempts.
SELECT count(*) FROM tasks WHERE attempts <> (
    SELECT count(*) FROM attempts WHERE task_id = tasks.id AND outcome IN ('FAILED', 'EXPIRED', 'TIMED_OUT')
) + (status = 'FAILED')::integer;

-- name: wrong_totals()$
-- Job statuses, and stage types, priorities and statuses, whose totals differ from the rows.
WITH jobs_counted AS (
    SELECT status, count(*) FROM jobs GROUP BY status
), jobs_recorded AS (
    SELECT status, sum(jobs) FROM job_totals GROUP BY status HAVING sum(jobs) <> 0
), stages_counted AS (
    SELECT type, priority, status, count(*), sum(pending), sum(in_progress), sum(retried), sum(completed), sum(failed),
        sum(aborted)
    FROM stages GROUP BY type, priority, status
), stages_recorded AS (
    SELECT type, priority, status, sum(stages), sum(pending), sum(in_progress), sum(retried), sum(completed), sum(failed),
        sum(aborted)
    FROM stage_totals GROUP BY type, priority, status HAVING sum(stages) <> 0
)
SELECT (SELECT count(*) FROM (TABLE jobs_counted EXCEPT TABLE jobs_recorded) AS jobs)
    + (SELECT count(*) FROM (TABLE jobs_recorded EXCEPT TABLE jobs_counted) AS jobs)
    + (SELECT count(*) FROM (TABLE stages_counted EXCEPT TABLE stages_recorded) AS stages)
    + (SELECT count(*) FROM (TABLE stages_recorded EXCEPT TABLE stages_counted) AS stages);

-- name: lost_tasks()$
-- Tasks without a stage that no maintenance task is going to delete.
SELECT count(*) FROM tasks
WHERE stage_id NOT IN (SELECT id FROM stages) AND stage_id NOT IN (SELECT stage_id FROM deleted_stages);

-- name: leftovers()$
-- Rows that must disappear some time after all jobs have ended: leases, delays, unfolded counts, aborted stages whose tasks are not
-- yet marked, deleted stages, and waiting tasks in stages that have not failed.
SELECT (SELECT count(*) FROM leases)
    + (SELECT count(*) FROM delayed_tasks)
    + (SELECT count(*) FROM stage_deltas)
    + (SELECT count(*) FROM aborted_stages)
    + (SELECT count(*) FROM deleted_stages)
    + (SELECT count(*) FROM waiting_tasks AS waiting JOIN stages AS stage ON stage.id = waiting.stage_id
       WHERE stage.status <> 'FAILED');

-- name: wrong_ended_jobs()$
-- Jobs whose end is recorded only in the job or only in the list of ended jobs, or that have another status or no end.
SELECT count(*) FROM (SELECT id, name, status, ended_at FROM jobs WHERE ended_at IS NOT NULL) AS job
FULL JOIN ended_jobs AS ended ON ended.job_id = job.id
WHERE (job.name, job.status, job.ended_at) IS DISTINCT FROM (ended.name, ended.status, ended.ended_at)
    OR ended.status NOT IN ('COMPLETED', 'FAILED', 'ABORTED');
