-- name: attempt_list(task_id, descending, after_lease, after_number, limit)
-- Rows: a page of the attempts of a task, by lease; see routines/list_history.sql.
SELECT body, parent, major, minor, now() AS moment FROM list_attempts(
    :task_id, :descending, :after_lease, :after_number, :limit
);

-- name: change_list(job_id, stage_id, descending, after_id, limit)
-- Rows: a page of the status changes of a job or, if a stage is given, of that stage; see routines/list_history.sql.
SELECT body, parent, major, minor, now() AS moment FROM list_changes(
    :job_id, :stage_id, :descending, :after_id, :limit
);

-- name: stage_job(stage_id)$
-- Returns the id of the job of a stage; null if there is no such stage.
SELECT job_id FROM stages WHERE id = :stage_id;

-- name: history_of_task(task_id, descending, first_lease, limit)
-- Rows: attempts of a task by lease, each with its worker and the status of the task before and after it (null: in
-- progress or aborted), from a lease on (null: all); and when the task was created and aborted (null: it was not), with
-- its status before. One row with a null lease if there are no such attempts; none if there is no such task.
SELECT task.created_at, CASE WHEN task_status(task, aborted_at(stage)) = 'ABORTED' THEN
        coalesce(task.end_time, aborted_at(stage)) END AS aborted_at,
    coalesce(
        (SELECT target FROM attempts WHERE lease_id = task.lease_id),
        CASE WHEN task.lease_id IS NULL THEN 'PENDING' ELSE 'IN_PROGRESS' END::task_status
    ) AS status_before,
    attempt.lease_id, attempt.worker_id, attempt.source, attempt.target, attempt.outcome,
    attempt.error ->> 'type' AS error_type, attempt.start_time, attempt.end_time
FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id
LEFT JOIN LATERAL attempts_of(task, aborted_at(stage), :descending, :first_lease, :limit) AS attempt ON true
WHERE task.id = :task_id
ORDER BY CASE WHEN :descending THEN -attempt.lease_id ELSE attempt.lease_id END;
