"""Drop the claim_tasks that has no minimal answers; the routines create its successor."""

from reference_manager.store.scripts import sql_migration

revision, down_revision, upgrade = sql_migration(__file__)
