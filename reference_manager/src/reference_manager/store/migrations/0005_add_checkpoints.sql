-- Run once, possibly while managers are running. Adds a column that managers of the previous version may ignore.

DROP FUNCTION IF EXISTS keep_leases(text, uuid[], bigint[], json[]);
DROP FUNCTION IF EXISTS settle_free_tasks(
    uuid[], bigint[], text[], attempt_outcome[], json[], json[], boolean[], interval[]
);
DROP FUNCTION IF EXISTS settle_tasks(
    uuid[], bigint[], text[], attempt_outcome[], json[], json[], boolean[], interval[]
);

-- State that an attempt saved for the next one; null: there is none.
ALTER TABLE tasks ADD COLUMN checkpoint json;
