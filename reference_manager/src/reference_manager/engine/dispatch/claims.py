"""Hands out the tasks of one stage type: at once where there are some, else as soon as some come."""

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

BATCH = 128
"""The most tasks in one statement for several claimants: as many as reports, and for the same reasons."""

POLL_INTERVAL = timedelta(seconds=1)
"""How often somebody who waits looks for tasks that nobody told of."""


class Claimed(NamedTuple):
    """Tasks of one stage in their worker's hands."""

    lease_ids: Sequence[int]
    task_ids: Sequence[UUID]
    bodies: str
    """The tasks as JSON, with commas between them."""
    context: str | None
    """What is to be known of their stage and their job, as JSON; None: they have no leases."""


@dataclass(slots=True, eq=False)
class _Claimant:
    claim: Claim
    until: float
    future: asyncio.Future[Sequence[Claimed]]
    tried: bool = False


class ClaimBatcher:
    """One statement at a time serves all who wait for a stage type, in the order in which they came.

    Args:
        database: Where the tasks are.
        settlements: Takes back what was claimed for somebody who has gone away.
        stage_type: Of which tasks.
        on_idle: Called when nobody waits any more.
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
        """Claim tasks; those that were got, to come. Whoever cancels it has gone away: what was his is handed back."""
        future: asyncio.Future[Sequence[Claimed]] = self._loop.create_future()
        self._claimants.append(_Claimant(claim, self._loop.time() + claim.wait.total_seconds(), future))
        self._changed.set()
        if self._runner is None:
            # In no request's context: it serves others than the one that starts it.
            self._runner = asyncio.create_task(self._run(), context=Context())
        return future

    @property
    def waiting(self) -> int:
        """How many have no answer yet."""
        return len(self._claimants)

    def wake(self) -> None:
        """There may be tasks now."""
        self._changed.set()

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._closing = True
        self._changed.set()

    async def _run(self) -> None:
        while batch := self._next_batch():
            self._changed.clear()
            try:
                exhausted = await self._serve(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the claimants' answer
                for claimant in batch:
                    if not claimant.future.done():
                        claimant.future.set_exception(error)
                continue
            self._answer_expired()
            if exhausted and self._claimants:
                await self._wait_for_change()
                self._answer_expired()
            elif self._claimants:
                # One turn of the event loop: whoever has come by now is served together.
                await asyncio.sleep(0)
        self._runner = None
        self._on_idle()

    def _next_batch(self) -> Sequence[_Claimant]:
        """Those who came first, as many as one statement serves and told alike; without those who have gone away."""
        self._claimants = deque(claimant for claimant in self._claimants if not claimant.future.done())
        batch: list[_Claimant] = []
        wanted = 0
        for claimant in self._claimants:
            wanted += claimant.claim.limit
            if batch and (wanted > BATCH or claimant.claim.minimal != batch[0].claim.minimal):
                break
            batch.append(claimant)
        return batch

    async def _serve(self, batch: Sequence[_Claimant]) -> bool:
        """Claim for these; whether there were fewer tasks than they wanted."""
        *starts, wanted = accumulate((claimant.claim.limit for claimant in batch), initial=0)
        got = [list[Claimed]() for _ in batch]
        for claimant in batch:
            claimant.tried = True
        async with self._database.connection(for_workers=True) as connection:
            began = perf_counter()
            rows = await connection.fetch(
                sql.task_claim.sql,
                self._stage_type,
                wanted,
                [start + 1 for start in starts],
                [claimant.claim.worker_id for claimant in batch],
                [claimant.claim.lease for claimant in batch],
                batch[0].claim.minimal,
            )
        others_are_busy = any(row["claimant"] is None for row in rows)
        taken = 0
        if rows and not others_are_busy:
            wait = metrics.TASK_WAIT.labels(metrics.label(self._stage_type))
            for claimant, lease_ids, task_ids, bodies, waits, context in rows:
                got[int(claimant) - 1].append(Claimed(lease_ids, task_ids, bodies, context))
                taken += len(waits)
                for waited in waits:
                    wait.observe(waited)
        metrics.observe_statement(metrics.CLAIM, began, taken)
        for claimant, claimed in zip(batch, got, strict=True):
            if claimed and claimant.future.done():
                self._hand_back(claimed, claimant.claim.worker_id)
            elif claimed:
                claimant.future.set_result(claimed)
        return taken < wanted and not others_are_busy

    def _answer_expired(self) -> None:
        """Those for whom there was nothing and whose time is up go."""
        now = self._loop.time()
        for claimant in self._claimants:
            if not claimant.future.done() and claimant.tried and (self._closing or claimant.until <= now):
                claimant.future.set_result(())
        self._claimants = deque(claimant for claimant in self._claimants if not claimant.future.done())

    async def _wait_for_change(self) -> None:
        earliest = min(claimant.until for claimant in self._claimants)
        timeout = min(earliest - self._loop.time(), POLL_INTERVAL.total_seconds())
        try:
            async with asyncio.timeout(max(timeout, 0)):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _hand_back(self, claimed: Sequence[Claimed], worker_id: str | None) -> None:
        """Return what nobody is there to take; should this fail, the leases bring it back."""
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
