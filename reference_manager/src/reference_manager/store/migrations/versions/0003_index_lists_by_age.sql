-- Run once, while managers may be at work: the order of the lists of jobs and tasks, oldest first, as an index. Both columns
-- never change, so that no update touches it.

CREATE INDEX jobs_by_age ON jobs (created_at, seq);
CREATE INDEX tasks_by_age ON tasks (created_at, seq);
