"""Add indexes of jobs and tasks by age, for their lists."""

from reference_manager.store.scripts import sql_migration

revision, down_revision, upgrade = sql_migration(__file__)
