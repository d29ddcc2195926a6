-- Run once, on an empty schema. Tables, types and indexes of jobs, stages and tasks.

CREATE TYPE job_priority AS ENUM ('VERY_HIGH', 'HIGH', 'MEDIUM', 'LOW', 'VERY_LOW');
CREATE TYPE job_status AS ENUM ('CREATED', 'PENDING', 'IN_PROGRESS', 'PAUSED', 'COMPLETED', 'FAILED', 'ABORTED');
CREATE TYPE stage_status AS ENUM ('CREATED', 'WAITING', 'PENDING', 'IN_PROGRESS', 'COMPLETED', 'FAILED', 'ABORTED');
CREATE TYPE task_status AS ENUM ('CREATED', 'PENDING', 'RETRIED', 'IN_PROGRESS', 'COMPLETED', 'FAILED', 'ABORTED');

-- Ids are UUIDs of version 7. They begin with the milliseconds since 1970, so that new rows are close together in the
-- index. PostgreSQL 18 has a function for this, but the manager also supports older versions.
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || right(replace(gen_random_uuid()::text, '-', ''), 19))::uuid
$$;

-- created_at has milliseconds, as in the wire format, so that a filter with a time from a response matches the row.

CREATE TABLE jobs (
    id uuid PRIMARY KEY DEFAULT new_id(),
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
    name text NOT NULL CHECK (char_length(name) BETWEEN 2 AND 50),
    status job_status NOT NULL,
    priority job_priority NOT NULL,
    data json NOT NULL,
    user_metadata json NOT NULL,
    stages_total integer NOT NULL DEFAULT 0,
    stages_completed integer NOT NULL DEFAULT 0 CHECK (stages_completed BETWEEN 0 AND stages_total),
    created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    updated_at timestamptz NOT NULL DEFAULT now(),
    traceparent text NOT NULL,
    tracestate text,
    CONSTRAINT completed_jobs_have_completed_stages
        CHECK (status <> 'COMPLETED' OR (stages_total > 0 AND stages_completed = stages_total))
) WITH (fillfactor = 80);

CREATE TABLE stages (
    id uuid PRIMARY KEY DEFAULT new_id(),
    job_id uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    position integer NOT NULL CHECK (position >= 1),
    type text NOT NULL CHECK (char_length(type) BETWEEN 1 AND 50),
    status stage_status NOT NULL,
    data json NOT NULL,
    user_metadata json NOT NULL,
    -- The fields of the job that a claim needs, copied so that a claim never reads finished or paused jobs.
    priority job_priority NOT NULL,
    job_open boolean NOT NULL,
    -- At most the smallest seq of its waiting tasks; null once a claim has found no waiting task.
    oldest_waiting bigint,
    -- The number of tasks by status. Claims add deltas to stage_deltas instead; the exact number is the sum of both.
    pending bigint NOT NULL DEFAULT 0,
    in_progress bigint NOT NULL DEFAULT 0,
    retried bigint NOT NULL DEFAULT 0,
    completed bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    aborted bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    updated_at timestamptz NOT NULL DEFAULT now(),
    start_time timestamptz,
    end_time timestamptz,
    traceparent text NOT NULL,
    tracestate text,
    UNIQUE (job_id, position),
    CONSTRAINT started_stages_have_a_start_time
        CHECK (status NOT IN ('IN_PROGRESS', 'COMPLETED', 'FAILED') OR start_time IS NOT NULL),
    CONSTRAINT finished_stages_have_an_end_time
        CHECK ((status IN ('COMPLETED', 'FAILED', 'ABORTED')) = (end_time IS NOT NULL)),
    CONSTRAINT completed_stages_have_completed_tasks
        CHECK (status <> 'COMPLETED' OR (completed > 0 AND pending + in_progress + retried + failed + aborted = 0))
) WITH (fillfactor = 60);

-- The queue of a stage type, in the order of the index: the most urgent job first, then the stage that has waited
-- longest.
CREATE INDEX stages_claimable ON stages (type, priority, oldest_waiting)
    WHERE oldest_waiting IS NOT NULL AND job_open AND status IN ('PENDING', 'IN_PROGRESS');

-- Changes of the counts of a stage by claims. An insert needs no lock, so that claims do not wait for one another. A
-- session that holds the job's lock folds the rows into the stage. The sum of each row is zero.
CREATE TABLE stage_deltas (
    stage_id uuid NOT NULL,
    pending bigint NOT NULL,
    retried bigint NOT NULL,
    in_progress bigint NOT NULL,
    CHECK (pending + retried + in_progress = 0)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX stage_deltas_of_stage ON stage_deltas (stage_id);

CREATE TABLE tasks (
    id uuid PRIMARY KEY DEFAULT new_id(),
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    stage_id uuid NOT NULL REFERENCES stages ON DELETE CASCADE,
    status task_status NOT NULL,
    -- The key of the queue: seq while the task is waiting, otherwise null. It is a separate column, so that the planner
    -- cannot choose another index, and so that settling a task, which leaves the column null, updates no index.
    waiting bigint GENERATED ALWAYS AS (CASE WHEN status IN ('PENDING', 'RETRIED') THEN seq END) STORED,
    attempts integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL CHECK (max_attempts >= 1),
    data json NOT NULL,
    user_metadata json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    updated_at timestamptz NOT NULL DEFAULT now(),
    start_time timestamptz,
    end_time timestamptz,
    traceparent text NOT NULL,
    tracestate text,
    CONSTRAINT attempts_stay_within_their_limit
        CHECK (attempts BETWEEN 0 AND max_attempts AND (status <> 'FAILED' OR attempts = max_attempts)),
    CONSTRAINT waiting_tasks_have_an_attempt_left
        CHECK (status NOT IN ('PENDING', 'RETRIED', 'IN_PROGRESS') OR attempts < max_attempts),
    CONSTRAINT retried_tasks_have_failed_before
        CHECK (status <> 'RETRIED' OR attempts > 0),
    CONSTRAINT started_tasks_have_a_start_time
        CHECK (status NOT IN ('IN_PROGRESS', 'RETRIED', 'COMPLETED', 'FAILED') OR start_time IS NOT NULL),
    CONSTRAINT finished_tasks_have_an_end_time
        CHECK ((status IN ('COMPLETED', 'FAILED', 'ABORTED')) = (end_time IS NOT NULL))
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX tasks_waiting ON tasks (stage_id, waiting) WHERE waiting IS NOT NULL;
CREATE INDEX tasks_of_stage ON tasks (stage_id, seq);
