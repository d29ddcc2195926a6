-- Run once, while managers may be at work: a table for whoever uses it.

DROP FUNCTION IF EXISTS add_tasks(
    uuid, integer, json[], json[], integer[], text[], text[], interval[], json[], timestamptz[], interval[]
);

-- The last job that was created with each key.
CREATE TABLE job_keys (
    key text PRIMARY KEY,
    -- Looked at when the transaction ends: who creates a job has its key first, so that others wait for nothing else.
    job_id uuid NOT NULL UNIQUE REFERENCES jobs ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
