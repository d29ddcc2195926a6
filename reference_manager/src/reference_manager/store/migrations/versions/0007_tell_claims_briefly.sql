-- What it had before the claimed tasks could be told briefly.
DROP FUNCTION IF EXISTS claim_tasks(text, integer, integer[], text[], interval[]);
