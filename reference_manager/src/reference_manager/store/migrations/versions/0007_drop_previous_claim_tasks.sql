-- The signature before claims had minimal answers. The routines create the present one.
DROP FUNCTION IF EXISTS claim_tasks(text, integer, integer[], text[], interval[]);
