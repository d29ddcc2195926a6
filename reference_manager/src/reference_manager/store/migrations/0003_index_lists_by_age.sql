-- Run once, possibly while managers are running. Adds indexes in the order of the lists of jobs and tasks, oldest
-- first. Their columns never change, so that no update touches them.

CREATE INDEX jobs_by_age ON jobs (created_at, seq);
CREATE INDEX tasks_by_age ON tasks (created_at, seq);
