-- Run once, while managers may be at work: columns that are null, or as before, for whoever does not use them.

DROP FUNCTION IF EXISTS keep_leases(text, uuid[], bigint[], json[]);

-- How long a task waits after a failed attempt, as it goes over the wire; null: it does not.
ALTER TABLE tasks ADD COLUMN retry json;

ALTER TABLE stages
    -- Options for its tasks that do not say them themselves, as they go over the wire; null: none.
    ADD COLUMN task_defaults json,
    -- How much of its job's progress it is, compared with the job's other stages.
    ADD COLUMN weight double precision NOT NULL DEFAULT 1 CHECK (weight > 0);

-- How much of its task an attempt has done, by its worker's word; null: it has not said. It goes when the attempt ends,
-- together with the lease. Only those that tell it are in the index, so that all others cost no more than before.
ALTER TABLE leases ADD COLUMN fraction numeric(7, 6);
CREATE INDEX leases_with_progress ON leases (stage_id) WHERE fraction IS NOT NULL;
