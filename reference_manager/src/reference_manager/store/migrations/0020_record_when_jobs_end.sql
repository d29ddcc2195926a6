-- Run once, possibly while managers are running. Records when jobs end. Triggers do it, because managers of the previous
-- version change the status of jobs, too. A job that ended before this migration has no time; readers take that of its
-- last change.

-- The jobs that have ended since this migration, or that retention has found since: of each name and status, the oldest
-- first. A separate table, so that the end of a job changes no index of the large one (HOT updates).
CREATE TABLE ended_jobs (
    name text NOT NULL,
    status job_status NOT NULL,
    ended_at timestamptz NOT NULL,
    job_id uuid NOT NULL,
    PRIMARY KEY (name, status, ended_at, job_id)
);

ALTER TABLE jobs ADD COLUMN ended_at timestamptz;

CREATE FUNCTION end_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.ended_at := now();
    RETURN NEW;
END
$$;

-- The jobs that this transaction has ended, all at once.
CREATE FUNCTION record_ended_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ended_jobs (name, status, ended_at, job_id)
    SELECT name, status, ended_at, id FROM after WHERE ended_at = now() ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE FUNCTION forget_ended_job() RETURNS trigger LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM ended_jobs
    WHERE name = OLD.name AND status = OLD.status AND ended_at = OLD.ended_at AND job_id = OLD.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER ended BEFORE UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.status <> NEW.status AND NEW.status IN ('COMPLETED', 'FAILED', 'ABORTED')) EXECUTE FUNCTION end_job();
CREATE TRIGGER ended_update AFTER UPDATE ON jobs REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION record_ended_jobs();
CREATE TRIGGER forgotten AFTER DELETE ON jobs FOR EACH ROW
    WHEN (OLD.ended_at IS NOT NULL) EXECUTE FUNCTION forget_ended_job();
