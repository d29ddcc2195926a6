-- Run once, possibly while managers are running. Adds tables that managers of the previous version ignore.

-- The access tokens. There are few of them: every manager keeps all of them in memory.
CREATE TABLE tokens (
    id uuid PRIMARY KEY DEFAULT new_id(),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    rotated_at timestamptz,
    last_used_at timestamptz,
    name text COLLATE "C" NOT NULL,
    created_by text NOT NULL,
    scopes text[] NOT NULL,
    -- Null: not limited.
    stage_types text[],
    job_names text[],
    -- SHA-256 of the secret.
    digest bytea NOT NULL UNIQUE,
    -- The secret before the latest rotation.
    previous_digest bytea UNIQUE,
    previous_expires_at timestamptz
);
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;

-- One row. `closed`: requests need a token; true from the first token on, for ever. `version` grows with every change of
-- a token, and its row is the lock of such a change.
CREATE TABLE access_state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    closed boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 0
);
INSERT INTO access_state DEFAULT VALUES;
