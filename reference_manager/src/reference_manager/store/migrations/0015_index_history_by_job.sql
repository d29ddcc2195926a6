-- For a primary key that also finds the changes of a job, in order.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS history_by_job ON jobnik.history (job_id, id);
