-- Lists, read a page at a time. Each statement is one index scan of bounded length, regardless of the filters and the
-- size of the tables. Rows: the entities as JSON, in the order of the list; then, unless the list has ended, one row
-- without `body`, whose (major, minor) is the sort key after which the next page begins. Without that last row, no
-- further entity matches.
-- Filters that an index supports bound the scan. The others (name, status, type, metadata) are checked during the scan:
-- it yields every row that it passes, with a null `body` if the entity does not match, and take_page counts both kinds.
-- A descending list scans the same index backwards.
--
-- The sort columns never change, so that no entity is skipped or listed twice while others write.
-- Plans are pinned: with the alternatives switched off, a scan of the sorted index is the only plan left, regardless of
-- the statistics. Each scan has at most one bound at either end: with two lower bounds, PostgreSQL could begin at the
-- lower one and read every row up to the other.

-- take_page: reads a page from the cursor `walk` of a scan: until it has `wanted` entities or `budget` bytes of them,
-- or has passed `reach` rows. The argument `major` only sets the type of that column in the scan; its value is null.
CREATE OR REPLACE FUNCTION take_page(
    walk refcursor, wanted integer, INOUT major anyelement, OUT minor bigint, OUT body text, OUT parent uuid
) RETURNS SETOF record LANGUAGE plpgsql STABLE AS $$
DECLARE
    reach CONSTANT integer := 20000;
    budget CONSTANT integer := 1024 * 1024;
    step record;
    taken integer := 0;
    size bigint := 0;
BEGIN
    FOR passed IN 0 .. reach LOOP
        FETCH walk INTO step;
        EXIT WHEN NOT FOUND;
        IF passed = reach OR (step.body IS NOT NULL AND (taken = wanted OR size >= budget)) THEN
            body := NULL;
            parent := NULL;
            RETURN NEXT;
            EXIT;
        END IF;
        body := step.body;
        parent := step.parent;
        major := step.major;
        minor := step.minor;
        IF body IS NOT NULL THEN
            RETURN NEXT;
            taken := taken + 1;
            size := size + octet_length(body);
        END IF;
    END LOOP;
    CLOSE walk;
END
$$;

-- list_inlines: whether an entity with this number of children contains them in its body, if they are requested.
-- Otherwise, `parent` is the id of the entity, and the caller adds the children a page at a time.
CREATE OR REPLACE FUNCTION list_inlines(children bigint) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT children <= 20
$$;

-- list_jobs: a page of jobs, by age.
CREATE OR REPLACE FUNCTION list_jobs(
    of_name text, of_priority job_priority, of_statuses job_status[], of_metadata text[], from_date timestamptz,
    end_date timestamptz, with_stages boolean, descending boolean, after_time timestamptz, after_seq bigint,
    wanted integer
) RETURNS TABLE (body text, parent uuid, major timestamptz, minor bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off AS $$
DECLARE
    walk refcursor;
    last_seq CONSTANT bigint := 9223372036854775807;
BEGIN
    IF descending THEN
        IF end_date < coalesce(after_time, 'infinity') THEN
            after_time := end_date;
            after_seq := last_seq;
        END IF;
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN job_listed(job, of_name, of_priority, of_statuses, of_metadata)
                    THEN job_wire(job, with_stages AND list_inlines(job.stages_total))
                END AS body,
                CASE WHEN with_stages AND NOT list_inlines(job.stages_total) THEN job.id END AS parent,
                job.created_at AS major, job.seq AS minor
            FROM jobs AS job
            WHERE (job.created_at, job.seq) < (coalesce(after_time, 'infinity'), coalesce(after_seq, last_seq))
                AND job.created_at >= coalesce(from_date, '-infinity')
            ORDER BY job.created_at DESC, job.seq DESC;
    ELSE
        IF from_date > coalesce(after_time, '-infinity') THEN
            after_time := from_date;
            after_seq := 0;
        END IF;
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN job_listed(job, of_name, of_priority, of_statuses, of_metadata)
                    THEN job_wire(job, with_stages AND list_inlines(job.stages_total))
                END AS body,
                CASE WHEN with_stages AND NOT list_inlines(job.stages_total) THEN job.id END AS parent,
                job.created_at AS major, job.seq AS minor
            FROM jobs AS job
            WHERE (job.created_at, job.seq) > (coalesce(after_time, '-infinity'), coalesce(after_seq, 0))
                AND job.created_at <= coalesce(end_date, 'infinity')
            ORDER BY job.created_at, job.seq;
    END IF;
    RETURN QUERY SELECT page.body, page.parent, page.major, page.minor
        FROM take_page(walk, wanted, NULL::timestamptz) AS page;
END
$$;

-- list_stages: a page of stages, by job and position.
CREATE OR REPLACE FUNCTION list_stages(
    of_job uuid, of_type text, of_statuses stage_status[], of_metadata text[], end_date timestamptz,
    with_tasks boolean, descending boolean, after_job uuid, after_position bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, major uuid, minor bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off AS $$
DECLARE
    walk refcursor;
    first_id CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    last_id CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    last_position CONSTANT bigint := 9223372036854775807;
BEGIN
    IF descending THEN
        IF of_job < coalesce(after_job, last_id) THEN
            after_job := of_job;
            after_position := last_position;
        END IF;
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN stage_listed(stage, of_type, of_statuses, of_metadata)
                        AND stage.created_at <= coalesce(end_date, 'infinity')
                    THEN stage_wire(stage, with_tasks AND list_inlines(stage_total(stage)))
                END AS body,
                CASE WHEN with_tasks AND NOT list_inlines(stage_total(stage)) THEN stage.id END AS parent,
                stage.job_id AS major, stage.position::bigint AS minor
            FROM stages AS stage
            WHERE (stage.job_id, stage.position)
                    < (coalesce(after_job, last_id), coalesce(after_position, last_position))
                AND stage.job_id >= coalesce(of_job, first_id)
            ORDER BY stage.job_id DESC, stage.position DESC;
    ELSE
        IF of_job > coalesce(after_job, first_id) THEN
            after_job := of_job;
            after_position := 0;
        END IF;
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN stage_listed(stage, of_type, of_statuses, of_metadata)
                        AND stage.created_at <= coalesce(end_date, 'infinity')
                    THEN stage_wire(stage, with_tasks AND list_inlines(stage_total(stage)))
                END AS body,
                CASE WHEN with_tasks AND NOT list_inlines(stage_total(stage)) THEN stage.id END AS parent,
                stage.job_id AS major, stage.position::bigint AS minor
            FROM stages AS stage
            WHERE (stage.job_id, stage.position) > (coalesce(after_job, first_id), coalesce(after_position, 0))
                AND stage.job_id <= coalesce(of_job, last_id)
            ORDER BY stage.job_id, stage.position;
    END IF;
    RETURN QUERY SELECT page.body, page.parent, page.major, page.minor
        FROM take_page(walk, wanted, NULL::uuid) AS page;
END
$$;

-- list_tasks: a page of tasks, by age; the tasks of one stage in the order in which they were added. The stage is
-- selected with = ANY (array), as in claim_tasks: with a plain join, a plan made when there were no stages would scan
-- all of them for each task. Tasks of a deleted stage match nothing, but the scan yields them, so that it stays bounded.
CREATE OR REPLACE FUNCTION list_tasks(
    of_stage uuid, of_type text, of_statuses task_status[], of_metadata text[], from_date timestamptz,
    end_date timestamptz, descending boolean, after_time timestamptz, after_seq bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, major timestamptz, minor bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off AS $$
DECLARE
    walk refcursor;
    last_seq CONSTANT bigint := 9223372036854775807;
BEGIN
    IF of_stage IS NOT NULL AND descending THEN
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN task_listed(task, stage, of_type, of_statuses, of_metadata)
                        AND task.created_at >= coalesce(from_date, '-infinity')
                        AND task.created_at <= coalesce(end_date, 'infinity')
                    THEN task_wire(task, aborted_at(stage))
                END AS body,
                NULL::uuid AS parent, task.created_at AS major, task.seq AS minor
            FROM tasks AS task LEFT JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
            WHERE task.stage_id = of_stage AND task.seq < coalesce(after_seq, last_seq)
            ORDER BY task.seq DESC;
    ELSIF of_stage IS NOT NULL THEN
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN task_listed(task, stage, of_type, of_statuses, of_metadata)
                        AND task.created_at >= coalesce(from_date, '-infinity')
                        AND task.created_at <= coalesce(end_date, 'infinity')
                    THEN task_wire(task, aborted_at(stage))
                END AS body,
                NULL::uuid AS parent, task.created_at AS major, task.seq AS minor
            FROM tasks AS task LEFT JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
            WHERE task.stage_id = of_stage AND task.seq > coalesce(after_seq, 0)
            ORDER BY task.seq;
    ELSIF descending THEN
        IF end_date < coalesce(after_time, 'infinity') THEN
            after_time := end_date;
            after_seq := last_seq;
        END IF;
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN task_listed(task, stage, of_type, of_statuses, of_metadata)
                    THEN task_wire(task, aborted_at(stage))
                END AS body,
                NULL::uuid AS parent, task.created_at AS major, task.seq AS minor
            FROM tasks AS task LEFT JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
            WHERE (task.created_at, task.seq) < (coalesce(after_time, 'infinity'), coalesce(after_seq, last_seq))
                AND task.created_at >= coalesce(from_date, '-infinity')
            ORDER BY task.created_at DESC, task.seq DESC;
    ELSE
        IF from_date > coalesce(after_time, '-infinity') THEN
            after_time := from_date;
            after_seq := 0;
        END IF;
        OPEN walk NO SCROLL FOR
            SELECT CASE WHEN task_listed(task, stage, of_type, of_statuses, of_metadata)
                    THEN task_wire(task, aborted_at(stage))
                END AS body,
                NULL::uuid AS parent, task.created_at AS major, task.seq AS minor
            FROM tasks AS task LEFT JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
            WHERE (task.created_at, task.seq) > (coalesce(after_time, '-infinity'), coalesce(after_seq, 0))
                AND task.created_at <= coalesce(end_date, 'infinity')
            ORDER BY task.created_at, task.seq;
    END IF;
    RETURN QUERY SELECT page.body, page.parent, page.major, page.minor
        FROM take_page(walk, wanted, NULL::timestamptz) AS page;
END
$$;

-- list_workers: a page of the workers that sent a heartbeat within the last hour, by id. Each call makes a new plan,
-- because the plan depends on whether there is a bound.
CREATE OR REPLACE FUNCTION list_workers(descending boolean, after_id text, wanted integer)
RETURNS TABLE (body text, parent uuid, major text, minor bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off AS $$
DECLARE
    walk refcursor;
BEGIN
    IF descending THEN
        OPEN walk NO SCROLL FOR
            SELECT worker_wire(worker) AS body, NULL::uuid AS parent, worker.id AS major, 0::bigint AS minor
            FROM workers AS worker
            WHERE seen_at >= now() - interval '1 hour' AND (after_id IS NULL OR worker.id < after_id)
            ORDER BY worker.id DESC;
    ELSE
        OPEN walk NO SCROLL FOR
            SELECT worker_wire(worker) AS body, NULL::uuid AS parent, worker.id AS major, 0::bigint AS minor
            FROM workers AS worker
            WHERE seen_at >= now() - interval '1 hour' AND (after_id IS NULL OR worker.id > after_id)
            ORDER BY worker.id;
    END IF;
    RETURN QUERY SELECT page.body, page.parent, page.major, page.minor
        FROM take_page(walk, wanted, NULL::text) AS page;
END
$$;
