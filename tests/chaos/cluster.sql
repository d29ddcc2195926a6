-- Queries that chaos runs directly on the database.

-- name: backends()$
-- The process ids of the managers' connections, active ones first.
SELECT coalesce(array_agg(pid ORDER BY state = 'active' DESC, pid), '{}')
FROM pg_stat_activity WHERE application_name = 'jobnik-manager';

-- name: end_backend(pid)$
-- Ends a connection, as an administrator would. Returns whether it existed.
SELECT pg_terminate_backend(:pid);

-- name: unfinished(jobs)$
-- The number of these jobs that have not ended.
SELECT count(*) FROM jobs WHERE id = ANY (:jobs) AND status NOT IN ('COMPLETED', 'FAILED', 'ABORTED');

-- name: jobs_under_way()$
-- The jobs in progress.
SELECT coalesce(array_agg(id ORDER BY seq), '{}') FROM jobs WHERE status = 'IN_PROGRESS';

-- name: lock_job(job)$
-- Holds the lock of a job until the transaction ends.
SELECT pg_advisory_xact_lock(job_key(:job));

-- name: recently_seen(workers)$
-- The number of these workers that have sent a heartbeat within the last two seconds.
SELECT count(*) FROM workers WHERE id = ANY (:workers) AND seen_at > now() - interval '2 seconds';

-- name: leases_of(worker)$
-- The leases of a worker.
SELECT coalesce(array_agg(id), '{}') FROM leases WHERE worker_id = :worker;

-- name: leases_left(leases)$
-- The number of these leases that still exist.
SELECT count(*) FROM leases WHERE id = ANY (:leases);

-- name: expired(leases)$
-- The leases among these that expired.
SELECT coalesce(array_agg(lease_id), '{}') FROM (
    SELECT lease_id FROM attempts WHERE lease_id = ANY (:leases) AND outcome = 'EXPIRED'
    UNION ALL
    SELECT lease_id FROM tasks WHERE lease_id = ANY (:leases) AND outcome = 'EXPIRED' AND status = 'FAILED'
) AS over;

-- name: unfinished_work()$
-- Work that has not ended, one sentence each.
SELECT coalesce(array_agg(sentence), '{}') FROM (
    SELECT format('job %s is %s', id, status) AS sentence FROM jobs
    WHERE status NOT IN ('COMPLETED', 'FAILED', 'ABORTED')
    UNION ALL
    SELECT format('stage %s of job %s is %s: %s', id, job_id, status, stage_summary(stage)) FROM stages AS stage
    WHERE status NOT IN ('CREATED', 'COMPLETED', 'FAILED', 'ABORTED')
    UNION ALL
    SELECT format('lease %s of task %s expires at %s', id, task_id, expires_at) FROM leases
    UNION ALL
    SELECT format('%s unmerged deltas of stage %s', count(*), stage_id) FROM stage_deltas GROUP BY stage_id
    UNION ALL
    SELECT format('task %s is delayed until %s', task_id, due) FROM delayed_tasks
    UNION ALL
    SELECT format('the tasks of the aborted stage %s are not all aborted', stage_id) FROM aborted_stages
) AS listed;
