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

-- limit_lock_waits: for the rest of the transaction, a statement that waits longer than this for one lock fails. Returns
-- true, so that a statement can call it in its condition.
CREATE OR REPLACE FUNCTION limit_lock_waits(wait interval) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT set_config('lock_timeout', greatest(extract(epoch FROM wait) * 1000, 1)::integer::text, true) IS NOT NULL
$$;

-- lock_job: takes the lock of a job, and limits the waits for locks in the rest of the transaction. If `wait` is 0, it
-- only tries to take the job's lock. Rows: the job, and whether another session has locked it; none if there is no such
-- job.
CREATE OR REPLACE FUNCTION lock_job(wanted_id uuid, wait interval)
RETURNS TABLE (id uuid, status job_status, priority job_priority, locked boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM limit_lock_waits(wait);
    IF cardinality(lock_free_jobs(ARRAY[wanted_id], wait > interval '0')) > 0 THEN
        RETURN QUERY SELECT wanted_id, NULL::job_status, NULL::job_priority, true;
    ELSE
        RETURN QUERY SELECT job.id, job.status, job.priority, false FROM jobs AS job WHERE job.id = wanted_id;
    END IF;
END
$$;

-- lock_stage_to_start: takes what a claim needs to start a stage or its job: the job's lock and both rows. False: another
-- session has locked one of them, or the stage is no longer claimable.
CREATE OR REPLACE FUNCTION lock_stage_to_start(wanted_id uuid, owner uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    is_claimable boolean := false;
BEGIN
    IF pg_try_advisory_xact_lock(job_key(owner)) THEN
        SELECT accepts_claims(stage) INTO is_claimable
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
-- heartbeats can renew the leases however long that takes. It fails after waiting this long for one lock; the rest of the
-- transaction fails after 0.1 s. If `wait` is 0, it only tries to take the locks of the jobs. False: another session has
-- one of these. Plans are pinned to index scans, as in claim_tasks.
CREATE OR REPLACE FUNCTION lock_to_settle(wanted_ids uuid[], wait interval) RETURNS boolean LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    job_ids uuid[] := ARRAY(
        SELECT job_id FROM stages WHERE id = ANY (ARRAY(SELECT stage_id FROM tasks WHERE id = ANY (wanted_ids)))
    );
BEGIN
    PERFORM limit_lock_waits(wait);
    IF cardinality(lock_free_jobs(job_ids, wait > interval '0')) > 0 THEN
        RETURN false;
    END IF;
    PERFORM FROM jobs WHERE id = ANY (job_ids) ORDER BY id FOR NO KEY UPDATE;
    PERFORM FROM stages WHERE job_id = ANY (job_ids) ORDER BY id FOR NO KEY UPDATE;
    PERFORM FROM tasks WHERE id = ANY (wanted_ids) ORDER BY seq FOR NO KEY UPDATE;
    PERFORM limit_lock_waits(interval '0.1 seconds');
    RETURN true;
END
$$;

-- find_locked_tasks: for each of these tasks, in order, its job, and whether another session has locked a row that
-- settle_tasks may need: that of the task, its lease or its job, or of any stage of the job, since an ended stage changes
-- others. Plans are pinned to index scans, as in claim_tasks.
CREATE OR REPLACE FUNCTION find_locked_tasks(wanted_ids uuid[]) RETURNS TABLE (job_id uuid, locked boolean)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    jobs_of uuid[] := ARRAY(
        SELECT DISTINCT job_id FROM stages WHERE id = ANY (ARRAY(SELECT stage_id FROM tasks WHERE id = ANY (wanted_ids)))
    );
    leases_of bigint[] := ARRAY(SELECT lease_id FROM tasks WHERE id = ANY (wanted_ids));
    free_jobs uuid[] := ARRAY(SELECT id FROM jobs WHERE id = ANY (jobs_of) FOR NO KEY UPDATE SKIP LOCKED);
    free_tasks uuid[] := ARRAY(SELECT id FROM tasks WHERE id = ANY (wanted_ids) FOR NO KEY UPDATE SKIP LOCKED);
    free_leases bigint[] := ARRAY(SELECT id FROM leases WHERE id = ANY (leases_of) FOR UPDATE SKIP LOCKED);
BEGIN
    WITH free AS MATERIALIZED (
        SELECT job_id FROM stages WHERE job_id = ANY (free_jobs) FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT array_agg(job_id) INTO free_jobs FROM (
        -- By counting, not by comparing every stage with every other.
        SELECT job_id FROM (
            SELECT job_id, 1 AS stages, 0 AS free FROM stages WHERE job_id = ANY (free_jobs)
            UNION ALL
            SELECT job_id, 0, 1 FROM free
        ) AS counted
        GROUP BY job_id HAVING sum(stages) = sum(free)
    ) AS job;
    RETURN QUERY
    SELECT task.job_id, task.id IS NOT NULL AND NOT (
        task.id = ANY (free_tasks) AND task.job_id = ANY (coalesce(free_jobs, '{}'))
        AND (task.held IS NULL OR task.held = ANY (free_leases))
    )
    FROM unnest(wanted_ids) WITH ORDINALITY AS wanted (id, place)
    LEFT JOIN (
        SELECT task.id, stage.job_id,
            (SELECT lease.id FROM leases AS lease WHERE lease.id = ANY (ARRAY[task.lease_id])) AS held
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
        WHERE task.id = ANY (wanted_ids)
    ) AS task ON task.id = wanted.id
    ORDER BY wanted.place;
END
$$;
