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

-- name: unfinished_tasks(jobs)$
-- The tasks of these jobs that have not ended.
SELECT coalesce(array_agg(id), '{}') FROM tasks
WHERE status NOT IN ('COMPLETED', 'FAILED') AND stage_id IN (SELECT id FROM stages WHERE job_id = ANY (:jobs));

-- name: jobs_under_way()$
-- The jobs in progress.
SELECT coalesce(array_agg(id ORDER BY seq), '{}') FROM jobs WHERE status = 'IN_PROGRESS';

-- name: waiting_jobs()$
-- The jobs with tasks that may be claimed, or those in progress if there are none.
SELECT coalesce(
    (SELECT array_agg(id ORDER BY seq) FROM jobs WHERE id IN (
        SELECT job_id FROM stages WHERE oldest_waiting IS NOT NULL AND job_open AND status IN ('PENDING', 'IN_PROGRESS')
    )),
    (SELECT array_agg(id ORDER BY seq) FROM jobs WHERE status = 'IN_PROGRESS'),
    '{}'
);

-- name: lock_job(job)$
-- Holds the lock of a job until the transaction ends.
SELECT pg_advisory_xact_lock(job_key(:job));

-- name: lock_job_row(job)$
-- Locks the row of a job until the transaction ends.
SELECT id FROM jobs WHERE id = :job FOR UPDATE;

-- name: lock_stage_row(job)$
-- Locks the row of a stage until the transaction ends, if possible of one that a claim will start.
SELECT id FROM stages WHERE job_id = :job AND status NOT IN ('COMPLETED', 'FAILED', 'ABORTED')
ORDER BY oldest_waiting IS NULL, status = 'IN_PROGRESS', seq LIMIT 1 FOR UPDATE;

-- name: lock_task_rows(job)$
-- Locks the rows of all tasks that have not ended until the transaction ends.
SELECT count(*) FROM (
    SELECT FROM tasks WHERE status NOT IN ('COMPLETED', 'FAILED')
        AND stage_id IN (SELECT id FROM stages WHERE job_id = :job)
    FOR UPDATE
) AS locked;

-- name: lock_tables()!
-- Locks the tables as a reader does, and keeps a snapshot, until the transaction ends.
LOCK TABLE jobs, stages, tasks, waiting_tasks, delayed_tasks, leases, attempts, stage_deltas, history
IN ACCESS SHARE MODE;

-- name: use_standby()#
-- Makes commits wait for a standby from the next reload on.
ALTER SYSTEM SET synchronous_standby_names = '*';

-- name: reload()$
-- Applies changed settings.
SELECT pg_reload_conf();

-- name: synchronous_standbys()$
-- The number of standbys that commits wait for.
SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync';

-- name: checkpoint()#
-- Writes a checkpoint. The process that does so first applies changed settings, and then lets commits wait for standbys.
CHECKPOINT;

-- name: promote()$
-- Makes a standby the primary.
SELECT pg_promote();

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
