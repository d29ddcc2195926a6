-- Sessions: their settings, and what a connection pooler does with them.

-- name: session_configure(names, settings)!
-- Sets settings of this session.
SELECT set_config(name, setting, false) FROM unnest(:names::text[], :settings::text[]) AS given (name, setting);

-- name: session_mark(mark)!
-- Marks this session.
SELECT set_config('jobnik.session_mark', :mark, false);

-- name: session_read_mark()$
-- Returns the mark of this session.
SELECT current_setting('jobnik.session_mark', true);

-- name: transaction_extend(milliseconds)!
-- Lets the statements of this transaction run longer.
SELECT set_config('statement_timeout', :milliseconds, true);

-- name: session_check()^
-- Returns whether the server accepts writes, and whether this session has the manager's settings.
SELECT NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean AS writable,
    current_setting('jobnik.part_a_only', true) IN ('on', 'off') AS configured;
