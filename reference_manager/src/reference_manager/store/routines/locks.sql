-- The job's lock: an advisory lock, held until the transaction ends. Sessions that only complete tasks of stages with
-- waiting tasks share it; every other change to a job's tree, except a claim, takes it exclusively. It is not a row
-- lock, because sessions could share a row lock in turn for ever while another waits for it exclusively; advisory locks
-- are granted in order of arrival. Data that depends on the lock must be read in a later statement than the one that
-- takes the lock: only then does it include the changes that others committed before they released it.

-- lock_jobs: takes the locks of several jobs in the order of their keys, so that no deadlock is possible.
CREATE OR REPLACE FUNCTION lock_jobs(job_ids uuid[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT job_key(job_id) AS key FROM unnest(job_ids) AS listed (job_id) ORDER BY key OFFSET 0) AS keys
$$;

-- lock_free_jobs: takes the locks of these jobs: of all of them if `waits`, otherwise of those that are free. Returns
-- the jobs that another session has locked. Nulls in `job_ids` are ignored.
CREATE OR REPLACE FUNCTION lock_free_jobs(job_ids uuid[], waits boolean) RETURNS uuid[] LANGUAGE plpgsql AS $$
BEGIN
    IF waits THEN
        PERFORM lock_jobs(job_ids);
        RETURN '{}';
    END IF;
    RETURN ARRAY(
        SELECT id FROM (SELECT DISTINCT id FROM unnest(job_ids) AS listed (id) OFFSET 0) AS job
        WHERE NOT pg_try_advisory_xact_lock(job_key(id))
    );
END
$$;

-- lock_job: takes the lock of a job. Rows: the job; none if there is no such job.
CREATE OR REPLACE FUNCTION lock_job(wanted_id uuid) RETURNS SETOF jobs LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_jobs(ARRAY[wanted_id]);
    RETURN QUERY SELECT * FROM jobs WHERE id = wanted_id;
END
$$;

-- lock_stage_to_start: takes what a claim needs to start a stage or its job: the job's lock and both rows. False: another
-- session has locked one of them, or the stage is no longer claimable.
CREATE OR REPLACE FUNCTION lock_stage_to_start(wanted_id uuid, owner uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    is_claimable boolean := false;
BEGIN
    IF pg_try_advisory_xact_lock(job_key(owner)) THEN
        SELECT stage.job_open AND stage.status IN ('PENDING', 'IN_PROGRESS') INTO is_claimable
        FROM stages AS stage JOIN jobs AS job ON job.id = ANY (ARRAY[stage.job_id])
        WHERE stage.id = wanted_id
        FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    RETURN coalesce(is_claimable, false);
END
$$;

-- lock_task_to_claim: takes the lock of a task's row. False: another session has it.
CREATE OR REPLACE FUNCTION lock_task_to_claim(wanted_id uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM tasks WHERE id = wanted_id FOR NO KEY UPDATE SKIP LOCKED;
    RETURN FOUND;
END
$$;

-- lock_to_settle: takes what settle_tasks needs for these tasks: the locks of their jobs, and the rows of the jobs, of all
-- their stages, since an ended stage changes others, and of the tasks. Until it has these, it holds no lease, so that
-- heartbeats can renew the leases however long that takes. It gives up after waiting 0.3 s for one lock, or at once
-- unless `waits`; the rest of the transaction gives up after 0.3 s. Plans are pinned to index scans, as in claim_tasks.
CREATE OR REPLACE FUNCTION lock_to_settle(wanted_ids uuid[], waits boolean) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    job_ids uuid[] := ARRAY(
        SELECT job_id FROM stages WHERE id = ANY (ARRAY(SELECT stage_id FROM tasks WHERE id = ANY (wanted_ids)))
    );
BEGIN
    PERFORM set_config('lock_timeout', CASE WHEN waits THEN '300ms' ELSE '1ms' END, true);
    PERFORM lock_jobs(job_ids);
    PERFORM FROM jobs WHERE id = ANY (job_ids) ORDER BY id FOR NO KEY UPDATE;
    PERFORM FROM stages WHERE job_id = ANY (job_ids) ORDER BY id FOR NO KEY UPDATE;
    PERFORM FROM tasks WHERE id = ANY (wanted_ids) ORDER BY seq FOR NO KEY UPDATE;
    PERFORM set_config('lock_timeout', '300ms', true);
END
$$;

-- find_locked_tasks: for each of these tasks, in order, its job, and whether another session has locked its row, that of
-- its stage or that of its job. Plans are pinned to index scans, as in claim_tasks.
CREATE OR REPLACE FUNCTION find_locked_tasks(wanted_ids uuid[]) RETURNS TABLE (job_id uuid, locked boolean)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    free uuid[];
BEGIN
    free := ARRAY(
        SELECT task.id
        FROM tasks AS task
        JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
        JOIN jobs AS job ON job.id = ANY (ARRAY[stage.job_id])
        WHERE task.id = ANY (wanted_ids)
        FOR NO KEY UPDATE SKIP LOCKED
    );
    RETURN QUERY
    SELECT task.job_id, task.id IS NOT NULL AND task.id <> ALL (free)
    FROM unnest(wanted_ids) WITH ORDINALITY AS wanted (id, place)
    LEFT JOIN (
        SELECT task.id, stage.job_id
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
        WHERE task.id = ANY (wanted_ids)
    ) AS task ON task.id = wanted.id
    ORDER BY wanted.place;
END
$$;
