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
