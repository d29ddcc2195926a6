-- Run once, possibly while managers are running. Records and counts the jobs that a statement writes all at once, instead
-- of one by one. The meaning of the rows does not change, so managers of the previous version are not affected.

CREATE FUNCTION record_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        WITH recorded AS (
            INSERT INTO history (job_id, target) SELECT id, status FROM after
        )
        INSERT INTO job_totals SELECT status, count(*) FROM after GROUP BY status;
    ELSIF TG_OP = 'UPDATE' THEN
        -- Compared by grouping, not by a join, whose plan could compare every row with every other.
        WITH changed AS MATERIALIZED (
            SELECT id, min(earlier) AS source, min(later) AS target
            FROM (
                SELECT id, status AS earlier, NULL::job_status AS later FROM before
                UNION ALL SELECT id, NULL, status FROM after
            ) AS listed
            GROUP BY id HAVING min(earlier) <> min(later)
        ), recorded AS (
            INSERT INTO history (job_id, source, target) SELECT id, source, target FROM changed
        )
        INSERT INTO job_totals
        SELECT status, sum(jobs)
        FROM (SELECT source AS status, -1 AS jobs FROM changed UNION ALL SELECT target, 1 FROM changed) AS moved
        GROUP BY status HAVING sum(jobs) <> 0;
    ELSE
        -- Fired after the cascade to the stages. A change is recorded by the transaction that writes the row, and a
        -- deletion waits for that transaction, so no row of the history is left behind.
        DELETE FROM history WHERE job_id = ANY (ARRAY(SELECT id FROM before));
        INSERT INTO job_totals SELECT status, -count(*) FROM before GROUP BY status;
    END IF;
    RETURN NULL;
END
$$;

DROP TRIGGER created ON jobs;
DROP TRIGGER moved ON jobs;
DROP TRIGGER counted ON jobs;
DROP TRIGGER counted_anew ON jobs;
DROP FUNCTION record_job();
DROP FUNCTION count_job();
CREATE TRIGGER recorded_insert AFTER INSERT ON jobs REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION record_jobs();
CREATE TRIGGER recorded_update AFTER UPDATE ON jobs REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION record_jobs();
CREATE TRIGGER recorded_delete AFTER DELETE ON jobs REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION record_jobs();

-- Neither the start nor the end of a job changes an indexed column. With room for the new row versions in its page,
-- they change no index either (HOT updates).
ALTER TABLE jobs SET (fillfactor = 50);
