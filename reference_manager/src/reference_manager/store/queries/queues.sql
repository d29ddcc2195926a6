-- name: work_notify(channel, sender, stage_types)!
-- Notifies every listening manager of stage types that have new work.
SELECT pg_notify(:channel, :sender || ' ' || stage_type) FROM unnest(:stage_types::text[]) AS listed (stage_type);

-- name: work_depth(type)$
-- Returns the amount of work of a stage type as JSON: claimable tasks, tasks in progress, and the sum, for autoscalers.
SELECT format('{"waiting":%s,"inProgress":%s,"total":%s}', waiting, running, waiting + running)
FROM (
    SELECT coalesce(sum(figures.waiting) FILTER (WHERE stage.job_open), 0) AS waiting,
        coalesce(sum(figures.running), 0) AS running
    FROM stages AS stage, LATERAL (
        SELECT stage.pending + stage.retried + coalesce(sum(moved.pending + moved.retried), 0)
                - (SELECT count(*) FROM delayed_tasks WHERE stage_id = stage.id) AS waiting,
            stage.in_progress + coalesce(sum(moved.in_progress), 0) AS running
        FROM stage_deltas AS moved WHERE moved.stage_id = stage.id
    ) AS figures
    WHERE stage.type = :type AND stage.status IN ('PENDING', 'IN_PROGRESS')
) AS work;
