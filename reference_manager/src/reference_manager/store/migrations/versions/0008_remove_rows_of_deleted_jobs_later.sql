-- Run once, possibly while managers are running. After it, deleting a job deletes its stages at once and its tasks later,
-- in small steps; a manager of the previous version that deletes a job does the same.

-- Deleted stages whose tasks still have rows. Without its stage, no client can see a task.
CREATE TABLE deleted_stages (
    stage_id uuid PRIMARY KEY,
    job_id uuid NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION keep_deleted_stages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deleted_stages (stage_id, job_id) SELECT id, job_id FROM deleted;
    RETURN NULL;
END
$$;

-- Before the constraint is dropped, so that no deletion leaves tasks of which nothing remembers the stage.
CREATE TRIGGER deleted AFTER DELETE ON stages REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION keep_deleted_stages();

ALTER TABLE tasks DROP CONSTRAINT tasks_stage_id_fkey;

-- For a share of the due tasks of each stage.
CREATE INDEX delayed_tasks_of_stage_by_due ON delayed_tasks (stage_id, due);

-- For the age of the oldest delta.
ALTER TABLE stage_deltas ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
