"""Statistics of the database for metrics: counts, ages and the state of vacuum. Every manager reports the same."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus
from reference_manager.store.pool import Connection, Database, sql

_COUNTED_STATUSES = tuple(status for status in TaskStatus if status is not TaskStatus.CREATED)
_MOVED_STATUSES = (TaskStatus.PENDING, TaskStatus.RETRIED, TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED)
"""The statuses that ``stage_deltas`` counts."""

_ENDED_STATUSES = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ABORTED)


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """Statistics of the database. A count that is missing from a mapping is zero."""

    jobs: Mapping[JobStatus, int]
    stages: Mapping[tuple[str, StageStatus], int]
    tasks: Mapping[tuple[str, Priority, TaskStatus], int]
    oldest_waiting: Mapping[str, float]
    """How long the oldest claimable task of each stage type has been waiting, in seconds."""
    maintenance_lag: Mapping[str, float]
    """For how long the oldest work of each maintenance task has been due, in seconds; 0 if there is none."""
    dead_tuples: Mapping[str, int]
    """Row versions that vacuum has not removed yet, by table, as estimated by PostgreSQL."""
    oldest_xmin: int
    """The age of the oldest transaction that keeps vacuum from removing row versions, in transactions."""
    oldest_ended: Mapping[JobStatus, float]
    """For how long the oldest job of each status has been kept since its end, in seconds."""
    retention_due: int
    """The number of jobs that the last pass of retention found due."""
    retention_behind: float
    """How far the clock of retention is behind that of the database, in seconds."""


async def read_statistics(database: Database) -> DatabaseStatistics:
    """Read the statistics in one snapshot of the database."""
    async with database.transaction(snapshot=True) as connection:
        return await read_statistics_of(connection)


async def read_statistics_of(connection: Connection) -> DatabaseStatistics:
    """Read the statistics on a connection whose transaction has a snapshot."""
    jobs = {JobStatus(row["status"]): row["count"] async for row in sql.metric_jobs(connection)}
    stages = Counter[tuple[str, StageStatus]]()
    tasks = Counter[tuple[str, Priority, TaskStatus]]()
    async for row in sql.metric_stages(connection):
        stages[row["type"], StageStatus(row["status"])] += row["stages"]
        for status in _COUNTED_STATUSES:
            tasks[row["type"], Priority(row["priority"]), status] += row[status.lower()]
    async for row in sql.metric_moves(connection):
        for status in _MOVED_STATUSES:
            tasks[row["type"], Priority(row["priority"]), status] += row[status.lower()]
    retention = await sql.metric_retention(connection)
    return DatabaseStatistics(
        jobs=jobs,
        stages=stages,
        tasks=tasks,
        oldest_waiting={row["type"]: row["age"] async for row in sql.metric_oldest(connection)},
        maintenance_lag={row["name"]: row["lag"] async for row in sql.metric_maintenance_lag(connection)},
        dead_tuples={row["name"]: row["count"] async for row in sql.metric_dead_tuples(connection)},
        oldest_xmin=await sql.metric_oldest_xmin(connection),
        oldest_ended={status: retention[status.lower()] or 0 for status in _ENDED_STATUSES},
        retention_due=retention["due"],
        retention_behind=retention["behind"],
    )
