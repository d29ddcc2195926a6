"""Add retry policies, defaults of task options, weights of stages and the progress of leases."""

from reference_manager.store.scripts import sql_migration

revision, down_revision, upgrade = sql_migration(__file__)
