"""Claims of one stage type: served at once if tasks are waiting, otherwise as soon as some become available."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from time import perf_counter
from typing import NamedTuple
from uuid import UUID

import structlog

from reference_manager.domain.commands import Claim, Report
from reference_manager.domain.states import Outcome
from reference_manager.engine import metrics
from reference_manager.engine.dispatch.reports import Settlements, Verdict
from reference_manager.store.pool import Database, sql

log = structlog.stdlib.get_logger(__name__)

BATCH_SIZE = 128
"""The maximum number of tasks in one statement for several claimants, for the same reasons as that of reports."""

POLL_INTERVAL = timedelta(seconds=1)
"""How often waiting claims look for tasks without a notification, because notifications may get lost."""


class Claimed(NamedTuple):
    """Claimed tasks of one stage."""

    lease_ids: Sequence[int]
    task_ids: Sequence[UUID]
    bodies: str
    """The tasks as JSON, separated by commas."""
    context: str | None
    """Their stage and their job as JSON; None for tasks without leases."""


@dataclass(slots=True, eq=False)
class _Claimant:
    claim: Claim
    deadline: float
    future: asyncio.Future[Sequence[Claimed]]
    tried: bool = False


class ClaimBatcher:
    """Serves all claims of one stage type, in the order in which they arrived, one statement at a time.

    Args:
        database: The database of the tasks.
        settlements: Releases tasks that were claimed for a client that has disconnected.
        stage_type: The stage type.
        on_idle: Called when no claims are left.
    """

    def __init__(
        self, database: Database, settlements: Settlements, stage_type: str, on_idle: Callable[[], object]
    ) -> None:
        self._database = database
        self._settlements = settlements
        self._stage_type = stage_type
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._claimants: deque[_Claimant] = deque()
        self._changed = asyncio.Event()
        self._closing = False
        self._runner: asyncio.Task[None] | None = None

    def submit(self, claim: Claim) -> asyncio.Future[Sequence[Claimed]]:
        """Claim tasks.

        Returns:
            A future of the claimed tasks; empty if none became available in time. If it is cancelled, tasks that were
            claimed for it are released.
        """
        future: asyncio.Future[Sequence[Claimed]] = self._loop.create_future()
        self._claimants.append(_Claimant(claim, self._loop.time() + claim.wait.total_seconds(), future))
        self._changed.set()
        if self._runner is None:
            # An empty context: the task serves many requests, not only the one that starts it.
            self._runner = asyncio.create_task(self._run(), context=Context())
        return future

    @property
    def waiting(self) -> int:
        """The number of claims without a response yet."""
        return len(self._claimants)

    def wake(self) -> None:
        """Look for tasks again, because there may be some now."""
        self._changed.set()

    def close(self) -> None:
        """Answer waiting claims at once."""
        self._closing = True
        self._changed.set()

    async def _run(self) -> None:
        while batch := self._next_batch():
            self._changed.clear()
            try:
                exhausted = await self._serve(batch)
            except Exception as error:  # noqa: BLE001 - every error goes to the claimants
                for claimant in batch:
                    if not claimant.future.done():
                        claimant.future.set_exception(error)
                continue
            self._answer_expired()
            if exhausted and self._claimants:
                await self._wait_for_change()
                self._answer_expired()
            elif self._claimants:
                # Let the event loop read from the sockets once, so that those claims join the next batch.
                await asyncio.sleep(0)
        self._runner = None
        self._on_idle()

    def _next_batch(self) -> Sequence[_Claimant]:
        """Return the first claimants, as many as one statement serves with the same kind of response."""
        self._claimants = deque(claimant for claimant in self._claimants if not claimant.future.done())
        batch: list[_Claimant] = []
        limit = 0
        for claimant in self._claimants:
            limit += claimant.claim.limit
            if batch and (limit > BATCH_SIZE or claimant.claim.minimal != batch[0].claim.minimal):
                break
            batch.append(claimant)
        return batch

    async def _serve(self, batch: Sequence[_Claimant]) -> bool:
        """Claim tasks for these claimants. Return whether there were fewer than requested."""
        *starts, limit = accumulate((claimant.claim.limit for claimant in batch), initial=0)
        claimed_by = [list[Claimed]() for _ in batch]
        for claimant in batch:
            claimant.tried = True
        async with self._database.connection(for_workers=True) as connection:
            started = perf_counter()
            rows = await connection.fetch(
                sql.task_claim.sql,
                self._stage_type,
                limit,
                [start + 1 for start in starts],
                [claimant.claim.worker_id for claimant in batch],
                [claimant.claim.lease for claimant in batch],
                batch[0].claim.minimal,
            )
        contended = any(row["claimant"] is None for row in rows)
        count = 0
        if rows and not contended:
            wait = metrics.TASK_WAIT.labels(metrics.label(self._stage_type))
            for number, lease_ids, task_ids, bodies, waits, context in rows:
                claimed_by[int(number) - 1].append(Claimed(lease_ids, task_ids, bodies, context))
                count += len(waits)
                for seconds in waits:
                    wait.observe(seconds)
        metrics.observe_statement(metrics.CLAIM, started, count)
        for claimant, claimed in zip(batch, claimed_by, strict=True):
            if claimed and claimant.future.done():
                self._release(claimed, claimant.claim.worker_id)
            elif claimed:
                claimant.future.set_result(claimed)
        return count < limit and not contended

    def _answer_expired(self) -> None:
        """Answer the claims that found no tasks and may not wait any longer."""
        now = self._loop.time()
        for claimant in self._claimants:
            if not claimant.future.done() and claimant.tried and (self._closing or claimant.deadline <= now):
                claimant.future.set_result(())
        self._claimants = deque(claimant for claimant in self._claimants if not claimant.future.done())

    async def _wait_for_change(self) -> None:
        earliest = min(claimant.deadline for claimant in self._claimants)
        timeout = min(earliest - self._loop.time(), POLL_INTERVAL.total_seconds())
        try:
            async with asyncio.timeout(max(timeout, 0)):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _release(self, claimed: Sequence[Claimed], worker_id: str | None) -> None:
        """Release tasks whose client has disconnected. If this fails, they return when their leases expire."""
        reports = [
            Report(task_id, None if worker_id is None else lease_id, worker_id, Outcome.RELEASED)
            for tasks in claimed
            for lease_id, task_id in zip(tasks.lease_ids, tasks.task_ids, strict=True)
        ]
        log.info("claim cancelled by the client; tasks released", stage_type=self._stage_type, tasks=len(reports))
        self._settlements.submit(reports).add_done_callback(_log_failure)


def _log_failure(future: asyncio.Future[Sequence[Verdict]]) -> None:
    if not future.cancelled() and (error := future.exception()):
        log.warning("tasks not released; their leases will expire", exc_info=error)
