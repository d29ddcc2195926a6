-- Retention: which ended jobs are due for deletion, and their deletion in small transactions. The rules and the table
-- `ended_jobs` are in the database, so that all managers agree. Plans are pinned to index scans, as in claim_tasks.
-- Of a name and a status, the due jobs are the oldest: no job that is kept is read more than once in a pass.

-- retention_time: the time by which jobs are judged.
CREATE OR REPLACE FUNCTION retention_time() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT least(clock, now()) FROM retention_state
$$;

-- retention_is_on: whether a rule deletes jobs.
CREATE OR REPLACE FUNCTION retention_is_on() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM retention_rules
        WHERE completed_after IS NOT NULL OR failed_after IS NOT NULL OR aborted_after IS NOT NULL
    )
$$;

-- retention_is_due: whether a rule deletes jobs, and a pass is due. A clock that was set back does not delay it for long.
CREATE OR REPLACE FUNCTION retention_is_due() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT FROM retention_state WHERE next_pass NOT BETWEEN now() AND now() + interval '1 hour')
        AND retention_is_on();
END
$$;

-- advance_retention_clock: moves the clock of retention to the current time, but at most by twice the time that has passed
-- since it had the value `seen`. Null: this manager has not seen it yet. Rows: the clock, and how far it is behind.
CREATE OR REPLACE FUNCTION advance_retention_clock(seen timestamptz, passed interval)
RETURNS TABLE (clock timestamptz, behind interval) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    -- Without `seen`, there is no other time, and greatest ignores null.
    UPDATE retention_state
    SET clock = greatest(clock, CASE WHEN seen IS NOT NULL THEN least(seen + 2 * passed, now()) END)
    RETURNING clock, greatest(now() - clock, interval '0');
END
$$;

-- retention_bounds: for a name, each status whose jobs are deleted, and the first place in their order that is not due: the
-- time and the id. None if all jobs of the name are kept.
CREATE OR REPLACE FUNCTION retention_bounds(of_name text)
RETURNS TABLE (status job_status, ended_at timestamptz, job_id uuid) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    moment CONSTANT timestamptz := retention_time();
    none CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    rule retention_rules;
    kept_at timestamptz;
    kept_id uuid;
BEGIN
    SELECT * INTO rule FROM retention_rules WHERE job_name IN (of_name, '') ORDER BY job_name DESC LIMIT 1;
    IF rule.keep_last > 0 THEN
        SELECT newest.ended_at, newest.job_id INTO kept_at, kept_id FROM unnest(ARRAY['COMPLETED', 'FAILED', 'ABORTED']::job_status[])
            AS of_status, LATERAL (
                SELECT ended_at, job_id FROM ended_jobs WHERE name = of_name AND status = of_status
                ORDER BY name DESC, status DESC, ended_at DESC, job_id DESC LIMIT rule.keep_last
            ) AS newest
        ORDER BY newest.ended_at DESC, newest.job_id DESC OFFSET rule.keep_last - 1 LIMIT 1;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    SELECT bound.status,
        least(bound.before, kept_at), CASE WHEN kept_at < bound.before THEN kept_id ELSE none END
    FROM (VALUES
        ('COMPLETED'::job_status, moment - rule.completed_after),
        ('FAILED', moment - rule.failed_after),
        ('ABORTED', moment - rule.aborted_after)
    ) AS bound (status, before)
    WHERE bound.before IS NOT NULL;
END
$$;

-- due_jobs: looks at up to `names` names from `first_name` on (`again`) or after it, until it finds due jobs. Rows: up to
-- `most` due jobs of each status of the name, except those in `passed`. Before them, for each status of each name, a row
-- without `job_id`: when its oldest job ended, and the number of its due jobs, counted up to 10,000. The last row has only
-- the name that was examined last; null: there are no more names.
CREATE OR REPLACE FUNCTION due_jobs(first_name text, again boolean, passed uuid[], names integer, most integer)
RETURNS TABLE (name text, status job_status, ended_at timestamptz, job_id uuid, due bigint) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    found_due boolean := false;
    bound record;
    current text := first_name;
BEGIN
    FOR turn IN 1 .. names LOOP
        current := CASE WHEN again AND turn = 1
            THEN (SELECT ended.name FROM ended_jobs AS ended WHERE ended.name >= current ORDER BY ended.name LIMIT 1)
            ELSE (SELECT ended.name FROM ended_jobs AS ended WHERE ended.name > current ORDER BY ended.name LIMIT 1)
        END;
        EXIT WHEN current IS NULL;
        FOR bound IN
            SELECT of_status, limits.ended_at, limits.job_id, oldest.ended_at AS oldest
            FROM unnest(ARRAY['COMPLETED', 'FAILED', 'ABORTED']::job_status[]) AS of_status
            CROSS JOIN LATERAL (
                SELECT ended.ended_at FROM ended_jobs AS ended WHERE ended.name = current AND ended.status = of_status
                ORDER BY ended.name, ended.status, ended.ended_at LIMIT 1
            ) AS oldest
            LEFT JOIN retention_bounds(current) AS limits ON limits.status = of_status
        LOOP
            RETURN QUERY
            SELECT current, bound.of_status, bound.oldest::timestamptz, NULL::uuid, (
                SELECT count(*) FROM (
                    SELECT FROM ended_jobs AS ended
                    WHERE ended.name = current AND ended.status = bound.of_status
                        AND (ended.ended_at, ended.job_id) < (bound.ended_at, bound.job_id)
                    LIMIT 10000
                ) AS counted
            );
            RETURN QUERY
            SELECT current, ended.status, ended.ended_at, ended.job_id, NULL::bigint FROM ended_jobs AS ended
            WHERE ended.name = current AND ended.status = bound.of_status
                AND (ended.ended_at, ended.job_id) < (bound.ended_at, bound.job_id)
                AND ended.job_id <> ALL (passed)
            ORDER BY ended.name, ended.status, ended.ended_at, ended.job_id LIMIT most;
            found_due := found_due OR FOUND;
        END LOOP;
        EXIT WHEN found_due;
    END LOOP;
    RETURN QUERY SELECT current, NULL::job_status, NULL::timestamptz, NULL::uuid, NULL::bigint;
END
$$;

-- unchanged_jobs: those of these jobs that still have these prints.
CREATE OR REPLACE FUNCTION unchanged_jobs(ids uuid[], prints bigint[]) RETURNS uuid[] LANGUAGE sql AS $$
    SELECT array_agg(id) FROM unnest(ids, prints) AS archived (id, print) WHERE print = job_print(id)
$$;

-- delete_due_jobs: deletes the first of these jobs, with at most `stages` stages unless a single job has more, if they are
-- still due. Each needs its lock, for which hardly any session waits once the job has ended. Jobs that another session has
-- locked are skipped. The rules cannot change until the transaction ends. `prints` has the print of each job in an archive;
-- a job that has changed since is not deleted. Null: the jobs are in no archive, and are not deleted if they must be. Rows:
-- one with the jobs that were skipped, and the number of deleted jobs by status.
CREATE OR REPLACE FUNCTION delete_due_jobs(
    wanted_ids uuid[], prints bigint[], stages integer, waits boolean,
    OUT busy uuid[], OUT completed bigint, OUT failed bigint, OUT aborted bigint
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    chosen uuid[];
    free uuid[];
    due uuid[];
    unchanged uuid[];
    -- Comparing a job takes a millisecond for a thousand tasks. Large ones are compared before their lock is taken.
    is_large boolean := prints IS NOT NULL AND (SELECT sum(tasks) FROM archive_sizes(wanted_ids)) > 20000;
BEGIN
    IF (SELECT archive AND prints IS NULL FROM retention_state FOR SHARE) THEN
        RETURN;
    END IF;
    IF is_large THEN
        unchanged := unchanged_jobs(wanted_ids, prints);
    END IF;
    chosen := ARRAY(
        SELECT id FROM (
            SELECT id, place, sum(stages_total) OVER (ORDER BY place) AS total
            FROM unnest(wanted_ids) WITH ORDINALITY AS wanted (wanted_id, place), LATERAL (
                SELECT id, stages_total FROM jobs WHERE id = wanted_id OFFSET 0
            ) AS job
        ) AS counted
        WHERE total <= stages OR place = 1
    );
    busy := lock_free_jobs(chosen, waits);
    free := ARRAY(
        SELECT id FROM jobs WHERE id = ANY (chosen) AND id <> ALL (busy) ORDER BY id FOR UPDATE SKIP LOCKED
    );
    busy := busy || ARRAY(SELECT id FROM jobs WHERE id = ANY (chosen) AND id <> ALL (busy) AND id <> ALL (free));
    due := ARRAY(
        SELECT job.id
        FROM (SELECT DISTINCT name FROM jobs WHERE id = ANY (free)) AS listed
        CROSS JOIN LATERAL retention_bounds(listed.name) AS bound
        JOIN jobs AS job ON job.id = ANY (free) AND job.name = listed.name AND job.status = bound.status
        WHERE (job.ended_at, job.id) < (bound.ended_at, bound.job_id)
    );
    IF prints IS NOT NULL THEN
        IF NOT is_large THEN
            unchanged := unchanged_jobs(wanted_ids, prints);
        END IF;
        due := ARRAY(SELECT id FROM unnest(due) AS listed (id) WHERE id = ANY (unchanged));
    END IF;
    WITH deleted AS (
        DELETE FROM jobs WHERE id = ANY (due) RETURNING status
    )
    SELECT count(*) FILTER (WHERE status = 'COMPLETED'), count(*) FILTER (WHERE status = 'FAILED'),
        count(*) FILTER (WHERE status = 'ABORTED')
    INTO completed, failed, aborted FROM deleted;
END
$$;

-- finish_retention_pass: records what a pass saw, and when the next one is due: in a minute, or later if the pass took
-- long, so that passes take at most a twentieth of the time.
CREATE OR REPLACE FUNCTION finish_retention_pass(
    duration interval, completed timestamptz, failed timestamptz, aborted timestamptz, jobs_due bigint
) RETURNS void LANGUAGE sql AS $$
    UPDATE retention_state SET
        next_pass = now() + least(greatest(interval '1 minute', 20 * duration), interval '1 hour'),
        oldest_completed = completed, oldest_failed = failed, oldest_aborted = aborted, due = jobs_due
$$;

-- find_ended_jobs: records the next of the jobs that ended before migration 0020: examines up to `most` jobs, in the order of
-- their creation. Its end is the time of its last change. Returns the number of examined jobs.
CREATE OR REPLACE FUNCTION find_ended_jobs(most integer) RETURNS bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_sort = off AS $$
DECLARE
    place retention_state;
    ids uuid[];
    last jobs;
BEGIN
    SELECT * INTO place FROM retention_state FOR UPDATE;
    IF place.found_to IS NULL THEN
        RETURN 0;
    END IF;
    ids := ARRAY(
        SELECT id FROM jobs WHERE (created_at, seq) > (place.found_to, place.found_seq) ORDER BY created_at, seq LIMIT most
    );
    IF cardinality(ids) = 0 THEN
        UPDATE retention_state SET found_to = NULL;
        RETURN 0;
    END IF;
    WITH found AS (
        UPDATE jobs SET ended_at = updated_at
        WHERE id = ANY (ids) AND ended_at IS NULL AND status IN ('COMPLETED', 'FAILED', 'ABORTED')
        RETURNING name, status, ended_at, id
    )
    INSERT INTO ended_jobs (name, status, ended_at, job_id) SELECT * FROM found ON CONFLICT DO NOTHING;
    SELECT * INTO last FROM jobs WHERE id = ids[cardinality(ids)];
    UPDATE retention_state SET found_to = last.created_at, found_seq = last.seq;
    RETURN cardinality(ids);
END
$$;

-- rule_wire: one rule as JSON. A status whose jobs are kept has null.
CREATE OR REPLACE FUNCTION rule_wire(rule retention_rules) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'completedSeconds', extract(epoch FROM rule.completed_after)::float8,
        'failedSeconds', extract(epoch FROM rule.failed_after)::float8,
        'abortedSeconds', extract(epoch FROM rule.aborted_after)::float8,
        'keepLast', rule.keep_last
    )
$$;

-- retention_wire: the rules as JSON: that of all jobs, then those of names.
CREATE OR REPLACE FUNCTION retention_wire() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'default', (SELECT rule_wire(rule) FROM retention_rules AS rule WHERE job_name = ''),
        'byName', (
            SELECT coalesce(json_object_agg(job_name, rule_wire(rule) ORDER BY job_name), '{}')
            FROM retention_rules AS rule WHERE job_name <> ''
        ),
        'archive', (SELECT archive FROM retention_state)
    )::text
$$;

-- set_retention: replaces all rules. Waits for the transactions that delete jobs by the former rules. Whoever sets the rules
-- accepts the current time, too. Returns the rules as JSON.
CREATE OR REPLACE FUNCTION set_retention(
    names text[], completed interval[], failed interval[], aborted interval[], kept integer[], archived boolean
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE retention_state SET clock = now(), next_pass = now(), archive = archived;
    DELETE FROM retention_rules;
    INSERT INTO retention_rules SELECT * FROM unnest(names, completed, failed, aborted, kept);
    RETURN retention_wire();
END
$$;
