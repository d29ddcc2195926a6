-- Run once, possibly while managers are running. Adds a table that managers of the previous version may ignore.

DROP FUNCTION IF EXISTS add_tasks(
    uuid, integer, json[], json[], integer[], text[], text[], interval[], json[], timestamptz[], interval[]
);

-- The last job that was created with each key.
CREATE TABLE job_keys (
    key text PRIMARY KEY,
    -- Checked at the end of the transaction: a session takes the key before it creates the job, so that sessions with
    -- the same key wait for nothing else.
    job_id uuid NOT NULL UNIQUE REFERENCES jobs ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
