-- Run once, possibly while managers are running. Adds a table that managers of the previous version may ignore.

-- The schemas of routines, one for each version of the manager that has used this database. A row exists if the schema
-- does, and if all migrations of that version were run.
CREATE TABLE routine_sets (
    name text PRIMARY KEY,
    -- Updated at each start of a manager of this version, and every five minutes while one is running.
    used_at timestamptz NOT NULL DEFAULT now()
);

-- job_key: the key of a job's lock. All versions share it, because they lock the same jobs.
CREATE OR REPLACE FUNCTION job_key(job_id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT uuid_hash_extended(job_id, 7813)
$$;
