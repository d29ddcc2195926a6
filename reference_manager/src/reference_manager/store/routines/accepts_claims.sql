-- accepts_claims: whether the waiting tasks of a stage may be claimed. Whatever keeps tasks from being claimed is decided
-- here, for the queue and for the hand-over. PostgreSQL replaces a call by this expression, so that the condition of the
-- index stages_claimable is recognised.
CREATE OR REPLACE FUNCTION accepts_claims(stage stages) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT stage.job_open AND stage.status IN ('PENDING', 'IN_PROGRESS')
$$;
