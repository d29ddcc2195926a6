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

-- numbered_fits: whether the entities of a page, up to one that ends at this byte, are in the rows.
CREATE OR REPLACE FUNCTION numbered_fits(end_byte bigint) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT end_byte <= 1024 * 1024
$$;

-- number_jobs: a numbered page of jobs, by age.
CREATE OR REPLACE FUNCTION number_jobs(
    of_name text, of_priority job_priority, of_statuses job_status[], of_metadata text[], from_date timestamptz,
    end_date timestamptz, with_stages boolean, descending boolean, skipped bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, total bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    range record;
    earliest CONSTANT timestamptz := coalesce(from_date, '-infinity');
    latest CONSTANT timestamptz := coalesce(end_date, 'infinity');
BEGIN
    SELECT count(*) INTO total FROM jobs AS job
    WHERE job.created_at BETWEEN earliest AND latest
        AND job_listed(job, of_name, of_priority, of_statuses, of_metadata);
    RETURN NEXT;
    SELECT * INTO range FROM numbered_range(total, skipped, wanted, descending);
    RETURN QUERY
        SELECT CASE WHEN numbered_fits(end_byte) THEN wire END,
            CASE WHEN NOT numbered_fits(end_byte) OR has_more THEN id END, total
        FROM (
            SELECT wire, id, has_more, place, sum(octet_length(wire)) OVER (ORDER BY place) AS end_byte
            FROM (
                SELECT job_wire(job, with_stages AND list_inlines((job).stages_total)) AS wire, (job).id AS id,
                    with_stages AND NOT list_inlines((job).stages_total) AS has_more,
                    CASE WHEN descending THEN -number ELSE number END AS place
                FROM (
                    SELECT job, row_number() OVER (ORDER BY job.created_at, job.seq) AS number FROM jobs AS job
                    WHERE job.created_at BETWEEN earliest AND latest
                        AND job_listed(job, of_name, of_priority, of_statuses, of_metadata)
                    ORDER BY job.created_at, job.seq
                    OFFSET range.range_offset LIMIT range.range_limit
                ) AS page
            ) AS written
        ) AS sized
        ORDER BY place;
END
$$;

-- number_stages: a numbered page of stages, by job and position.
CREATE OR REPLACE FUNCTION number_stages(
    of_job uuid, of_type text, of_statuses stage_status[], of_metadata text[], with_tasks boolean, descending boolean,
    skipped bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, total bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    range record;
    first_id CONSTANT uuid := coalesce(of_job, '00000000-0000-0000-0000-000000000000');
    last_id CONSTANT uuid := coalesce(of_job, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
BEGIN
    SELECT count(*) INTO total FROM stages AS stage
    WHERE stage.job_id BETWEEN first_id AND last_id AND stage_listed(stage, of_type, of_statuses, of_metadata);
    RETURN NEXT;
    SELECT * INTO range FROM numbered_range(total, skipped, wanted, descending);
    RETURN QUERY
        SELECT CASE WHEN numbered_fits(end_byte) THEN wire END,
            CASE WHEN NOT numbered_fits(end_byte) OR has_more THEN id END, total
        FROM (
            SELECT wire, id, has_more, place, sum(octet_length(wire)) OVER (ORDER BY place) AS end_byte
            FROM (
                SELECT stage_wire(stage, with_tasks AND list_inlines(stage_total(stage))) AS wire, (stage).id AS id,
                    with_tasks AND NOT list_inlines(stage_total(stage)) AS has_more,
                    CASE WHEN descending THEN -number ELSE number END AS place
                FROM (
                    SELECT stage, row_number() OVER (ORDER BY stage.job_id, stage.position) AS number
                    FROM stages AS stage
                    WHERE stage.job_id BETWEEN first_id AND last_id
                        AND stage_listed(stage, of_type, of_statuses, of_metadata)
                    ORDER BY stage.job_id, stage.position
                    OFFSET range.range_offset LIMIT range.range_limit
                ) AS page
            ) AS written
        ) AS sized
        ORDER BY place;
END
$$;

-- number_tasks: a numbered page of tasks, by age; the tasks of one stage in the order in which they were added.
CREATE OR REPLACE FUNCTION number_tasks(
    of_stage uuid, of_type text, of_statuses task_status[], of_metadata text[], from_date timestamptz,
    end_date timestamptz, descending boolean, skipped bigint, wanted integer
) RETURNS TABLE (body text, parent uuid, total bigint) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
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
    RETURN QUERY
        SELECT CASE WHEN numbered_fits(end_byte) THEN wire END, CASE WHEN NOT numbered_fits(end_byte) THEN id END, total
        FROM (
            SELECT wire, id, place, sum(octet_length(wire)) OVER (ORDER BY place) AS end_byte
            FROM (
                SELECT task_wire(task, aborted) AS wire, (task).id AS id,
                    CASE WHEN descending THEN -number ELSE number END AS place
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
            ) AS written
        ) AS sized
        ORDER BY place;
END
$$;
