-- Numbered pages: a page of a list by its number, and the total number of matching entities, both from one snapshot.
-- Rows: first one with the total alone, then the entities of the page, with `total` too. Beyond 1 MiB, `body` is null and
-- `parent` is the id of the entity, which the caller reads later, one at a time.
-- A numbered page costs as much as the whole list, since all matching entities are counted. Clients that can follow
-- links use list_pages.sql instead. Plans are pinned as there.

-- numbered_range: the entities of a page as a range of the ascending list, so that a descending page needs no other
-- scan. For 25 entities, page 1 of 10 in descending order: offset 15, limit 10; page 3: offset 0, limit 5.
CREATE OR REPLACE FUNCTION numbered_range(
    total bigint, skipped bigint, wanted integer, descending boolean, OUT range_offset bigint, OUT range_limit bigint
) LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN descending THEN greatest(total - skipped - wanted, 0) ELSE skipped END,
        CASE WHEN descending THEN greatest(least(total - skipped, wanted), 0) ELSE wanted END
$$;

-- take_numbered: the rows of a page from the cursor `walk`, whose rows have the `id` of the entity, too.
CREATE OR REPLACE FUNCTION take_numbered(walk refcursor, OUT body text, OUT parent uuid)
RETURNS SETOF record LANGUAGE plpgsql STABLE AS $$
DECLARE
    budget CONSTANT integer := 1024 * 1024;
    step record;
    size bigint := 0;
BEGIN
    LOOP
        FETCH walk INTO step;
        EXIT WHEN NOT FOUND;
        size := size + octet_length(step.body);
        body := CASE WHEN size <= budget THEN step.body END;
        parent := CASE WHEN size <= budget THEN step.parent ELSE step.id END;
        RETURN NEXT;
    END LOOP;
    CLOSE walk;
END
$$;

-- number_jobs: a numbered page of jobs, by age.
CREATE OR REPLACE FUNCTION number_jobs(
    of_name text, of_priority job_priority, of_statuses job_status[], of_metadata text[], from_date timestamptz,
    end_date timestamptz, with_stages boolean, descending boolean, skipped bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, total bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    walk refcursor;
    range record;
    earliest CONSTANT timestamptz := coalesce(from_date, '-infinity');
    latest CONSTANT timestamptz := coalesce(end_date, 'infinity');
BEGIN
    SELECT count(*) INTO total FROM jobs AS job
    WHERE job.created_at BETWEEN earliest AND latest
        AND job_listed(job, of_name, of_priority, of_statuses, of_metadata);
    RETURN NEXT;
    SELECT * INTO range FROM numbered_range(total, skipped, wanted, descending);
    OPEN walk NO SCROLL FOR
        SELECT job_wire(job, with_stages AND list_inlines((job).stages_total)) AS body,
            CASE WHEN with_stages AND NOT list_inlines((job).stages_total) THEN (job).id END AS parent, (job).id AS id
        FROM (
            SELECT job, row_number() OVER (ORDER BY job.created_at, job.seq) AS number FROM jobs AS job
            WHERE job.created_at BETWEEN earliest AND latest
                AND job_listed(job, of_name, of_priority, of_statuses, of_metadata)
            ORDER BY job.created_at, job.seq
            OFFSET range.range_offset LIMIT range.range_limit
        ) AS page
        ORDER BY CASE WHEN descending THEN -number ELSE number END;
    RETURN QUERY SELECT page.body, page.parent, total FROM take_numbered(walk) AS page;
END
$$;

-- number_stages: a numbered page of stages, by job and position.
CREATE OR REPLACE FUNCTION number_stages(
    of_job uuid, of_type text, of_statuses stage_status[], of_metadata text[], with_tasks boolean, descending boolean,
    skipped bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, total bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    walk refcursor;
    range record;
    first_id CONSTANT uuid := coalesce(of_job, '00000000-0000-0000-0000-000000000000');
    last_id CONSTANT uuid := coalesce(of_job, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
BEGIN
    SELECT count(*) INTO total FROM stages AS stage
    WHERE stage.job_id BETWEEN first_id AND last_id AND stage_listed(stage, of_type, of_statuses, of_metadata);
    RETURN NEXT;
    SELECT * INTO range FROM numbered_range(total, skipped, wanted, descending);
    OPEN walk NO SCROLL FOR
        SELECT stage_wire(stage, with_tasks AND list_inlines(stage_total(stage))) AS body,
            CASE WHEN with_tasks AND NOT list_inlines(stage_total(stage)) THEN (stage).id END AS parent,
            (stage).id AS id
        FROM (
            SELECT stage, row_number() OVER (ORDER BY stage.job_id, stage.position) AS number
            FROM stages AS stage
            WHERE stage.job_id BETWEEN first_id AND last_id
                AND stage_listed(stage, of_type, of_statuses, of_metadata)
            ORDER BY stage.job_id, stage.position
            OFFSET range.range_offset LIMIT range.range_limit
        ) AS page
        ORDER BY CASE WHEN descending THEN -number ELSE number END;
    RETURN QUERY SELECT page.body, page.parent, total FROM take_numbered(walk) AS page;
END
$$;

-- number_tasks: a numbered page of tasks, by age; the tasks of one stage in the order in which they were added.
CREATE OR REPLACE FUNCTION number_tasks(
    of_stage uuid, of_type text, of_statuses task_status[], of_metadata text[], from_date timestamptz,
    end_date timestamptz, descending boolean, skipped bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, total bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    walk refcursor;
    range record;
    earliest CONSTANT timestamptz := coalesce(from_date, '-infinity');
    latest CONSTANT timestamptz := coalesce(end_date, 'infinity');
BEGIN
    IF of_stage IS NOT NULL THEN
        SELECT count(*) INTO total
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
        WHERE task.stage_id = of_stage
            AND task.created_at BETWEEN earliest AND latest
            AND task_listed(task, stage, of_type, of_statuses, of_metadata);
    ELSE
        SELECT count(*) INTO total
        FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
        WHERE task.created_at BETWEEN earliest AND latest
            AND task_listed(task, stage, of_type, of_statuses, of_metadata);
    END IF;
    RETURN NEXT;
    SELECT * INTO range FROM numbered_range(total, skipped, wanted, descending);
    OPEN walk NO SCROLL FOR
        SELECT task_wire(task, aborted) AS body, NULL::uuid AS parent, (task).id AS id
        FROM (
            (
                SELECT task, aborted_at(stage) AS aborted, row_number() OVER (ORDER BY task.seq) AS number
                FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
                WHERE task.stage_id = of_stage
                    AND task.created_at BETWEEN earliest AND latest
                    AND task_listed(task, stage, of_type, of_statuses, of_metadata)
                ORDER BY task.seq
                OFFSET range.range_offset LIMIT range.range_limit
            ) UNION ALL (
                SELECT task, aborted_at(stage) AS aborted,
                    row_number() OVER (ORDER BY task.created_at, task.seq) AS number
                FROM tasks AS task JOIN stages AS stage ON stage.id = ANY (ARRAY[task.stage_id])
                WHERE of_stage IS NULL
                    AND task.created_at BETWEEN earliest AND latest
                    AND task_listed(task, stage, of_type, of_statuses, of_metadata)
                ORDER BY task.created_at, task.seq
                OFFSET range.range_offset LIMIT range.range_limit
            )
        ) AS page
        ORDER BY CASE WHEN descending THEN -number ELSE number END;
    RETURN QUERY SELECT page.body, page.parent, total FROM take_numbered(walk) AS page;
END
$$;
