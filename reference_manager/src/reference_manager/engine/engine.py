"""The engine: everything that the manager does, apart from the API."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from reference_manager.archive.stores import Archive
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.errors import DatabaseUnavailableError
from reference_manager.engine.maintenance.aborted_tasks import AbortedTasks
from reference_manager.engine.maintenance.counter_folding import CounterFolding
from reference_manager.engine.maintenance.delayed_tasks import DelayedTasks
from reference_manager.engine.maintenance.deleted_jobs import DeletedJobs
from reference_manager.engine.maintenance.idempotency_keys import IdempotencyKeys
from reference_manager.engine.maintenance.lease_sweeper import LeaseSweeper
from reference_manager.engine.maintenance.retention import Retention
from reference_manager.engine.maintenance.stale_workers import StaleWorkers
from reference_manager.engine.queues import TaskQueue
from reference_manager.engine.records.history import History
from reference_manager.engine.records.jobs import Jobs
from reference_manager.engine.records.retention import RetentionRules
from reference_manager.engine.records.stages import Stages
from reference_manager.engine.records.tasks import Tasks
from reference_manager.engine.statistics import DatabaseStatistics, read_statistics
from reference_manager.engine.supervision import BackgroundTask, stalled
from reference_manager.engine.workers import Workers
from reference_manager.store.lock_waits import may_wait
from reference_manager.store.migrate import record_use
from reference_manager.store.pool import Database

CHECK_TIMEOUT = timedelta(seconds=4)
"""How long a check of the database may take. A Kubernetes probe of the chart waits for 5 s."""


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
        archive: Where retention puts jobs before it deletes them, if the rules ask for it; None: there is no archive.
        others: Further background tasks to run.
    """

    def __init__(
        self,
        database: Database,
        *,
        stale_after: timedelta,
        archive: Archive | None = None,
        others: Iterable[BackgroundTask] = (),
    ) -> None:
        self.database = database
        self.notifications = Notifications()
        self.queue = TaskQueue(database, self.notifications, stale_after)
        self.jobs = Jobs(database, self.queue.handover)
        self.stages = Stages(database, self.queue.handover)
        self.tasks = Tasks(database, self.queue.handover)
        self.workers = Workers(database, self.queue)
        self.history = History(database)
        self.retention = RetentionRules(database)
        self.maintenance = (
            LeaseSweeper(self.queue.handover),
            DelayedTasks(self.queue.handover),
            CounterFolding(),
            AbortedTasks(),
            DeletedJobs(),
            StaleWorkers(),
            IdempotencyKeys(),
            Retention(archive),
        )
        self.background_tasks = (
            BackgroundTask("sender of notifications", partial(self.notifications.send, database)),
            BackgroundTask("receiver of notifications", partial(self.notifications.receive, database)),
            BackgroundTask("record of the routines in use", partial(record_use, database)),
            *(BackgroundTask(task.name, partial(task.run, database)) for task in self.maintenance),
            *others,
        )

    async def check_database(self) -> None:
        """Raise DatabaseError unless claims and reports would work now."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT.total_seconds()):
                await self.database.check()
        except TimeoutError as error:
            raise DatabaseUnavailableError(f"no answer within {CHECK_TIMEOUT.seconds} s") from error

    def stalled_tasks(self) -> list[str]:
        """Return the names of the background tasks that have made no progress for so long that they never will."""
        return stalled(self.background_tasks)

    async def database_statistics(self) -> DatabaseStatistics:
        """Count jobs, stages and tasks in one snapshot of the database."""
        return await read_statistics(self.database)

    def manager_statistics(self) -> ManagerStatistics:
        """Return the current statistics of this manager."""
        return ManagerStatistics(self.queue.waiting, *self.database.connections, self.notifications.received)

    async def run(self) -> None:
        """Exchange notifications and run the maintenance tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            for task in self.background_tasks:
                group.create_task(task.supervise())


def ask_before_waiting(permission: Callable[[], bool]) -> None:
    """Ask for permission before a command of the current request waits for a lock of another session.

    Args:
        permission: Returns whether the command may wait. Otherwise, it soon fails with DatabaseBusyError.
    """
    may_wait.set(permission)
