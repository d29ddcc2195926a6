-- create_job: job CREATED → PENDING; stage CREATED → PENDING, WAITING, or it stays CREATED; task CREATED → PENDING.
-- Creates the job with its stages and tasks, only if no other job holds `unique_key`. The job has no stages if `types`
-- is null; otherwise every array has one item for each stage, and those of its tasks are as for insert_tasks. Rows: one
-- with whether the job was created; the job, or the job that holds the key, as JSON (with its stages if stages were
-- given); and the types of the stages that have claimable tasks now. Fails after waiting this long for the key.
-- Plans are pinned to index scans, as in claim_tasks.
CREATE OR REPLACE FUNCTION create_job(
    name text, priority job_priority, data json, user_metadata json, traceparent text, tracestate text,
    unique_key text, unique_for interval,
    types text[], statuses stage_status[], datas json[], metadatas json[], weights double precision[], defaults json[],
    traceparents text[], tracestates text[],
    usual_attempts integer, task_datas json[], task_metadatas json[], task_options json[], wait interval,
    new_job uuid DEFAULT new_id()
) RETURNS TABLE (created boolean, body text, woken text[]) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    stem text := left(new_job::text, 28);
    usual_limit text := current_setting('lock_timeout');
BEGIN
    IF unique_key IS NOT NULL THEN
        PERFORM limit_lock_waits(wait);
        -- If another session is creating a job with the same key, this waits until that session commits or rolls back.
        INSERT INTO job_keys AS held (key, job_id) VALUES (unique_key, new_job)
        ON CONFLICT (key) DO UPDATE SET job_id = EXCLUDED.job_id WHERE NOT holds_key(held.job_id, unique_for);
        IF NOT FOUND THEN
            RETURN QUERY
            SELECT false, job_wire(job, types IS NOT NULL), '{}'::text[]
            FROM jobs AS job WHERE id = (SELECT job_id FROM job_keys WHERE key = unique_key);
            RETURN;
        END IF;
        PERFORM set_config('lock_timeout', usual_limit, true);
    END IF;

    -- One statement, because every statement costs more than a row. The tasks are first: the stages are inserted with
    -- the counts of their tasks.
    RETURN QUERY
    WITH listed AS MATERIALIZED (
        SELECT numbered_id(stem, place) AS id, *
        FROM unnest(types, statuses, datas, metadatas, weights, defaults, traceparents, tracestates) WITH ORDINALITY
            AS given (type, status, data, user_metadata, weight, task_defaults, traceparent, tracestate, place)
    ), tasks AS MATERIALIZED (
        SELECT filled, counts, oldest FROM insert_tasks(
            stem, ARRAY(SELECT id FROM listed ORDER BY place), defaults, usual_attempts, task_datas, task_metadatas,
            task_options, traceparents, tracestates, false
        )
    ), job AS (
        INSERT INTO jobs AS job
            (id, name, status, priority, data, user_metadata, stages_total, traceparent, tracestate)
        VALUES (
            new_job, name, 'PENDING', priority, data, user_metadata, coalesce(cardinality(types), 0), traceparent,
            tracestate
        )
        RETURNING job
    ), stage AS (
        INSERT INTO stages AS stage
            (id, job_id, position, type, status, data, user_metadata, weight, task_defaults, priority, job_open,
            traceparent, tracestate, pending, oldest_waiting)
        SELECT id, new_job, place, type, status, data, user_metadata, weight, task_defaults, priority, true,
            traceparent, tracestate, coalesce(counts[array_position(filled, id)], 0),
            oldest[array_position(filled, id)]
        FROM listed, tasks
        RETURNING position, stage_wire_new(stage) AS body,
            CASE WHEN status = 'PENDING' AND oldest_waiting IS NOT NULL THEN type END AS claimable
    )
    SELECT true,
        job_wire_open(job) || CASE WHEN types IS NOT NULL
            THEN ',"stages":' || (SELECT wire_list(array_agg(body ORDER BY position)) FROM stage) ELSE '' END || '}',
        ARRAY(SELECT claimable FROM stage WHERE claimable IS NOT NULL)
    FROM job;
END
$$;

-- numbered_id: an id that begins with the first 28 characters of another one and ends with the number, as a UUID may (RFC
-- 9562, section 6.2, counters). Generating random bits costs as much as the rest of an insert, so the rows of a
-- statement share them.
CREATE OR REPLACE FUNCTION numbered_id(stem text, number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (stem || lpad(to_hex(number & 4294967295), 8, '0'))::uuid
$$;

-- holds_key: whether a job prevents the creation of others with its key: if it was created less than `unique_for` ago;
-- or, if that is null, until it has ended. Volatile, so that it sees a job for which its caller has waited.
CREATE OR REPLACE FUNCTION holds_key(holder uuid, unique_for interval) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM jobs WHERE id = holder AND CASE
            WHEN unique_for IS NULL THEN status NOT IN ('COMPLETED', 'FAILED', 'ABORTED')
            ELSE created_at > clock_timestamp() - unique_for
        END
    );
END
$$;
