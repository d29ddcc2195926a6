"""How many of everything there are and how the database fares, for metrics: the same through whichever manager."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus
from reference_manager.store.pool import Connection, Database, sql

COUNTED = tuple(status for status in TaskStatus if status is not TaskStatus.CREATED)
MOVED = (TaskStatus.PENDING, TaskStatus.RETRIED, TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED)


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """Counts by status; what is not in a mapping is zero."""

    jobs: Mapping[JobStatus, int]
    stages: Mapping[tuple[str, StageStatus], int]
    tasks: Mapping[tuple[str, Priority, TaskStatus], int]
    oldest_waiting: Mapping[str, float]
    """For how many seconds the oldest task of a stage type waits."""
    dead_tuples: Mapping[str, int]
    """By table."""
    oldest_xmin: int
    """How many transactions back vacuum must leave old row versions."""


async def read_statistics(database: Database) -> DatabaseStatistics:
    """Count everything, at one moment."""
    async with database.transaction(snapshot=True) as connection:
        return await read_statistics_of(connection)


async def read_statistics_of(connection: Connection) -> DatabaseStatistics:
    """Count everything, in a transaction with a snapshot."""
    jobs = {JobStatus(row["status"]): row["count"] async for row in sql.metric_jobs(connection)}
    stages = Counter[tuple[str, StageStatus]]()
    tasks = Counter[tuple[str, Priority, TaskStatus]]()
    async for row in sql.metric_stages(connection):
        stages[row["type"], StageStatus(row["status"])] += row["stages"]
        for status in COUNTED:
            tasks[row["type"], Priority(row["priority"]), status] += row[status.lower()]
    async for row in sql.metric_moves(connection):
        for status in MOVED:
            tasks[row["type"], Priority(row["priority"]), status] += row[status.lower()]
    return DatabaseStatistics(
        jobs=jobs,
        stages=stages,
        tasks=tasks,
        oldest_waiting={row["type"]: row["age"] async for row in sql.metric_oldest(connection)},
        dead_tuples={row["name"]: row["count"] async for row in sql.metric_dead_tuples(connection)},
        oldest_xmin=await sql.metric_oldest_xmin(connection),
    )
