-- The job's lock: an advisory lock, held until the transaction ends. Shared by those who only complete tasks of stages that
-- have more; exclusive for everything else that changes a job's tree, claims apart. Not a row's lock, since that can be
-- shared for ever by one after the other while somebody waits for it alone; advisory locks are given in order of arrival.
-- What depends on the lock is read in a later statement than the one that takes it: only then does it see what others have
-- written before they let go.

CREATE OR REPLACE FUNCTION job_key(job_id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT uuid_hash_extended(job_id, 7813)
$$;

-- Several are taken in the order of their keys: no ring of waiters can close.
CREATE OR REPLACE FUNCTION lock_jobs(job_ids uuid[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT job_key(job_id) AS key FROM unnest(job_ids) AS listed (job_id) ORDER BY key OFFSET 0) AS keys
$$;

-- No row: there is no such job.
CREATE OR REPLACE FUNCTION lock_job(wanted_id uuid) RETURNS SETOF jobs LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_jobs(ARRAY[wanted_id]);
    RETURN QUERY SELECT * FROM jobs WHERE id = wanted_id;
END
$$;
