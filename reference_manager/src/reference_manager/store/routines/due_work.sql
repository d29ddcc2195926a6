-- Whether the maintenance tasks have work: an index scan each, which needs no lock. Every manager asks, all the time.

-- leases_are_due: returns whether a lease has expired.
CREATE OR REPLACE FUNCTION leases_are_due() RETURNS boolean LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN EXISTS (SELECT FROM leases WHERE expires_at <= now());
END
$$;

-- delayed_wait: returns the seconds until the next delayed task is due; at most 0 if one is; null if there is none.
CREATE OR REPLACE FUNCTION delayed_wait() RETURNS double precision LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN (SELECT extract(epoch FROM due - now()) FROM delayed_tasks ORDER BY due LIMIT 1);
END
$$;

-- folding_is_due: returns whether a stage has deltas, or a total has several rows. There are few totals.
CREATE OR REPLACE FUNCTION folding_is_due() RETURNS boolean LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN EXISTS (SELECT FROM stage_deltas)
        OR EXISTS (SELECT FROM job_totals GROUP BY status HAVING count(*) > 1)
        OR EXISTS (SELECT FROM stage_totals GROUP BY type, priority, status HAVING count(*) > 1);
END
$$;
