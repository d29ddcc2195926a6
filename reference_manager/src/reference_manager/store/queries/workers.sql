-- name: worker_seen(id, stage_types, host, version, draining, running)$
-- A worker is alive. Whether it is to drain. Those that nobody has heard of for an hour are forgotten.
WITH forgotten AS (
    DELETE FROM workers WHERE seen_at < now() - interval '1 hour' AND id <> :id
)
INSERT INTO workers AS worker (id, stage_types, host, version, draining, running)
VALUES (:id, :stage_types, :host, :version, :draining, :running)
ON CONFLICT (id) DO UPDATE SET
    stage_types = excluded.stage_types,
    host = coalesce(excluded.host, worker.host), version = coalesce(excluded.version, worker.version),
    draining = excluded.draining, running = excluded.running, seen_at = now()
RETURNING worker.drain_wanted;

-- name: worker_list()$
-- Every worker as one JSON list, by id.
SELECT wire_list(array_agg(worker_wire(worker) ORDER BY id)) FROM workers AS worker;

-- name: worker_order(drain, id)$
-- The worker as JSON; no row: there is none.
UPDATE workers AS worker SET drain_wanted = :drain WHERE id = :id RETURNING worker_wire(worker);

-- name: worker_forget(id)
-- A worker ends: it is in the list no more. The leases that it still holds; they are few beside those of all tasks in progress,
-- which this reads.
WITH forgotten AS (
    DELETE FROM workers WHERE id = :id
)
SELECT task_id, id AS lease_id FROM leases WHERE worker_id = :id;
