-- name: history_of_job(job_id)
-- Rows: the status changes of a job, oldest first; none if there is no such job.
SELECT source, target, changed_at FROM history WHERE job_id = :job_id AND stage_id IS NULL ORDER BY id;

-- name: history_of_stage(stage_id)
-- Rows: the status changes of a stage, oldest first; none if there is no such stage.
SELECT source, target, changed_at FROM history
WHERE job_id = (SELECT job_id FROM stages WHERE id = :stage_id) AND stage_id = :stage_id ORDER BY id;

-- name: history_of_task(task_id)
-- Rows: the attempts of a task, oldest first, each with its worker and the status of the task before and after it
-- (null: in progress), and when the task was created and aborted (null: it was not). One row with a null lease if there
-- are no attempts; none if there is no such task.
SELECT task.created_at, CASE WHEN task_status(task, aborted_at(stage)) = 'ABORTED' THEN
        coalesce(task.end_time, aborted_at(stage)) END AS aborted_at, task_status(task, aborted_at(stage)) AS status,
    attempt.*
FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id
LEFT JOIN LATERAL (
    SELECT lease_id, worker_id, source, target, outcome, error ->> 'type' AS error_type, start_time, end_time
    FROM attempts WHERE task_id = task.id
    UNION ALL
    SELECT task.lease_id, task.worker_id,
        CASE WHEN task.attempts - (task.status = 'FAILED')::integer > 0 THEN 'RETRIED' ELSE 'PENDING' END::task_status,
        CASE WHEN task.status IN ('COMPLETED', 'FAILED') THEN task.status END,
        task.outcome, task.error ->> 'type', task.start_time, task.end_time
    WHERE task.lease_id IS NOT NULL AND NOT EXISTS (SELECT FROM attempts WHERE lease_id = task.lease_id)
) AS attempt ON true
WHERE task.id = :task_id
ORDER BY attempt.lease_id;
