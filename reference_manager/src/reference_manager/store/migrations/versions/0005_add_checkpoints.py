"""Add checkpoints: state that an attempt saves for the next one."""

from reference_manager.store.scripts import sql_migration

revision, down_revision, upgrade = sql_migration(__file__)
