"""Create the tables, types and indexes of jobs, stages and tasks."""

from reference_manager.store.scripts import sql_migration

revision, down_revision, upgrade = sql_migration(__file__)
