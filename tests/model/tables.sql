-- What a manager stores that its answers do not contain, and the passing of time.

-- name: queue(name)$
-- The place in the queue of every task of the jobs of that name that was not aborted, by job, stage and age, as JSON: whether
-- claims find it; the task whose place its stage has in the queue until the stage ends, and the priority there; for how many
-- seconds, or until which midnight, it is delayed; its lease (the length and the end only for a worker with leases); its
-- result or error; its attempts.
SELECT coalesce(json_agg(json_build_object(
    'id', task.id,
    'waits', EXISTS (
        SELECT FROM waiting_tasks
        WHERE stage_id = stage.id AND seq = task.seq AND seq >= stage.head AND task_id = task.id
    ),
    'place', CASE WHEN stage.status NOT IN ('COMPLETED', 'FAILED') THEN (
        SELECT id FROM tasks AS oldest WHERE oldest.stage_id = stage.id AND oldest.seq = stage.oldest_waiting
    ) END,
    'priority', stage.priority,
    'delay', (
        SELECT CASE WHEN due = date_trunc('day', due) THEN wire_time(due)::json ELSE to_json(round(extract(epoch FROM
            due - coalesce((SELECT max(end_time) FROM attempts WHERE task_id = task.id), task.created_at)
        ))::integer) END
        FROM delayed_tasks WHERE task_id = task.id
    ),
    'lease', (
        SELECT json_build_object(
            'leaseId', lease.id,
            'workerId', lease.worker_id,
            'seconds', CASE WHEN lease.worker_id IS NOT NULL THEN extract(epoch FROM lease.length)::integer END,
            'expires', CASE WHEN lease.worker_id IS NOT NULL THEN wire_time(lease.expires_at)::json END,
            'deadline', wire_time(lease.deadline)::json
        )
        FROM leases AS lease WHERE lease.task_id = task.id
    ),
    'result', task.result,
    'error', task.error,
    'attempts', (
        SELECT coalesce(json_agg(attempt.body::json ORDER BY attempt.minor), '[]')
        FROM list_attempts(task.id, false, NULL, NULL, 500) AS attempt
    )
) ORDER BY job.seq, stage.position, task.seq), '[]')::text
FROM jobs AS job
JOIN stages AS stage ON stage.job_id = job.id
JOIN tasks AS task ON task.stage_id = stage.id
WHERE job.name = :name AND stage.status <> 'ABORTED';

-- name: end_leases(tasks)!
-- Let the leases of these tasks expire.
UPDATE leases SET expires_at = now() - interval '1 second' WHERE task_id = ANY (:tasks::uuid[]);

-- name: end_deadlines(tasks)!
-- Let the time limits of these tasks pass, and their leases expire.
UPDATE leases SET expires_at = now() - interval '1 second', deadline = now() - interval '1 second'
WHERE task_id = ANY (:tasks::uuid[]);

-- name: end_delays(tasks)!
-- Let these delayed tasks be due.
UPDATE delayed_tasks SET due = now() - interval '1 second' WHERE task_id = ANY (:tasks::uuid[]);
