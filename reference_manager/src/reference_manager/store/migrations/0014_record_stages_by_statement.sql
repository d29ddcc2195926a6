-- Run once, possibly while managers are running. Records and counts the stages that a statement writes all at once,
-- like 0013 for jobs.

CREATE FUNCTION record_stages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        WITH recorded AS (
            INSERT INTO history (job_id, stage_id, target) SELECT job_id, id, status FROM after
        )
        INSERT INTO stage_totals
        SELECT type, priority, status, count(*), sum(pending), sum(in_progress), sum(retried), sum(completed),
            sum(failed), sum(aborted)
        FROM after GROUP BY type, priority, status;
    ELSIF TG_OP = 'UPDATE' THEN
        -- Compared by grouping, not by a join, as in record_jobs.
        WITH recorded AS (
            INSERT INTO history (job_id, stage_id, source, target)
            SELECT job_id, id, min(earlier), min(later)
            FROM (
                SELECT job_id, id, status AS earlier, NULL::stage_status AS later FROM before
                UNION ALL SELECT job_id, id, NULL, status FROM after
            ) AS listed
            GROUP BY job_id, id HAVING min(earlier) <> min(later)
        )
        INSERT INTO stage_totals
        SELECT type, priority, status, sum(stages), sum(stages * pending), sum(stages * in_progress),
            sum(stages * retried), sum(stages * completed), sum(stages * failed), sum(stages * aborted)
        FROM (
            SELECT -1 AS stages, type, priority, status, pending, in_progress, retried, completed, failed, aborted
            FROM before
            UNION ALL
            SELECT 1, type, priority, status, pending, in_progress, retried, completed, failed, aborted FROM after
        ) AS counted
        GROUP BY type, priority, status
        HAVING (
            sum(stages), sum(stages * pending), sum(stages * in_progress), sum(stages * retried),
            sum(stages * completed), sum(stages * failed), sum(stages * aborted)
        ) <> (0, 0, 0, 0, 0, 0, 0);
    ELSE
        INSERT INTO stage_totals
        SELECT type, priority, status, -count(*), -sum(pending), -sum(in_progress), -sum(retried), -sum(completed),
            -sum(failed), -sum(aborted)
        FROM before GROUP BY type, priority, status;
    END IF;
    RETURN NULL;
END
$$;

DROP TRIGGER created ON stages;
DROP TRIGGER moved ON stages;
DROP TRIGGER counted ON stages;
DROP TRIGGER counted_anew ON stages;
DROP FUNCTION record_stage();
DROP FUNCTION count_stage();
CREATE TRIGGER recorded_insert AFTER INSERT ON stages REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION record_stages();
CREATE TRIGGER recorded_update AFTER UPDATE ON stages REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION record_stages();
CREATE TRIGGER recorded_delete AFTER DELETE ON stages REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION record_stages();
