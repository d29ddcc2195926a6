-- For a share of the due tasks of each stage.
CREATE INDEX CONCURRENTLY IF NOT EXISTS delayed_tasks_of_stage_by_due ON jobnik.delayed_tasks (stage_id, due);
