-- What chaos asks of the database, past the managers.

-- name: backends()$
-- The process ids of the managers' connections, those at work first.
SELECT coalesce(array_agg(pid ORDER BY state = 'active' DESC, pid), '{}')
FROM pg_stat_activity WHERE application_name = 'jobnik-manager';

-- name: end_backend(pid)$
-- Ends a connection, as an administrator does. Whether there was one.
SELECT pg_terminate_backend(:pid);

-- name: unfinished(jobs)$
-- How many of these jobs have not ended.
SELECT count(*) FROM jobs WHERE id = ANY (:jobs) AND status NOT IN ('COMPLETED', 'FAILED', 'ABORTED');

-- name: jobs_under_way()$
-- The jobs that are being worked on.
SELECT coalesce(array_agg(id ORDER BY seq), '{}') FROM jobs WHERE status = 'IN_PROGRESS';

-- name: lock_job(job)$
-- Takes a job's lock until the transaction ends.
SELECT pg_advisory_xact_lock(job_key(:job));

-- name: heard_of(workers)$
-- How many of these workers have sent a heartbeat within the last two seconds.
SELECT count(*) FROM workers WHERE id = ANY (:workers) AND seen_at > now() - interval '2 seconds';

-- name: leases_of(worker)$
-- The leases of a worker.
SELECT coalesce(array_agg(id), '{}') FROM leases WHERE worker_id = :worker;

-- name: leases_left(leases)$
-- How many of these leases are still there.
SELECT count(*) FROM leases WHERE id = ANY (:leases);

-- name: expired(leases)$
-- Those of these leases that were not renewed in time.
SELECT coalesce(array_agg(lease_id), '{}') FROM (
    SELECT lease_id FROM attempts WHERE lease_id = ANY (:leases) AND outcome = 'EXPIRED'
    UNION ALL
    SELECT lease_id FROM tasks WHERE lease_id = ANY (:leases) AND outcome = 'EXPIRED' AND status = 'FAILED'
) AS over;

-- name: hanging()$
-- What has not come to an end, one sentence each.
SELECT coalesce(array_agg(sentence), '{}') FROM (
    SELECT format('job %s is %s', id, status) AS sentence FROM jobs
    WHERE status NOT IN ('COMPLETED', 'FAILED', 'ABORTED')
    UNION ALL
    SELECT format('stage %s of job %s is %s: %s', id, job_id, status, stage_summary(stage)) FROM stages AS stage
    WHERE status NOT IN ('CREATED', 'COMPLETED', 'FAILED', 'ABORTED')
    UNION ALL
    SELECT format('lease %s of task %s expires at %s', id, task_id, expires_at) FROM leases
    UNION ALL
    SELECT format('%s deltas of stage %s', count(*), stage_id) FROM stage_deltas GROUP BY stage_id
    UNION ALL
    SELECT format('task %s waits until %s', task_id, due) FROM delayed_tasks
    UNION ALL
    SELECT format('the tasks of the aborted stage %s', stage_id) FROM aborted_stages
) AS listed;
