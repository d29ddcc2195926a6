"""Add leases, attempts, history and workers; move waiting tasks to a separate table."""

from reference_manager.store.scripts import sql_migration

revision, down_revision, upgrade = sql_migration(__file__)
