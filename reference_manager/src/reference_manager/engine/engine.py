"""The engine: everything that the manager does, apart from the API."""

import asyncio
from datetime import timedelta
from typing import NamedTuple

from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.maintenance.aborted_tasks import AbortedTasks
from reference_manager.engine.maintenance.counter_folding import CounterFolding
from reference_manager.engine.maintenance.delayed_tasks import DelayedTasks
from reference_manager.engine.maintenance.deleted_jobs import DeletedJobs
from reference_manager.engine.maintenance.lease_sweeper import LeaseSweeper
from reference_manager.engine.maintenance.stale_workers import StaleWorkers
from reference_manager.engine.queues import TaskQueue
from reference_manager.engine.records.history import History
from reference_manager.engine.records.jobs import Jobs
from reference_manager.engine.records.stages import Stages
from reference_manager.engine.records.tasks import Tasks
from reference_manager.engine.statistics import DatabaseStatistics, read_statistics
from reference_manager.engine.workers import Workers
from reference_manager.store.pool import Database, sql


class ManagerStatistics(NamedTuple):
    """The current statistics of this manager."""

    claims_waiting: int
    """Claims without a response yet."""
    connections_used: int
    connections_idle: int
    notifications_arrive: bool
    """Whether this manager receives notifications of new work."""


class Engine:
    """The records, the queue, the workers, the history and the maintenance tasks of one manager.

    Args:
        database: A migrated database, which must stay open for as long as the engine is used.
        stale_after: How long a task that was claimed without a lease may take.
    """

    def __init__(self, database: Database, *, stale_after: timedelta) -> None:
        self.database = database
        self.notifications = Notifications()
        self.jobs = Jobs(database, self.notifications)
        self.stages = Stages(database, self.notifications)
        self.tasks = Tasks(database, self.notifications)
        self.queue = TaskQueue(database, self.notifications, stale_after)
        self.workers = Workers(database, self.queue)
        self.history = History(database)
        self.maintenance = (
            LeaseSweeper(self.notifications),
            DelayedTasks(self.notifications),
            CounterFolding(),
            AbortedTasks(),
            DeletedJobs(),
            StaleWorkers(),
        )

    async def check_database(self) -> None:
        """Raise DatabaseError unless the database answers."""
        # Use the workers' pool: requests that wait for a locked job cannot occupy it, so the manager stays ready.
        async with self.database.connection(for_workers=True) as connection:
            await sql.database_ping(connection)

    async def database_statistics(self) -> DatabaseStatistics:
        """Count jobs, stages and tasks in one snapshot of the database."""
        return await read_statistics(self.database)

    def manager_statistics(self) -> ManagerStatistics:
        """Return the current statistics of this manager."""
        return ManagerStatistics(self.queue.waiting, *self.database.connections, self.notifications.received)

    async def run(self) -> None:
        """Exchange notifications and run the maintenance tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.notifications.run(self.database))
            for task in self.maintenance:
                group.create_task(task.run(self.database))
