-- name: stage_insert$
-- CREATED → PENDING, WAITING, or it stays CREATED. The caller holds the job's lock. The id is a new one if it is null.
-- Returns the stage as JSON.
INSERT INTO stages AS stage
    (id, job_id, position, type, status, data, user_metadata, weight, task_defaults, priority, job_open, traceparent,
    tracestate)
SELECT coalesce(:id, new_id()), :job_id, :position, :type, :status, :data, :user_metadata, :weight, :task_defaults,
    job.priority, job.status IN ('PENDING', 'IN_PROGRESS'), :traceparent, :tracestate
FROM jobs AS job WHERE job.id = :job_id
RETURNING stage_wire_new(stage);

-- name: stage_create_once(key, digest, user_metadata, wait)^
-- Takes the idempotency key of a new stage. Rows: the id for the stage, or the stage that exists; see
-- routines/idempotency.sql.
SELECT reused, created, id, body FROM create_stage_once(:key, :digest, :user_metadata, :wait);

-- name: stage_last(job_id)^
-- Rows: the position and the status of the last stage of a job; none if it has no stages.
SELECT position, status FROM stages WHERE job_id = :job_id ORDER BY position DESC LIMIT 1;

-- name: stage_get(with_tasks, with_progress, id)^
-- Rows: the stage as JSON; none if there is no such stage. `parent` is the id of the stage if the stage has too many
-- tasks to include in the JSON.
SELECT wire_with(
        stage_wire(stage, :with_tasks AND list_inlines(stage_total(stage))),
        CASE WHEN :with_progress THEN stage_progress(stage) END
    ) AS body,
    CASE WHEN :with_tasks AND NOT list_inlines(stage_total(stage)) THEN stage.id END AS parent
FROM stages AS stage WHERE id = :id;

-- name: stage_exists(id)$
-- Returns the id; null if there is no such stage.
SELECT id FROM stages WHERE id = :id;

-- name: stage_list
-- Rows: a page of the matching stages, by job and position; see routines/list_pages.sql. A null filter matches all.
SELECT body, parent, major, minor, now() AS moment FROM list_stages(
    :job_id, :type, :statuses::stage_status[], :metadata::text[], :until, :with_tasks, :descending,
    :after_job, :after_position, :limit
);

-- name: stage_number
-- Rows: the number of matching stages, then those of a numbered page; see routines/list_numbered.sql.
SELECT body, parent, total FROM number_stages(
    :job_id, :type, :statuses::stage_status[], :metadata::text[], :with_tasks, :descending, :skipped, :limit
);

-- name: stage_get_summary(id)$
-- Returns the number of tasks by status as JSON; null if there is no such stage.
SELECT stage_summary(stage) FROM stages AS stage WHERE id = :id;

-- name: stage_lock_job(id, wait)^
-- Takes the lock of a stage's job until the transaction ends. Rows: the job, and whether another session has locked it;
-- none if there is no such stage. See routines/locks.sql.
SELECT id, locked FROM lock_job((SELECT job_id FROM stages WHERE id = :id), :wait);

-- name: stage_state(id)^
-- Rows: the status and the type of the stage, the status of its job, and that of the previous stage (null: it is the
-- first). Exact while the caller holds the job's lock.
SELECT stage.status, stage.type, job.status AS job_status, previous.status AS previous_status
FROM stages AS stage
JOIN jobs AS job ON job.id = stage.job_id
LEFT JOIN stages AS previous ON previous.job_id = stage.job_id AND previous.position = stage.position - 1
WHERE stage.id = :id;

-- name: stage_release(id)!
-- WAITING → PENDING. The caller holds the job's lock and has checked the transition.
UPDATE stages SET status = 'PENDING', opened_at = now(), updated_at = now() WHERE id = :id;

-- name: stage_set_metadata(user_metadata, id, wait)$
-- Returns the id; null if there is no such stage.
UPDATE stages SET user_metadata = :user_metadata, updated_at = now()
WHERE id = :id AND limit_lock_waits(:wait) RETURNING id;

-- name: stages_set_priority(priority, job_id)!
-- Sets the priority of the stages of a job. The caller holds the job's lock.
UPDATE stages SET priority = :priority WHERE job_id = :job_id;

-- name: stages_set_open(job_open, job_id)!
-- Sets whether the tasks of a job can be claimed. The caller holds the job's lock.
UPDATE stages SET job_open = :job_open, opened_at = now() WHERE job_id = :job_id;

-- name: stages_abort(job_id)!
-- CREATED, WAITING, PENDING, IN_PROGRESS → ABORTED. Readers then see the unfinished tasks as aborted, too. The caller
-- holds the job's lock.
WITH unfinished AS (
    SELECT id FROM stages WHERE job_id = :job_id AND status NOT IN ('COMPLETED', 'FAILED', 'ABORTED')
), folding AS (
    DELETE FROM stage_deltas WHERE stage_id = ANY (ARRAY(SELECT id FROM unfinished)) RETURNING stage_id, completed
), folded AS (
    -- Joined by grouping, not by a lookup for each stage, which would compare every stage with every delta.
    SELECT id, sum(completed)::bigint AS completed
    FROM (SELECT id, 0 AS completed FROM unfinished UNION ALL TABLE folding) AS counted
    GROUP BY id
)
UPDATE stages AS stage SET
    status = 'ABORTED', end_time = now(), updated_at = now(), oldest_waiting = NULL,
    completed = stage.completed + folded.completed,
    aborted = stage_total(stage) - stage.failed - stage.completed - folded.completed,
    pending = 0, in_progress = 0, retried = 0
FROM folded
WHERE stage.id = folded.id;

-- name: stages_claimable(job_id)
-- Rows: the types of the job's stages that have claimable tasks.
SELECT DISTINCT type
FROM (
    SELECT type, oldest_waiting IS NOT NULL AND accepts_claims(stages) AS is_claimable
    FROM stages WHERE job_id = :job_id OFFSET 0
) AS stage
WHERE is_claimable;
