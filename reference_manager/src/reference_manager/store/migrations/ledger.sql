-- Run before the migrations; changes nothing if the tables exist.
CREATE SCHEMA IF NOT EXISTS jobnik;

-- One row: a manager must know this migration to use the database. Migrations that only add leave it as it is; one that
-- removes what earlier versions use raises it. The names of the table and of its column are those of the first version,
-- which refuses to start with any number but its own.
CREATE TABLE IF NOT EXISTS migrations (
    version_num varchar(32) CONSTRAINT migrations_pkc PRIMARY KEY
);

-- The migrations that were run, except those up to migrations.version_num that the first version ran.
CREATE TABLE IF NOT EXISTS applied_migrations (
    number text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);
