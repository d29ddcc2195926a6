-- The progress of a stage or a job, as a member of its JSON. Calculated on request and not stored: completed tasks are
-- in the counts, and the fractions of tasks in progress are in their leases, at most one for each task in progress.
-- Plans are pinned to index scans, as in claim_tasks.

-- wire_progress: the member `progress`. `fraction` is from 0 to 1, or null if it is unknown. `elapsed` is the time
-- since the start, or null unless the entity is in progress. The remaining time is proportional: 30 s for 0.25 leave 30
-- * 0.75 / 0.25 = 90 s. The fraction is truncated, not rounded, so that it is 1 only for a finished entity.
CREATE OR REPLACE FUNCTION wire_progress(fraction numeric, elapsed interval) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ',"progress":{"fraction":' || trim_scale(share)
        || CASE WHEN elapsed > interval '0' AND share > 0
            THEN ',"etaSeconds":' || trim_scale(trunc(extract(epoch FROM elapsed) * (1 - share) / share, 3)) ELSE ''
        END || '}'
    FROM (SELECT trunc(fraction, 6) AS share) AS cut
$$;

-- stage_fraction: the completed tasks, plus the reported fractions of the tasks in progress, divided by the number of
-- tasks; null if the stage has no tasks.
CREATE OR REPLACE FUNCTION stage_fraction(stage stages) RETURNS numeric LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN (stage_completed(stage) + (
        SELECT coalesce(sum(fraction), 0) FROM leases
        WHERE stage_id = stage.id AND fraction IS NOT NULL AND stage.status <> 'ABORTED'
    )) / nullif(stage_total(stage), 0);
END
$$;

-- stage_progress: the progress of a stage as a member of its JSON.
CREATE OR REPLACE FUNCTION stage_progress(stage stages) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT wire_progress(
        stage_fraction(stage),
        CASE WHEN stage.status = 'IN_PROGRESS' AND stage.job_open THEN now() - stage.start_time END
    )
$$;

-- job_progress: the mean of the stages by weight. A stage without tasks counts as 0.
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
