-- name: metric_jobs()
-- How many jobs have each status.
SELECT status, count(*) FROM jobs GROUP BY status;

-- name: metric_stages()
-- How many stages have each type and status.
SELECT type, status, count(*) FROM stages GROUP BY type, status;

-- name: metric_tasks()
-- How many tasks have each stage type, priority and status: the stages' figures and what claims have moved since.
SELECT type, priority, status, sum(count)::bigint AS count
FROM (
    SELECT type, priority, figures.* FROM stages, LATERAL (VALUES
        ('PENDING', pending), ('RETRIED', retried), ('IN_PROGRESS', in_progress),
        ('COMPLETED', completed), ('FAILED', failed), ('ABORTED', aborted)
    ) AS figures (status, count)
    UNION ALL
    SELECT stages.type, stages.priority, moves.* FROM stage_deltas AS moved
    JOIN stages ON stages.id = moved.stage_id AND stages.status <> 'ABORTED', LATERAL (VALUES
        ('PENDING', moved.pending), ('RETRIED', moved.retried), ('IN_PROGRESS', moved.in_progress),
        ('COMPLETED', moved.completed)
    ) AS moves (status, count)
) AS counted
GROUP BY type, priority, status;
