-- The trigger functions of jobs and stages. Migration 0002 creates their first versions, with the triggers that call
-- them. Like all routines, the functions are replaced at every start: a trigger refers to its function by name, so a
-- new version of the function needs no new trigger.

-- record_job: adds a row to the history for each change of a job's status. Its author and its reason follow from the
-- edge of the state machine (domain/transitions.py).
CREATE OR REPLACE FUNCTION record_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history (job_id, source, target) VALUES (
        NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status
    );
    RETURN NULL;
END
$$;

-- record_stage: the same for stages.
CREATE OR REPLACE FUNCTION record_stage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history (job_id, stage_id, source, target) VALUES (
        NEW.job_id, NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status
    );
    RETURN NULL;
END
$$;

-- count_job: adds rows to the totals for metrics, one for each change, so that writers do not wait for one another.
-- fold_totals sums them up.
CREATE OR REPLACE FUNCTION count_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO job_totals VALUES (OLD.status, -1);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO job_totals VALUES (NEW.status, 1);
    END IF;
    RETURN NULL;
END
$$;

-- count_stage: the same for stages, and for the tasks in their counts.
CREATE OR REPLACE FUNCTION count_stage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO stage_totals VALUES (
            OLD.type, OLD.priority, OLD.status, -1,
            -OLD.pending, -OLD.in_progress, -OLD.retried, -OLD.completed, -OLD.failed, -OLD.aborted
        );
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO stage_totals VALUES (
            NEW.type, NEW.priority, NEW.status, 1,
            NEW.pending, NEW.in_progress, NEW.retried, NEW.completed, NEW.failed, NEW.aborted
        );
    END IF;
    RETURN NULL;
END
$$;
