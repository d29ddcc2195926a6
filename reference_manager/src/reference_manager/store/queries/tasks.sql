-- name: task_add(stage_id, usual_attempts, data, user_metadata, options, traceparent, tracestate, written)^
-- CREATED → PENDING, all of one stage; see routines/add_tasks.sql.
SELECT status, job_status, type, added, body FROM add_tasks(
    :stage_id, :usual_attempts, :data, :user_metadata, :options, :traceparent, :tracestate, :written
);

-- name: task_claim(type, wanted, starts, workers, lengths, minimal)
-- PENDING, RETRIED → IN_PROGRESS; see routines/claim_tasks.sql.
SELECT claimant, leases, tasks, bodies, waits, context
FROM claim_tasks(:type, :wanted, :starts, :workers, :lengths, :minimal);

-- name: task_complete(ids, leases, workers, results)
-- IN_PROGRESS → COMPLETED, where nothing follows from it; see routines/complete_tasks.sql.
SELECT place, body FROM complete_tasks(:ids, :leases, :workers, :results);

-- name: task_settle(ids, leases, workers, outcomes, results, errors, retryables, delays, checkpoints)
-- IN_PROGRESS → COMPLETED, PENDING, RETRIED, FAILED; see routines/settle_tasks.sql.
SELECT source, target, body, woken FROM settle_tasks(
    :ids, :leases, :workers, :outcomes::attempt_outcome[], :results, :errors, :retryables, :delays, :checkpoints
);

-- name: task_settle_free(ids, leases, workers, outcomes, results, errors, retryables, delays, checkpoints)
-- The same for tasks of jobs that nobody has locked; the others are left as they are; see routines/settle_tasks.sql.
SELECT busy, source, target, body, woken FROM settle_free_tasks(
    :ids, :leases, :workers, :outcomes::attempt_outcome[], :results, :errors, :retryables, :delays, :checkpoints
);

-- name: task_keep(worker_id, ids, leases, progresses, checkpoints)
-- A heartbeat renews leases; see routines/keep_leases.sql.
SELECT lease_id, verdict FROM keep_leases(:worker_id, :ids, :leases, :progresses, :checkpoints);

-- name: task_get(id)$
-- The task as JSON; no row: there is none.
SELECT task_wire(task, aborted_at(stage))
FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id WHERE task.id = :id;

-- name: task_list(stage_id, stage_type, status, from_date, end_date, until, after_time, after_seq, wanted)
-- A page of the tasks that match, oldest first; see routines/list_pages.sql. A filter that is null matches all; dates are
-- inclusive.
SELECT body, parent, major, minor, now() AS moment FROM list_tasks(
    :stage_id, :stage_type, :status, :from_date, least(:end_date::timestamptz, :until::timestamptz),
    :after_time, :after_seq, :wanted
);

-- name: task_set_metadata(user_metadata, id)$
-- The id; no row: there is no such task.
UPDATE tasks SET user_metadata = :user_metadata, updated_at = now() WHERE id = :id RETURNING id;

-- name: tasks_abort(job_id)!
-- CREATED, PENDING, RETRIED, IN_PROGRESS → ABORTED, all of a job: their stages are marked here, and their rows follow in
-- small steps (sweep_aborted_stage). Before stages_abort; the caller holds the job's lock.
INSERT INTO aborted_stages (stage_id)
SELECT id FROM stages WHERE job_id = :job_id AND status NOT IN ('COMPLETED', 'FAILED', 'ABORTED');

-- name: task_attempts(id)$
-- Every attempt of a task as one JSON list, oldest first; no row: there is no such task.
SELECT attempts_wire(task, aborted_at(stage))
FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id WHERE task.id = :id;
