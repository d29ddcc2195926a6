"""Remove the rows of deleted jobs later, in small steps."""

from reference_manager.store.scripts import sql_migration

revision, down_revision, upgrade = sql_migration(__file__)
