"""The task queue: claims and reports of workers."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

from reference_manager.domain.commands import Claim, Report
from reference_manager.domain.state_machine import Driver
from reference_manager.domain.states import Outcome, TaskStatus
from reference_manager.domain.transitions import TASK
from reference_manager.engine.dispatch.claims import ClaimBatcher, Claimed, release
from reference_manager.engine.dispatch.handover import Handover
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.dispatch.pacing import Pacing
from reference_manager.engine.dispatch.reports import Settlements, Verdict
from reference_manager.engine.errors import ConcurrentChangeError, NotFoundError, NoWaitingTaskError
from reference_manager.store.pool import Database, sql


class TaskQueue:
    """Serves claims, with one batcher for each stage type, and settles reports.

    Args:
        database: The database of the tasks.
        notifications: Wakes waiting claims, and announces tasks that return to the queue.
        stale_after: How long a task that was claimed without a lease may take.
    """

    def __init__(self, database: Database, notifications: Notifications, stale_after: timedelta) -> None:
        self._database = database
        self._batchers: dict[str, ClaimBatcher] = {}
        self.handover = Handover(database, self._batchers, notifications)
        """Starts transactions that may make tasks claimable."""
        self._pacing = Pacing()
        self._settlements = Settlements(database, self.handover, self._pacing)
        self._without_lease = Claim(None, 1, stale_after)
        self._closing = False
        notifications.listen(self._wake)

    def claim(self, stage_type: str, claim: Claim | None = None) -> asyncio.Future[Sequence[Claimed]]:
        """Claim tasks of a stage type.

        Args:
            stage_type: The stage type.
            claim: What to claim. None: one task without a lease, without waiting.

        Returns:
            A future of the claimed tasks; empty if none became available in time. Cancelling it releases the tasks.
        """
        batcher = self._batchers.get(stage_type)
        if batcher is None:
            # Clients choose the names of stage types, so a batcher exists only while it has claims.
            remove = partial(self._batchers.pop, stage_type)
            batcher = ClaimBatcher(self._database, self._pacing, self.settle, stage_type, remove)
            self._batchers[stage_type] = batcher
            if self._closing:
                batcher.close()
        return batcher.submit(claim or self._without_lease)

    def release(self, stage_type: str, claim: Claim | None, claimed: Sequence[Claimed]) -> None:
        """Release tasks of a claim, because its client has disconnected."""
        if claimed:
            release(self.settle, stage_type, claimed, claim.worker_id if claim else None)

    def settle(self, reports: Sequence[Report]) -> asyncio.Future[Sequence[Verdict]]:
        """Settle reports. Returns a future of one verdict for each report; cancelling it does not undo the reports."""
        return self._settlements.submit(reports)

    def settle_partial(self, reports: Sequence[Report]) -> asyncio.Future[Sequence[Verdict | Exception | None]]:
        """Like ``settle``, but a report may have an error or no verdict while others have theirs.

        Returns:
            A future of one result for each report: see ``Settlements.submit_partial``.
        """
        return self._settlements.submit_partial(reports)

    def settle_without_lease(self, task_id: UUID, outcome: TaskStatus) -> asyncio.Future[Sequence[Verdict]]:
        """Report a task that was claimed without a lease.

        Args:
            task_id: The task.
            outcome: COMPLETED or FAILED.

        Returns:
            A future whose result ``reported_task`` converts to the task.
        """
        return self._settlements.submit((Report(task_id, None, None, Outcome(outcome)),))

    async def depth(self, stage_type: str) -> str:
        """Count the claimable tasks of a stage type and its tasks in progress, as JSON."""
        async with self._database.connection() as connection:
            return await sql.work_depth(connection, type=stage_type)

    @property
    def waiting(self) -> int:
        """The number of claims without a response yet."""
        return sum(batcher.waiting for batcher in self._batchers.values())

    def close(self) -> None:
        """Answer waiting claims at once, because the manager is about to stop. Later claims do not wait either."""
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
    """Return the one task that was claimed, as JSON.

    Raises:
        NoWaitingTaskError: No task was claimed.
    """
    if not claimed:
        raise NoWaitingTaskError
    return claimed[0].bodies


def reported_task(verdicts: Sequence[Verdict], outcome: TaskStatus) -> str:
    """Return the one task that was reported without a lease, as JSON.

    Args:
        verdicts: The verdict on the report.
        outcome: The reported status.

    Raises:
        NotFoundError: There is no such task.
        IllegalTransitionError: The task is not IN_PROGRESS.
        ConcurrentChangeError: The task is IN_PROGRESS, but not for this client.
    """
    (verdict,) = verdicts
    if verdict.body is not None:
        return verdict.body
    if verdict.source is None:
        raise NotFoundError("task")
    TASK.move(verdict.source, outcome, Driver.CLIENT)
    raise ConcurrentChangeError
