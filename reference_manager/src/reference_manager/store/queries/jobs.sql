-- name: job_insert(name, priority, data, user_metadata, traceparent, tracestate)$
-- CREATED → PENDING. Returns the job as JSON.
INSERT INTO jobs AS job (name, status, priority, data, user_metadata, traceparent, tracestate)
VALUES (:name, 'PENDING', :priority, :data, :user_metadata, :traceparent, :tracestate)
RETURNING job_wire_open(job) || '}';

-- name: job_create^
-- CREATED → PENDING, with stages and tasks, only if no other job holds the key. Rows: see routines/create_job.sql.
SELECT created, body, woken FROM create_job(
    :name, :priority, :data, :user_metadata, :traceparent, :tracestate, :unique_key, :unique_for,
    :types, :statuses::stage_status[], :datas, :metadatas, :weights, :defaults, :traceparents, :tracestates,
    :default_max_attempts, :task_datas, :task_metadatas, :task_options, :wait
);

-- name: job_create_once^
-- The same for a request with an idempotency key. Rows: see routines/idempotency.sql.
SELECT reused, created, body, woken FROM create_job_once(
    :key, :digest,
    :name, :priority, :data, :user_metadata, :traceparent, :tracestate, :unique_key, :unique_for,
    :types, :statuses::stage_status[], :datas, :metadatas, :weights, :defaults, :traceparents, :tracestates,
    :default_max_attempts, :task_datas, :task_metadatas, :task_options, :wait
);

-- name: job_get(with_stages, with_progress, id)^
-- Rows: the job as JSON; none if there is no such job. `parent` is the id of the job if the job has too many stages to
-- include in the JSON.
SELECT wire_with(
        job_wire(job, :with_stages AND list_inlines(job.stages_total)),
        CASE WHEN :with_progress THEN job_progress(job) END
    ) AS body,
    CASE WHEN :with_stages AND NOT list_inlines(job.stages_total) THEN job.id END AS parent
FROM jobs AS job WHERE id = :id;

-- name: job_exists(id)$
-- Returns the id; null if there is no such job.
SELECT id FROM jobs WHERE id = :id;

-- name: job_list
-- Rows: a page of the matching jobs, by age; see routines/list_pages.sql. A null filter matches all; dates are
-- inclusive.
SELECT body, parent, major, minor, now() AS moment FROM list_jobs(
    :name, :priority, :statuses::job_status[], :metadata::text[], :from_date,
    least(:end_date::timestamptz, :until::timestamptz), :with_stages, :descending, :after_time, :after_seq, :limit
);

-- name: job_number
-- Rows: the number of matching jobs, then those of a numbered page; see routines/list_numbered.sql.
SELECT body, parent, total FROM number_jobs(
    :name, :priority, :statuses::job_status[], :metadata::text[], :from_date, :end_date, :with_stages, :descending,
    :skipped, :limit
);

-- name: job_lock(id, wait)^
-- Takes the job's lock until the transaction ends. Rows: its status and priority, and whether another session has
-- locked it; none if there is no such job. See routines/locks.sql.
SELECT id, status, priority, locked FROM lock_job(:id, :wait);

-- name: job_set_status(status, id)!
-- PENDING, IN_PROGRESS → PAUSED; PAUSED → PENDING; CREATED, PENDING, IN_PROGRESS, PAUSED → ABORTED. The caller holds
-- the job's lock and has checked the transition.
UPDATE jobs SET status = :status, updated_at = now() WHERE id = :id;

-- name: job_set_priority(priority, id)!
-- Sets the priority. The caller holds the job's lock.
UPDATE jobs SET priority = :priority, updated_at = now() WHERE id = :id;

-- name: job_set_metadata(user_metadata, id, wait)$
-- Returns the id; null if there is no such job.
UPDATE jobs SET user_metadata = :user_metadata, updated_at = now()
WHERE id = :id AND limit_lock_waits(:wait) RETURNING id;

-- name: job_add_stage(id)!
-- Adds one to the job's number of stages. The caller holds the job's lock.
UPDATE jobs SET stages_total = stages_total + 1, updated_at = now() WHERE id = :id;

-- name: job_delete(id)!
-- Deletes the job with its key, its stages and its history; the tasks are invisible at once, and remove_deleted_stages
-- deletes their rows later, in small steps. The caller holds the job's lock. See routines/maintenance.sql.
SELECT delete_job(:id);
