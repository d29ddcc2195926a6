-- Run once, while managers may be at work: a column that is null for whoever does not use it.

DROP FUNCTION IF EXISTS keep_leases(text, uuid[], bigint[], json[]);
DROP FUNCTION IF EXISTS settle_free_tasks(uuid[], bigint[], text[], attempt_outcome[], json[], json[], boolean[], interval[]);
DROP FUNCTION IF EXISTS settle_tasks(uuid[], bigint[], text[], attempt_outcome[], json[], json[], boolean[], interval[]);

-- What an attempt has left for the next one; null: nothing.
ALTER TABLE tasks ADD COLUMN checkpoint json;
