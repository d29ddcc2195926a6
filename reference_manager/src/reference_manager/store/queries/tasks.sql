-- name: task_add
-- CREATED → PENDING, in one stage; see routines/add_tasks.sql. If tasks were added, then claims up to `limit` tasks of
-- the stage's type; null: none. Rows: those of add_tasks, with those of claim_tasks if it was called; the first row has
-- the body.
SELECT status, job_status, type, added, CASE WHEN number > 1 THEN NULL ELSE body END AS body, locked,
    CASE WHEN handed_over THEN 1 ELSE claim END AS claim, coalesce(adding.leases, claiming.leases) AS leases,
    coalesce(adding.tasks, claiming.tasks) AS tasks, coalesce(adding.bodies, claiming.bodies) AS bodies,
    coalesce(adding.waits, claiming.waits) AS waits, coalesce(adding.context, claiming.context) AS context, more
FROM add_tasks(
    :stage_id, :default_max_attempts, :data, :user_metadata, :options, :traceparent, :tracestate, :with_body, :wait,
    :limit, :starts, :workers, :lengths, :minimal
) AS adding
LEFT JOIN LATERAL claim_tasks(
    type,
    CASE WHEN NOT handed_over AND added > 0 AND status IN ('PENDING', 'IN_PROGRESS') THEN :limit::integer END,
    :starts, :workers, :lengths, :minimal, :budget, coalesce(oldest, 0)
) WITH ORDINALITY AS claiming (claim, leases, tasks, bodies, waits, context, more, number) ON true;

-- name: task_add_once
-- The same for a request with an idempotency key. Rows: see routines/idempotency.sql.
SELECT reused, created, status, job_status, type, added, CASE WHEN number > 1 THEN NULL ELSE body END AS body, locked,
    CASE WHEN handed_over THEN 1 ELSE claim END AS claim, coalesce(adding.leases, claiming.leases) AS leases,
    coalesce(adding.tasks, claiming.tasks) AS tasks, coalesce(adding.bodies, claiming.bodies) AS bodies,
    coalesce(adding.waits, claiming.waits) AS waits, coalesce(adding.context, claiming.context) AS context, more
FROM add_tasks_once(
    :key, :digest,
    :stage_id, :default_max_attempts, :data, :user_metadata, :options, :traceparent, :tracestate, :with_body, :wait,
    :limit, :starts, :workers, :lengths, :minimal
) AS adding
LEFT JOIN LATERAL claim_tasks(
    type,
    CASE
        WHEN created AND NOT handed_over AND added > 0 AND status IN ('PENDING', 'IN_PROGRESS') THEN :limit::integer
    END,
    :starts, :workers, :lengths, :minimal, :budget, coalesce(oldest, 0)
) WITH ORDINALITY AS claiming (claim, leases, tasks, bodies, waits, context, more, number) ON true;

-- name: task_claim(type, limit, starts, workers, lengths, minimal, budget)
-- PENDING, RETRIED → IN_PROGRESS; see routines/claim_tasks.sql.
SELECT claim, leases, tasks, bodies, waits, context, more
FROM claim_tasks(:type, :limit, :starts, :workers, :lengths, :minimal::boolean[], :budget);

-- name: task_complete(ids, leases, workers, results, wait)
-- IN_PROGRESS → COMPLETED, only where this has no consequences; see routines/complete_tasks.sql.
SELECT places, bodies, busy FROM complete_tasks(:ids, :leases, :workers, :results, :wait);

-- name: task_settle(ids, leases, workers, outcomes, results, errors, retryables, delays, checkpoints)
-- IN_PROGRESS → COMPLETED, PENDING, RETRIED, FAILED; see routines/settle_tasks.sql.
SELECT source, target, body, woken FROM settle_tasks(
    :ids, :leases, :workers, :outcomes::attempt_outcome[], :results, :errors, :retryables, :delays, :checkpoints
);

-- name: task_settle_free(ids, leases, workers, outcomes, results, errors, retryables, delays, checkpoints)
-- The same, only for tasks of jobs that no other session has locked; see routines/settle_tasks.sql.
SELECT busy, source, target, body, woken FROM settle_free_tasks(
    :ids, :leases, :workers, :outcomes::attempt_outcome[], :results, :errors, :retryables, :delays, :checkpoints
);

-- name: task_lock_to_settle(ids, wait)$
-- Takes the locks that task_settle needs, for the rest of the transaction. Returns false if another session has locked
-- one of the jobs; see routines/locks.sql.
SELECT lock_to_settle(:ids, :wait);

-- name: task_find_locked(ids)
-- Rows: for each of these tasks, in order, its job (null: there is no such task), and whether another session has locked
-- a row that its report may need; see routines/locks.sql.
SELECT job_id, locked FROM find_locked_tasks(:ids);

-- name: leases_renew(workers, ids, leases, progresses, checkpoints)
-- Renews the leases of workers, for heartbeats; see routines/renew_leases.sql.
SELECT place, verdict FROM renew_leases(:workers, :ids, :leases, :progresses, :checkpoints);

-- name: task_get(id)$
-- Returns the task as JSON; null if there is no such task.
SELECT task_wire(task, aborted_at(stage))
FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id WHERE task.id = :id;

-- name: task_exists(id)$
-- Returns the id; null if there is no such task.
SELECT task.id FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id WHERE task.id = :id;

-- name: task_list
-- Rows: a page of the matching tasks, by age; see routines/list_pages.sql. A null filter matches all; dates are
-- inclusive.
SELECT body, parent, major, minor, now() AS moment FROM list_tasks(
    :stage_id, :stage_type, :statuses::task_status[], :metadata::text[], :from_date,
    least(:end_date::timestamptz, :until::timestamptz), :descending, :after_time, :after_seq, :limit
);

-- name: task_number
-- Rows: the number of matching tasks, then those of a numbered page; see routines/list_numbered.sql.
SELECT body, parent, total FROM number_tasks(
    :stage_id, :stage_type, :statuses::task_status[], :metadata::text[], :from_date, :end_date, :descending,
    :skipped, :limit
);

-- name: task_set_metadata(user_metadata, id, wait)$
-- Returns the id; null if there is no such task.
UPDATE tasks SET user_metadata = :user_metadata, updated_at = now()
WHERE id = :id AND EXISTS (SELECT FROM stages WHERE stages.id = stage_id) AND limit_lock_waits(:wait) RETURNING id;

-- name: tasks_abort(job_id)!
-- CREATED, PENDING, RETRIED, IN_PROGRESS → ABORTED, all tasks of a job: marks their stages, and sweep_aborted_stages
-- updates the rows later, in small steps. Must run before stages_abort. The caller holds the job's lock.
INSERT INTO aborted_stages (stage_id)
SELECT id FROM stages WHERE job_id = :job_id AND status NOT IN ('COMPLETED', 'FAILED', 'ABORTED');
