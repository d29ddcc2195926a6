-- Run once, possibly while managers are running. Adds a table that managers of the previous version may ignore.

-- The idempotency keys of recent requests that created something, so that a repeated request creates nothing.
CREATE TABLE idempotency_keys (
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Identifies the request: what it creates and where, without trace contexts.
    digest uuid NOT NULL,
    -- The id of the created job or stage; for tasks, the beginning of their ids, followed by zeros.
    entity uuid NOT NULL,
    -- False: nothing was created, because the job `entity` had the unique key of the request.
    is_new boolean NOT NULL DEFAULT true,
    key text COLLATE "C" PRIMARY KEY
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
