-- Statistics for metrics. Plans are pinned to index scans, as in claim_tasks: a scrape must not read finished tasks,
-- even if the tables were empty when it was planned.

-- unfolded_moves: the deltas that are not in the counts of their stages yet, by stage type and priority.
CREATE OR REPLACE FUNCTION unfolded_moves() RETURNS TABLE (
    type text, priority job_priority, pending bigint, retried bigint, in_progress bigint, completed bigint
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT stage.type, stage.priority, sum(moved.pending)::bigint, sum(moved.retried)::bigint,
        sum(moved.in_progress)::bigint, sum(moved.completed)::bigint
    FROM (
        SELECT stage_id, sum(pending) AS pending, sum(retried) AS retried, sum(in_progress) AS in_progress,
            sum(completed) AS completed
        FROM stage_deltas GROUP BY stage_id
    ) AS moved, LATERAL (
        SELECT type, priority FROM stages WHERE id = moved.stage_id AND status <> 'ABORTED' OFFSET 0
    ) AS stage
    GROUP BY stage.type, stage.priority;
END
$$;

-- oldest_waiting: how long the oldest claimable task of each stage type has been waiting, in seconds: the oldest of the
-- first tasks of the first ten stages of each priority. Stages behind them joined the queue later.
CREATE OR REPLACE FUNCTION oldest_waiting() RETURNS TABLE (type text, age double precision)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT kind.type, max(extract(epoch FROM now() - greatest(task.ready_at, stage.opened_at)))::double precision
    FROM (
        SELECT DISTINCT type, priority FROM stage_totals WHERE status IN ('PENDING', 'IN_PROGRESS')
    ) AS kind, LATERAL (
        SELECT id, head, opened_at FROM stages AS candidate
        WHERE type = kind.type AND priority = kind.priority AND oldest_waiting IS NOT NULL AND accepts_claims(candidate)
        ORDER BY oldest_waiting LIMIT 10
    ) AS stage, LATERAL (
        SELECT ready_at FROM waiting_tasks WHERE stage_id = stage.id AND seq >= stage.head ORDER BY seq LIMIT 1
    ) AS task
    GROUP BY kind.type;
END
$$;

-- maintenance_lag: for how many seconds the oldest pending work of each maintenance task has been due; 0 if there is
-- none.
CREATE OR REPLACE FUNCTION maintenance_lag() RETURNS TABLE (name text, lag double precision)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT work.name, greatest(extract(epoch FROM now() - work.due), 0)::double precision
    FROM (VALUES
        ('lease sweeper', (SELECT expires_at FROM leases ORDER BY expires_at LIMIT 1)),
        ('delayed tasks', (SELECT due FROM delayed_tasks ORDER BY due LIMIT 1)),
        ('counter folding', (SELECT min(created_at) FROM stage_deltas)),
        ('aborted tasks', (
            SELECT min(stage.end_time) FROM aborted_stages AS aborted, LATERAL (
                SELECT end_time FROM stages WHERE id = aborted.stage_id OFFSET 0
            ) AS stage
        )),
        ('deleted jobs', (SELECT min(deleted_at) FROM deleted_stages)),
        ('stale workers', (SELECT min(seen_at) + interval '1 hour' FROM workers WHERE NOT drain_wanted)),
        ('idempotency keys', (
            SELECT created_at + interval '24 hours' FROM idempotency_keys ORDER BY created_at LIMIT 1
        )),
        ('retention', (SELECT next_pass FROM retention_state WHERE retention_is_on()))
    ) AS work (name, due);
END
$$;
