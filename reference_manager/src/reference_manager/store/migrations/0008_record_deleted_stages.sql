-- Records deleted stages, so that the rows of their tasks can be removed later, in small steps.

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

-- In a migration before the one that drops the constraint, so that no deletion leaves tasks whose stage is unknown.
CREATE TRIGGER deleted AFTER DELETE ON stages REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION keep_deleted_stages();
