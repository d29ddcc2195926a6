-- Run once. Drops the signature without minimal responses. The routines create the current one.
DROP FUNCTION IF EXISTS claim_tasks(text, integer, integer[], text[], interval[]);
