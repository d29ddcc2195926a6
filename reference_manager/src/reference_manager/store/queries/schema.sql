-- name: routines_known()$
-- Returns whether the database has sets of routines.
SELECT to_regclass('jobnik.routine_sets') IS NOT NULL;

-- name: routines_use(name, latest)$
-- Records that this set of routines is in use. Returns true if this version may use the database, which has the set and
-- therefore all of its migrations; null otherwise. The lock of the row excludes routines_drop_unused.
UPDATE jobnik.routine_sets SET used_at = now()
WHERE name = :name AND to_regnamespace(name) IS NOT NULL
    AND (SELECT version_num FROM jobnik.migrations) <= :latest
RETURNING true;

-- name: migration_begin(lock_timeout, key)!
-- Begins a step of the migration, in the current transaction. Only one manager at a time does one.
WITH settings AS MATERIALIZED (
    SELECT set_config('search_path', 'jobnik', true), set_config('lock_timeout', :lock_timeout, true),
        set_config('statement_timeout', '0', true)
)
SELECT pg_advisory_xact_lock(:key) FROM settings;

-- name: migration_required()$
-- Returns the number of the migration that a manager must know; the empty string on a new database.
SELECT coalesce(max(version_num), '') FROM migrations;

-- name: migration_pending(number)$
-- Returns whether a migration has not been run.
SELECT NOT EXISTS (
    SELECT FROM migrations WHERE version_num >= :number
    UNION ALL SELECT FROM applied_migrations AS applied WHERE applied.number = :number
);

-- name: migration_record(number)!
-- Records that a migration was run.
INSERT INTO applied_migrations (number) VALUES (:number);

-- name: migration_require(number)!
-- Sets the migration that a manager must know.
WITH changed AS (UPDATE migrations SET version_num = :number RETURNING version_num)
INSERT INTO migrations SELECT :number WHERE NOT EXISTS (SELECT FROM changed);

-- name: index_choose(index, table)!
-- Chooses an index and its table for index_drop_invalid, in the current transaction.
SELECT set_config('jobnik.index', :index, true), set_config('jobnik.table', :table, true);

-- name: index_drop_invalid()#
-- Drops the index if an interrupted build left it invalid. An index that is being built is invalid, too, but its builder
-- locks the table.
DO $$
BEGIN
    EXECUTE format('LOCK TABLE %I IN SHARE UPDATE EXCLUSIVE MODE', current_setting('jobnik.table'));
    IF EXISTS (
        SELECT FROM pg_index WHERE indexrelid = to_regclass(current_setting('jobnik.index')) AND NOT indisvalid
    ) THEN
        EXECUTE format('DROP INDEX %I', current_setting('jobnik.index'));
    END IF;
END
$$;

-- name: index_exists(index)$
-- Returns whether an index exists.
SELECT to_regclass(:index) IS NOT NULL;

-- name: routines_choose(name)!
-- Chooses the set of routines for routines_create and routines_drop_unused, in the current transaction.
SELECT set_config('jobnik.routines', :name, true);

-- name: routines_create()#
-- Creates the schema of the set. The following statements of the transaction create the routines in it.
DO $$
DECLARE
    chosen text := current_setting('jobnik.routines');
BEGIN
    EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', chosen);
    EXECUTE format('CREATE SCHEMA %I', chosen);
    INSERT INTO routine_sets (name) VALUES (chosen) ON CONFLICT (name) DO UPDATE SET used_at = now();
    PERFORM set_config('search_path', format('%I, jobnik', chosen), true);
END
$$;

-- name: routines_drop_unused()#
-- Drops the sets that no manager has used for 30 days, except the most recently used one besides this set: if the clock
-- jumps, every set seems unused.
DO $$
DECLARE
    chosen text := current_setting('jobnik.routines');
    unused text;
BEGIN
    FOR unused IN
        DELETE FROM routine_sets
        WHERE name <> chosen AND used_at < now() - interval '30 days'
            AND used_at < (SELECT max(used_at) FROM routine_sets WHERE name <> chosen)
        RETURNING name
    LOOP
        EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', unused);
    END LOOP;
END
$$;
