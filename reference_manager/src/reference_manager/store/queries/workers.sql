-- name: workers_upsert(ids, stage_types, hosts, versions, draining, running, wait)
-- Records the heartbeats of workers; see routines/renew_leases.sql.
SELECT id, drain_wanted FROM upsert_workers(:ids, :stage_types, :hosts, :versions, :draining, :running, :wait);

-- name: worker_list(descending, after_id, limit)
-- Rows: a page of workers, by id; see routines/list_pages.sql.
SELECT body, parent, major, minor, now() AS moment FROM list_workers(:descending, :after_id, :limit);

-- name: worker_set_drain(drain, id, wait)$
-- Orders a worker to drain, or withdraws the order. Returns the worker as JSON; null if there is no such worker.
UPDATE workers AS worker SET drain_wanted = :drain
WHERE id = :id AND limit_lock_waits(:wait) RETURNING worker_wire(worker);

-- name: worker_delete(id, wait)
-- Deletes a worker. Rows: the leases that it still holds. This reads all leases, at most one for each task in progress.
WITH deleted AS (
    DELETE FROM workers WHERE id = :id AND limit_lock_waits(:wait)
)
SELECT task_id, id AS lease_id FROM leases WHERE worker_id = :id;

-- name: workers_forget()$
-- Deletes the workers without a heartbeat for an hour; one with an order to drain only after a week, because it may
-- return and must receive the order. Skips workers whose heartbeat is being recorded. Returns the number of rows.
WITH deleted AS (
    DELETE FROM workers WHERE id = ANY (ARRAY(
        SELECT id FROM workers
        WHERE seen_at < now() - CASE WHEN drain_wanted THEN interval '7 days' ELSE interval '1 hour' END
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
)
SELECT count(*) FROM deleted;
