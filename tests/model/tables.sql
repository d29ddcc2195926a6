-- What a manager's tables hold and its answers do not tell at once.

-- name: queue(name)$
-- Where every task stands that belongs to the jobs of that name and was not aborted, by job, stage and age, as JSON: whether
-- it waits where claims look; the task whose place its stage has in the queue, while the stage goes on, and how urgent it is
-- there; for how many seconds, or until which midnight, it is not handed out; its lease (how long it lasts and until when
-- only where its worker knows of it); what it gave or why it failed; its attempts.
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
    'attempts', attempts_wire(task, aborted_at(stage))::json
) ORDER BY job.seq, stage.position, task.seq), '[]')::text
FROM jobs AS job
JOIN stages AS stage ON stage.job_id = job.id
JOIN tasks AS task ON task.stage_id = stage.id
WHERE job.name = :name AND stage.status <> 'ABORTED';

-- name: end_leases(tasks)!
-- The leases of these tasks are over.
UPDATE leases SET expires_at = now() - interval '1 second' WHERE task_id = ANY (:tasks::uuid[]);

-- name: end_deadlines(tasks)!
-- The time limits of these tasks have passed, and their leases with them.
UPDATE leases SET expires_at = now() - interval '1 second', deadline = now() - interval '1 second'
WHERE task_id = ANY (:tasks::uuid[]);

-- name: end_delays(tasks)!
-- The moment of these tasks has come.
UPDATE delayed_tasks SET due = now() - interval '1 second' WHERE task_id = ANY (:tasks::uuid[]);
