-- How far a stage or a job is, as a member of its JSON. Read when it is asked for, and kept nowhere: what is completed is in
-- the counts, what is in progress in the leases that tell a fraction, and of those there are no more than work now. Plans
-- are pinned to index walks, as in claim_tasks.

-- fraction: of 1; null: nothing is known. elapsed: since the start; null: it has not begun, does not go on or has ended. What
-- is left takes as long as what is done has taken, in proportion: 30 s for 0.25 leave 30 * 0.75 / 0.25 = 90 s. Cut off, not
-- rounded, so that 1 is only said of what is done.
CREATE OR REPLACE FUNCTION wire_progress(fraction numeric, elapsed interval) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ',"progress":{"fraction":' || trim_scale(share)
        || CASE WHEN elapsed > interval '0' AND share > 0
            THEN ',"etaSeconds":' || trim_scale(trunc(extract(epoch FROM elapsed) * (1 - share) / share, 3)) ELSE ''
        END || '}'
    FROM (SELECT trunc(fraction, 6) AS share) AS cut
$$;

-- The completed tasks, and of each in progress the fraction that it told, of all; null: there are no tasks.
CREATE OR REPLACE FUNCTION stage_fraction(stage stages) RETURNS numeric LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN (stage_completed(stage) + (
        SELECT coalesce(sum(fraction), 0) FROM leases
        WHERE stage_id = stage.id AND fraction IS NOT NULL AND stage.status <> 'ABORTED'
    )) / nullif(stage_total(stage), 0);
END
$$;

CREATE OR REPLACE FUNCTION stage_progress(stage stages) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT wire_progress(
        stage_fraction(stage),
        CASE WHEN stage.status = 'IN_PROGRESS' AND stage.job_open THEN now() - stage.start_time END
    )
$$;

-- The mean of its stages by their weights, one without tasks as not begun.
CREATE OR REPLACE FUNCTION job_progress(job jobs) RETURNS text LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN (
        SELECT wire_progress(
            sum(weight::numeric * coalesce(stage_fraction(stage), 0)) / sum(weight::numeric),
            CASE WHEN job.status = 'IN_PROGRESS' THEN now() - min(start_time) END
        )
        FROM stages AS stage WHERE job_id = job.id
    );
END
$$;
