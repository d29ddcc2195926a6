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

-- name: task_history_list(task_id, descending, first_lease, limit)
-- Rows: attempts of a task, by lease, for its status changes; see routines/list_history.sql.
SELECT created_at, aborted_at, status_before, lease_id, worker_id, source, target, outcome, error_type, start_time,
    end_time
FROM list_task_history(:task_id, :descending, :first_lease, :limit);
