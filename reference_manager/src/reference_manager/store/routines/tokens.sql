-- Access tokens. The rows never contain a secret, only its digest, which leaves the database only for a manager's memory.

-- change_tokens: takes the lock of the tokens, closes the manager, and tells every manager to read the tokens again.
CREATE OR REPLACE FUNCTION change_tokens() RETURNS void LANGUAGE sql AS $$
    UPDATE access_state SET closed = true, version = version + 1;
    SELECT pg_notify('jobnik_tokens', '');
$$;

-- create_token: adds a token and returns it as JSON; null if one that is not revoked has its name.
CREATE OR REPLACE FUNCTION create_token(
    new_name text, new_scopes text[], new_stage_types text[], new_job_names text[], lifetime interval,
    creator text, new_digest bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    created tokens;
BEGIN
    PERFORM change_tokens();
    INSERT INTO tokens (name, scopes, stage_types, job_names, expires_at, created_by, digest)
    VALUES (new_name, new_scopes, new_stage_types, new_job_names, now() + lifetime, creator, new_digest)
    ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
    RETURNING * INTO created;
    RETURN token_wire(created);
END
$$;

-- ensure_token: adds a token for this secret, unless there is or was one. Returns the token as JSON.
CREATE OR REPLACE FUNCTION ensure_token(new_name text, new_scopes text[], creator text, new_digest bytea)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    known tokens;
BEGIN
    SELECT * INTO known FROM tokens WHERE digest = new_digest OR previous_digest = new_digest;
    IF NOT FOUND THEN
        PERFORM change_tokens();
        INSERT INTO tokens (name, scopes, created_by, digest) VALUES (new_name, new_scopes, creator, new_digest)
        ON CONFLICT DO NOTHING RETURNING * INTO known;
        IF NOT FOUND THEN -- another manager was faster
            SELECT * INTO known FROM tokens WHERE digest = new_digest;
        END IF;
    END IF;
    RETURN token_wire(known);
END
$$;

-- rotate_token: gives a token another secret; the previous one stays valid for `overlap`, but not longer than it was.
-- A token with an expiry gets its whole lifetime again. Returns the token as JSON; null if it is unknown or revoked.
CREATE OR REPLACE FUNCTION rotate_token(token_id uuid, overlap interval, new_digest bytea)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    rotated tokens;
BEGIN
    PERFORM FROM access_state FOR UPDATE;
    UPDATE tokens SET
        digest = new_digest,
        previous_digest = CASE WHEN overlap > interval '0' THEN digest END,
        previous_expires_at = CASE WHEN overlap > interval '0' THEN least(now() + overlap, expires_at) END,
        expires_at = now() + (expires_at - coalesce(rotated_at, created_at)),
        rotated_at = now()
    WHERE id = token_id AND revoked_at IS NULL
    RETURNING * INTO rotated;
    IF FOUND THEN -- a manager without tokens stays open
        PERFORM change_tokens();
    END IF;
    RETURN token_wire(rotated);
END
$$;

-- revoke_token: ends a token at once; idempotent. Returns the token as JSON; null if it is unknown.
CREATE OR REPLACE FUNCTION revoke_token(token_id uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    revoked tokens;
BEGIN
    PERFORM FROM access_state FOR UPDATE;
    UPDATE tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = token_id RETURNING * INTO revoked;
    IF FOUND THEN -- as above
        PERFORM change_tokens();
    END IF;
    RETURN token_wire(revoked);
END
$$;
