"""Drop the claim_tasks function without minimal responses; the routines create the current one."""

from reference_manager.store.scripts import sql_migration

revision, down_revision, upgrade = sql_migration(__file__)
