"""How many of everything there are, for metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus
from reference_manager.store.database import Database, sql


@dataclass(frozen=True, slots=True)
class Census:
    """Counts by status; what is not in a mapping is zero."""

    jobs: Mapping[JobStatus, int]
    stages: Mapping[tuple[str, StageStatus], int]
    tasks: Mapping[tuple[str, Priority, TaskStatus], int]


async def take_census(database: Database) -> Census:
    """Count everything, at one moment."""
    async with database.transaction(snapshot=True) as connection:
        return Census(
            jobs={JobStatus(row["status"]): row["count"] async for row in sql.metric_jobs(connection)},
            stages={
                (row["type"], StageStatus(row["status"])): row["count"] async for row in sql.metric_stages(connection)
            },
            tasks={
                (row["type"], Priority(row["priority"]), TaskStatus(row["status"])): row["count"]
                async for row in sql.metric_tasks(connection)
            },
        )
