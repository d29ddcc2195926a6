-- name: job_insert(name, priority, data, user_metadata, traceparent, tracestate)$
-- CREATED → PENDING. The job as JSON.
INSERT INTO jobs AS job (name, status, priority, data, user_metadata, traceparent, tracestate)
VALUES (:name, 'PENDING', :priority, :data, :user_metadata, :traceparent, :tracestate)
RETURNING job_wire(job, false);

-- name: job_create(name, priority, data, user_metadata, traceparent, tracestate, unique_key, unique_for, types, statuses, datas, metadatas, weights, defaults, traceparents, tracestates, usual_attempts, task_datas, task_metadatas, task_options)^
-- CREATED → PENDING, with stages and tasks, unless another job holds its key; see routines/create_job.sql.
SELECT created, body, woken FROM create_job(
    :name, :priority, :data, :user_metadata, :traceparent, :tracestate, :unique_key, :unique_for,
    :types, :statuses::stage_status[], :datas, :metadatas, :weights, :defaults, :traceparents, :tracestates,
    :usual_attempts, :task_datas, :task_metadatas, :task_options
);

-- name: job_get(with_stages, with_progress, id)^
-- The job as JSON; no row: there is none. `parent`: its id, where its stages are wanted but too many to be in it.
SELECT wire_with(
        job_wire(job, :with_stages AND list_inlines(job.stages_total)),
        CASE WHEN :with_progress THEN job_progress(job) END
    ) AS body,
    CASE WHEN :with_stages AND NOT list_inlines(job.stages_total) THEN job.id END AS parent
FROM jobs AS job WHERE id = :id;

-- name: job_exists(id)$
-- The id; no row: there is no such job.
SELECT id FROM jobs WHERE id = :id;

-- name: job_list(name, priority, from_date, end_date, until, with_stages, after_time, after_seq, wanted)
-- A page of the jobs that match, oldest first; see routines/list_pages.sql. A filter that is null matches all; dates are
-- inclusive.
SELECT body, parent, major, minor, now() AS moment FROM list_jobs(
    :name, :priority, :from_date, least(:end_date::timestamptz, :until::timestamptz), :with_stages,
    :after_time, :after_seq, :wanted
);

-- name: job_lock(id)^
-- Takes the job's lock until the transaction ends. Its status and priority; no row: there is none.
SELECT id, status, priority FROM lock_job(:id);

-- name: job_set_status(status, id)!
-- PENDING, IN_PROGRESS → PAUSED; PAUSED → PENDING; CREATED, PENDING, IN_PROGRESS, PAUSED → ABORTED. The caller holds the
-- job's lock and has asked the state machine.
UPDATE jobs SET status = :status, updated_at = now() WHERE id = :id;

-- name: job_set_priority(priority, id)!
-- The caller holds the job's lock.
UPDATE jobs SET priority = :priority, updated_at = now() WHERE id = :id;

-- name: job_set_metadata(user_metadata, id)$
-- The id; no row: there is no such job.
UPDATE jobs SET user_metadata = :user_metadata, updated_at = now() WHERE id = :id RETURNING id;

-- name: job_add_stage(id)!
-- One more stage to complete. The caller holds the job's lock.
UPDATE jobs SET stages_total = stages_total + 1, updated_at = now() WHERE id = :id;

-- name: job_delete(id)!
-- The job with all that belongs to it. The caller holds the job's lock.
WITH gone AS (
    SELECT id FROM stages WHERE job_id = :id
), deltas AS (
    DELETE FROM stage_deltas WHERE stage_id = ANY (ARRAY(SELECT id FROM gone))
), waiting AS (
    DELETE FROM waiting_tasks WHERE stage_id = ANY (ARRAY(SELECT id FROM gone))
), delayed AS (
    DELETE FROM delayed_tasks WHERE stage_id = ANY (ARRAY(SELECT id FROM gone))
)
DELETE FROM jobs WHERE id = :id;
