-- Pages of attempts and of status changes. Rows: as in list_pages.sql, with bounded scans and pinned plans as there.

-- attempts_of: attempts of a task from `first_lease` on (null: all), in the order of their leases or, if `descending`,
-- in the reverse order: those in the table of attempts, and the current or last one, which is stored in the task itself.
-- `source` and `target` are the status of the task before and after the attempt; `target` is null while it is in
-- progress, and if it was aborted.
CREATE OR REPLACE FUNCTION attempts_of(
    task tasks, aborted timestamptz, descending boolean, first_lease bigint, wanted integer
) RETURNS TABLE (
    lease_id bigint, worker_id text, source task_status, target task_status, outcome text, error json,
    start_time timestamptz, end_time timestamptz
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    lowest CONSTANT bigint := CASE WHEN descending THEN 0 ELSE coalesce(first_lease, 0) END;
    highest CONSTANT bigint := CASE WHEN descending THEN coalesce(first_lease, 9223372036854775807)
        ELSE 9223372036854775807 END;
BEGIN
    RETURN QUERY
        SELECT listed.* FROM (
            (
                SELECT lease_id, worker_id, source, target, outcome::text, error, start_time, end_time FROM attempts
                WHERE NOT descending AND (task_id, lease_id) >= (task.id, lowest) AND task_id <= task.id
                ORDER BY task_id, lease_id LIMIT wanted
            ) UNION ALL (
                SELECT lease_id, worker_id, source, target, outcome::text, error, start_time, end_time FROM attempts
                WHERE descending AND (task_id, lease_id) <= (task.id, highest) AND task_id >= task.id
                ORDER BY task_id DESC, lease_id DESC LIMIT wanted
            ) UNION ALL
            SELECT task.lease_id, task.worker_id,
                CASE WHEN task.attempts - (task.status = 'FAILED')::integer > 0 THEN 'RETRIED' ELSE 'PENDING'
                    END::task_status,
                CASE WHEN task.status IN ('COMPLETED', 'FAILED') THEN task.status END,
                coalesce(task.outcome::text, CASE WHEN task_status(task, aborted) = 'ABORTED' THEN 'ABORTED' END),
                -- While an attempt runs, the task still has the error of the previous one.
                CASE WHEN task.outcome IS NOT NULL THEN task.error END,
                task.start_time, coalesce(task.end_time, aborted)
            WHERE task.lease_id BETWEEN lowest AND highest
                AND NOT EXISTS (SELECT FROM attempts WHERE lease_id = task.lease_id)
        ) AS listed
        ORDER BY CASE WHEN descending THEN -listed.lease_id ELSE listed.lease_id END LIMIT wanted;
END
$$;

-- list_attempts: a page of the attempts of a task, numbered from the first; the sort key is the lease and the number.
CREATE OR REPLACE FUNCTION list_attempts(
    of_task uuid, descending boolean, after_lease bigint, after_number bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, major bigint, minor bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    walk refcursor;
    step CONSTANT integer := CASE WHEN descending THEN -1 ELSE 1 END;
BEGIN
    IF after_number IS NULL THEN
        after_number := CASE WHEN descending
            THEN 1 + (SELECT count(*) FROM attempts WHERE task_id = of_task)
                + (SELECT count(*) FROM tasks AS task WHERE id = of_task AND task.lease_id IS NOT NULL
                    AND NOT EXISTS (SELECT FROM attempts WHERE lease_id = task.lease_id))
            ELSE 0 END;
    END IF;
    OPEN walk NO SCROLL FOR
        SELECT attempt_wire(
                after_number + step * place, attempt.lease_id, attempt.worker_id, attempt.start_time, attempt.end_time,
                attempt.outcome, attempt.error
            ) AS body,
            NULL::uuid AS parent, attempt.lease_id AS major, after_number + step * place AS minor
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id]),
            attempts_of(task, aborted_at(stage), descending, after_lease + step, wanted + 1)
            WITH ORDINALITY AS attempt (
                lease_id, worker_id, source, target, outcome, error, start_time, end_time, place
            )
        WHERE task.id = of_task;
    RETURN QUERY SELECT page.body, page.parent, page.major, page.minor
        FROM take_page(walk, wanted, NULL::bigint) AS page;
END
$$;

-- list_task_history: the attempts of a task from `first_lease` on, as of attempts_of; with the error's type, with when the
-- task was created and aborted (null: it was not), and with its status before the abort. One row with a null lease if
-- there are no such attempts; none if there is no such task.
CREATE OR REPLACE FUNCTION list_task_history(of_task uuid, descending boolean, first_lease bigint, wanted integer)
RETURNS TABLE (
    created_at timestamptz, aborted_at timestamptz, status_before task_status, lease_id bigint, worker_id text,
    source task_status, target task_status, outcome text, error_type text, start_time timestamptz,
    end_time timestamptz
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    of_tasks record;
BEGIN
    SELECT task, aborted_at(stage) AS aborted INTO of_tasks
    FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id]) WHERE task.id = of_task;
    created_at := (of_tasks.task).created_at;
    IF task_status(of_tasks.task, of_tasks.aborted) = 'ABORTED' THEN
        aborted_at := coalesce((of_tasks.task).end_time, of_tasks.aborted);
    END IF;
    status_before := coalesce(
        (SELECT target FROM attempts WHERE lease_id = (of_tasks.task).lease_id),
        CASE WHEN (of_tasks.task).lease_id IS NULL THEN 'PENDING' ELSE 'IN_PROGRESS' END::task_status
    );
    RETURN QUERY
        SELECT list_task_history.created_at, list_task_history.aborted_at, list_task_history.status_before,
            attempt.lease_id, attempt.worker_id, attempt.source, attempt.target, attempt.outcome,
            attempt.error ->> 'type', attempt.start_time, attempt.end_time
        FROM (SELECT) AS once
        LEFT JOIN attempts_of(of_tasks.task, of_tasks.aborted, descending, first_lease, wanted) AS attempt ON true
        WHERE (of_tasks.task).id IS NOT NULL;
END
$$;

-- list_changes: a page of the status changes of a job or, if a stage is given, of that stage. The body has no author
-- and no reason; the manager adds them (engine/records/history.py).
CREATE OR REPLACE FUNCTION list_changes(
    of_job uuid, of_stage uuid, descending boolean, after_id bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, major bigint, minor bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off AS $$
DECLARE
    walk refcursor;
BEGIN
    IF descending THEN
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN change.stage_id IS NOT DISTINCT FROM of_stage THEN change_fields(change) END AS body,
                NULL::uuid AS parent, change.id AS major, 0::bigint AS minor
            FROM history AS change
            WHERE (change.job_id, change.id) < (of_job, coalesce(after_id, 9223372036854775807))
                AND change.job_id >= of_job
            ORDER BY change.job_id DESC, change.id DESC;
    ELSE
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN change.stage_id IS NOT DISTINCT FROM of_stage THEN change_fields(change) END AS body,
                NULL::uuid AS parent, change.id AS major, 0::bigint AS minor
            FROM history AS change
            WHERE (change.job_id, change.id) > (of_job, coalesce(after_id, 0)) AND change.job_id <= of_job
            ORDER BY change.job_id, change.id;
    END IF;
    RETURN QUERY SELECT page.body, page.parent, page.major, page.minor
        FROM take_page(walk, wanted, NULL::bigint) AS page;
END
$$;
