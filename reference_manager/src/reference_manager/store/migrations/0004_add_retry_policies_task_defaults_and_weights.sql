-- Run once, possibly while managers are running. Adds columns that managers of the previous version may ignore.

DROP FUNCTION IF EXISTS keep_leases(text, uuid[], bigint[], json[]);

-- The delay after a failed attempt, in its wire format; null: there is no delay.
ALTER TABLE tasks ADD COLUMN retry json;

ALTER TABLE stages
    -- Default options of its tasks, in their wire format; null: there are none.
    ADD COLUMN task_defaults json,
    -- The share of the stage in the progress of its job, relative to the other stages.
    ADD COLUMN weight double precision NOT NULL DEFAULT 1 CHECK (weight > 0);

-- The fraction of the task that its worker has reported as done; null: it has reported none. It is deleted with the
-- lease when the attempt ends. Only leases with a fraction are in the index, so that the others cost no more than
-- before.
ALTER TABLE leases ADD COLUMN fraction numeric(7, 6);
CREATE INDEX leases_with_progress ON leases (stage_id) WHERE fraction IS NOT NULL;
