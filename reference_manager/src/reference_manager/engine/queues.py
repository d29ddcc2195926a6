"""Where workers come for tasks and bring back how they went."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

from reference_manager.domain.commands import Claim, Report
from reference_manager.domain.state_machine import Driver
from reference_manager.domain.states import Outcome, TaskStatus
from reference_manager.domain.transitions import TASK
from reference_manager.engine.dispatch.claims import ClaimBatcher, Claimed
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.dispatch.reports import Settlements, Verdict
from reference_manager.engine.errors import NotFoundError, NoWaitingTaskError, ConcurrentChangeError
from reference_manager.store.pool import Database, sql


class TaskQueue:
    """Hands out tasks, by one batcher for each stage type, and takes reports.

    Args:
        database: Where the tasks are.
        notifications: Tell of new work, and are told.
        stale_after: How long a task that was claimed without a lease may take.
    """

    def __init__(self, database: Database, notifications: Notifications, stale_after: timedelta) -> None:
        self._database = database
        self._settlements = Settlements(database, notifications)
        self._without_lease = Claim(None, 1, stale_after)
        self._batchers: dict[str, ClaimBatcher] = {}
        self._closing = False
        notifications.listen(self._wake)

    def claim(self, stage_type: str, claim: Claim | None = None) -> asyncio.Future[Sequence[Claimed]]:
        """Claim tasks of a stage type, one without a lease unless said otherwise; none where none comes in time."""
        batcher = self._batchers.get(stage_type)
        if batcher is None:
            # Clients choose the names of stage types: a batcher stays only while somebody is at it.
            idle = partial(self._batchers.pop, stage_type)
            batcher = self._batchers[stage_type] = ClaimBatcher(self._database, self._settlements, stage_type, idle)
            if self._closing:
                batcher.close()
        return batcher.submit(claim or self._without_lease)

    def settle(self, reports: Sequence[Report]) -> asyncio.Future[Sequence[Verdict]]:
        """Report how attempts ended; what becomes of each, to come. They count even if the caller goes away."""
        return self._settlements.submit(reports)

    def settle_without_lease(self, task_id: UUID, outcome: TaskStatus) -> asyncio.Future[Sequence[Verdict]]:
        """Report a task that was claimed without a lease COMPLETED or FAILED; `reported_task` is what becomes of it."""
        return self._settlements.submit((Report(task_id, None, None, Outcome(outcome)),))

    async def depth(self, stage_type: str) -> str:
        """How many tasks of the type may be claimed, and how many are in progress, as JSON."""
        async with self._database.connection() as connection:
            return await sql.work_depth(connection, type=stage_type)

    @property
    def waiting(self) -> int:
        """How many claims have no answer yet."""
        return sum(batcher.waiting for batcher in self._batchers.values())

    def close(self) -> None:
        """Let nobody wait for work any more: the manager is about to stop."""
        self._closing = True
        for batcher in self._batchers.values():
            batcher.close()

    def _wake(self, stage_type: str | None) -> None:
        if stage_type is None:
            for batcher in self._batchers.values():
                batcher.wake()
        elif batcher := self._batchers.get(stage_type):
            batcher.wake()


def claimed_task(claimed: Sequence[Claimed]) -> str:
    """The task that was claimed, as JSON.

    Raises:
        NoWaitingTaskError: None was.
    """
    if not claimed:
        raise NoWaitingTaskError
    return claimed[0].bodies


def reported_task(verdicts: Sequence[Verdict], outcome: TaskStatus) -> str:
    """The task that was reported without a lease, as JSON.

    Raises:
        NotFoundError: There is no such task.
        IllegalTransitionError: It is not IN_PROGRESS.
        ConcurrentChangeError: It is, but in other hands than the client's.
    """
    (verdict,) = verdicts
    if verdict.body is not None:
        return verdict.body
    if verdict.source is None:
        raise NotFoundError("task")
    TASK.move(verdict.source, outcome, Driver.CLIENT)
    raise ConcurrentChangeError
