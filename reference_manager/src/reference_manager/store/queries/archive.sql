-- name: archive_begin()!
-- Lets the rest of the transaction write the fields of part B, whatever this manager serves.
SELECT set_config('jobnik.part_a_only', 'off', true);

-- name: archive_wait()!
-- Does nothing, so that the session is not idle while a file is stored.
SELECT;

-- name: archive_sizes(ids)
-- Rows: the numbers of stages and tasks of jobs; see routines/archive.sql.
SELECT job_id, stages, tasks FROM archive_sizes(:ids);

-- name: archive_print(id)$
-- Returns a number that changes with the job; see routines/archive.sql.
SELECT job_print(:id);

-- name: archive_job(id)$
-- Returns the job with its history as JSON; null if it was deleted; see routines/archive.sql.
SELECT archived_job(:id);

-- name: archive_stages(job_id, after, limit)
-- Rows: stages of a job; see routines/archive.sql.
SELECT stage_id, place, body FROM archived_stages(:job_id, :after, :limit);

-- name: archive_tasks(stage_id, after, limit)
-- Rows: tasks of a stage with their attempts; see routines/archive.sql.
SELECT place, body FROM archived_tasks(:stage_id, :after, :limit);
