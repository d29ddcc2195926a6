-- name: worker_upsert(id, stage_types, host, version, draining, running)$
-- Records a heartbeat, and deletes workers without a heartbeat for an hour. Returns whether the worker must drain.
WITH deleted AS (
    DELETE FROM workers WHERE seen_at < now() - interval '1 hour' AND id <> :id
)
INSERT INTO workers AS worker (id, stage_types, host, version, draining, running)
VALUES (:id, :stage_types, :host, :version, :draining, :running)
ON CONFLICT (id) DO UPDATE SET
    stage_types = excluded.stage_types,
    host = coalesce(excluded.host, worker.host), version = coalesce(excluded.version, worker.version),
    draining = excluded.draining, running = excluded.running, seen_at = now()
RETURNING worker.drain_wanted;

-- name: worker_list(descending, after_id, limit)
-- Rows: a page of workers, by id; see routines/list_pages.sql.
SELECT body, parent, major, minor, now() AS moment FROM list_workers(:descending, :after_id, :limit);

-- name: worker_set_drain(drain, id)$
-- Orders a worker to drain, or withdraws the order. Returns the worker as JSON; null if there is no such worker.
UPDATE workers AS worker SET drain_wanted = :drain WHERE id = :id RETURNING worker_wire(worker);

-- name: worker_delete(id)
-- Deletes a worker. Rows: the leases that it still holds. This reads all leases, at most one for each task in progress.
WITH deleted AS (
    DELETE FROM workers WHERE id = :id
)
SELECT task_id, id AS lease_id FROM leases WHERE worker_id = :id;
