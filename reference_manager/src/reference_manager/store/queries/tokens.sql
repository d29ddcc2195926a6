-- Access tokens; see routines/tokens.sql.

-- name: token_state()^
-- Returns whether requests need a token, the version of the tokens, and the time of the database in seconds.
SELECT closed, version, extract(epoch FROM clock_timestamp())::double precision AS moment FROM access_state;

-- name: token_load()
-- Rows: the tokens that are not revoked. Times are in seconds.
SELECT id, name, scopes, stage_types, job_names, digest, previous_digest,
    extract(epoch FROM expires_at)::double precision AS expires_at,
    extract(epoch FROM previous_expires_at)::double precision AS previous_expires_at
FROM tokens WHERE revoked_at IS NULL;

-- name: token_create(name, scopes, stage_types, job_names, lifetime, creator, digest)$
-- Creates a token. Returns it as JSON; null if another one has its name.
SELECT create_token(:name, :scopes, :stage_types, :job_names, :lifetime, :creator, :digest);

-- name: token_ensure(name, scopes, creator, digest)$
-- Creates a token for a given secret, unless there is or was one. Returns it as JSON.
SELECT ensure_token(:name, :scopes, :creator, :digest);

-- name: token_rotate(id, overlap, digest)$
-- Replaces the secret of a token. Returns it as JSON; null if it is unknown or revoked.
SELECT rotate_token(:id, :overlap, :digest);

-- name: token_revoke(id)$
-- Revokes a token. Returns it as JSON; null if it is unknown.
SELECT revoke_token(:id);

-- name: token_get(id)$
-- Returns a token as JSON; null if it is unknown.
SELECT token_wire(token) FROM tokens AS token WHERE id = :id;

-- name: token_find(name)$
-- Returns the id of the token with this name that is not revoked; null if there is none.
SELECT id FROM tokens WHERE name = :name AND revoked_at IS NULL;

-- name: token_list(after_id, descending, limit)
-- Rows: a page of tokens, by id and therefore by age.
SELECT id, token_wire(token) AS body FROM tokens AS token
WHERE :after_id::uuid IS NULL OR CASE WHEN :descending THEN id < :after_id ELSE id > :after_id END
ORDER BY CASE WHEN :descending THEN id END DESC, CASE WHEN NOT :descending THEN id END LIMIT :limit;

-- name: token_touch(ids)!
-- Records that tokens were used, at most about once a minute for all managers, and without waiting for a lock.
UPDATE tokens SET last_used_at = now() WHERE id IN (
    SELECT id FROM tokens
    WHERE id = ANY (:ids) AND (last_used_at IS NULL OR last_used_at < now() - interval '50 seconds')
    FOR NO KEY UPDATE SKIP LOCKED
);

-- name: access_owners_of_jobs(ids)
-- Rows: the names of jobs. A job has no stage type.
SELECT id, NULL::text AS stage_type, name AS job_name FROM jobs WHERE id = ANY (:ids::uuid[]);

-- name: access_owners_of_stages(ids)
-- Rows: the types of stages and the names of their jobs.
SELECT stage.id, stage.type AS stage_type, job.name AS job_name
FROM stages AS stage JOIN jobs AS job ON job.id = stage.job_id WHERE stage.id = ANY (:ids::uuid[]);

-- name: access_owners_of_tasks(ids)
-- Rows: the types of the stages of tasks, and the names of their jobs.
SELECT task.id, stage.type AS stage_type, job.name AS job_name
FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id JOIN jobs AS job ON job.id = stage.job_id
WHERE task.id = ANY (:ids::uuid[]);

-- name: access_types_of_worker(id)
-- Rows: the stage types that a worker has named.
SELECT unnest(stage_types) AS stage_type FROM workers WHERE id = :id;

-- name: access_types_of_leases(id)
-- Rows: the stage types of the leases that a worker holds. This reads all leases.
SELECT DISTINCT stage.type AS stage_type FROM leases AS lease JOIN tasks AS task ON task.id = lease.task_id
    JOIN stages AS stage ON stage.id = task.stage_id WHERE lease.worker_id = :id;
