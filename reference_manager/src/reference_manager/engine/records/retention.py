"""The rules of retention: how long ended jobs are kept. They are in the database, so that all managers agree."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from reference_manager.domain.commands import RetentionRule
from reference_manager.store.pool import Database, sql

MAX_AGE: Final = timedelta(days=36_500)
MAX_KEPT: Final = 1000


class RetentionRules:
    """The rules in the database. They are returned in their wire format."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self) -> str:
        """Return all rules as JSON."""
        async with self._database.connection() as connection:
            return await sql.retention_get(connection)

    async def set(self, rules: Mapping[str | None, RetentionRule], *, archive: bool = False) -> str:
        """Replace all rules, and return them as JSON. Jobs are judged by the current time of the database from now on.

        Args:
            rules: The rules by job name; that of None applies to all other jobs.
            archive: Whether a job must be in an archive before it is deleted.
        """
        async with self._database.connection() as connection:
            return await sql.retention_set(
                connection,
                names=[name or "" for name in rules],
                completed=[rule.completed for rule in rules.values()],
                failed=[rule.failed for rule in rules.values()],
                aborted=[rule.aborted for rule in rules.values()],
                kept=[rule.keep_last for rule in rules.values()],
                archive=archive,
            )
