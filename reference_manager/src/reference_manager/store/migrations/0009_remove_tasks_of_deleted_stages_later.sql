-- From now on, deleting a job deletes its stages at once and its tasks later, also through a manager of the previous
-- version.
ALTER TABLE tasks DROP CONSTRAINT tasks_stage_id_fkey;
