"""Claims of one stage type: served at once if tasks are waiting, otherwise as soon as some become available.

All claims of a stage type, regardless of their size and format, share one queue. A statement serves claims from the
front of the queue, as many as fit into it. If it finds fewer tasks than these claims request, no task is left for the
claims behind them either, so one statement answers the whole queue. A claim is answered "no task" only after such a
statement.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import structlog

from reference_manager.domain.commands import Claim, Report
from reference_manager.domain.states import Outcome
from reference_manager.engine import metrics
from reference_manager.engine.dispatch.pacing import SMALL, Pacing, take_turns
from reference_manager.store.pool import Connection, Database, Record, sql

log = structlog.stdlib.get_logger(__name__)

BATCH_SIZE = 128
"""The maximum number of tasks in one statement for several claims, for the same reasons as that of reports."""

BYTE_BUDGET = 16 * 1024 * 1024
"""The maximum size of the tasks in one statement, unless it is a single task. It bounds the memory of the manager and
of the worker, and the time during which leases elapse before the response arrives."""

POLL_INTERVAL = timedelta(seconds=1)
"""How often waiting claims look for tasks without a notification, because notifications may get lost."""

FIRST_PAUSE = timedelta(milliseconds=1)
"""The pause after a statement that got nothing because other sessions had locked all waiting tasks. It doubles after
each further such statement, up to ``POLL_INTERVAL``."""

BUSY_TIMEOUT = timedelta(seconds=1)
"""How much longer than requested a claim waits while other sessions have locked all waiting tasks. Sessions that
claim tasks finish within milliseconds; the tasks of a job that is locked for longer do not count as claimable."""

NO_CLAIM = (None,) * 6
"""The arguments of ``claim_tasks`` after the stage type that claim nothing."""

Settle: TypeAlias = Callable[[Sequence[Report]], asyncio.Future[Any]]


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
    """Whether, since the claim arrived, there was a moment without a claimable task for it."""
    reservation: "Reservation | None" = None
    """The transaction that is claiming tasks for it."""


class _Search(NamedTuple):
    """The result of one statement."""

    shares: Sequence[tuple[_Claimant, Sequence[Claimed]]]
    """The claims of the statement, and the tasks that each of them got."""
    claimed: int
    """The number of claimed tasks."""
    exhausted: bool
    """Whether no claimable task was left."""


class ClaimBatcher:
    """Serves all claims of one stage type, in the order in which they arrived, one statement at a time.

    Args:
        database: The database of the tasks.
        pacing: Decides when the statements are sent.
        settle: Settles reports, to release tasks that were claimed for a client that has disconnected.
        stage_type: The stage type.
        on_idle: Called when no claims are left.
    """

    def __init__(
        self, database: Database, pacing: Pacing, settle: Settle, stage_type: str, on_idle: Callable[[], object]
    ) -> None:
        self._database = database
        self._pacing = pacing
        self._settle = settle
        self._stage_type = stage_type
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._claimants: deque[_Claimant] = deque()
        self._changed = asyncio.Event()
        self._closing = False
        self._searching = False
        self._skipped = False
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
        self._pacing.arrive()
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

    def resume(self) -> None:
        """Look for tasks for claims that are no longer reserved, if the reservation prevented a search."""
        if self._skipped:
            self._skipped = False
            self._changed.set()

    def close(self) -> None:
        """Answer waiting claims at once."""
        self._closing = True
        self._changed.set()

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while self._drop_answered():
            self._changed.clear()
            if not self._next_batch(1):
                self._skipped = True
                await self._wait(POLL_INTERVAL)
                continue
            self._searching = True
            await self._pacing.begin(self._size)
            self._changed.clear()
            present = list(self._claimants)
            answered = 0
            try:
                batch = self._next_batch(BATCH_SIZE)
                if not batch:
                    continue
                async with self._database.connection(for_workers=True) as connection:
                    search = await self.search(connection, batch)
                answered = sum(bool(claimed) for _, claimed in search.shares)
            except Exception as error:  # noqa: BLE001 - every error goes to the claims
                # Also to claims outside the batch, which would otherwise wait for one failure after another.
                # Not to claims that a transaction has reserved: it may be claiming tasks for them.
                for claimant in present:
                    if not claimant.reservation and not claimant.future.done():
                        claimant.future.set_exception(error)
                continue
            finally:
                self._pacing.end(answered)
                self._searching = False
            self.deliver(search)
            if search.exhausted:
                for claimant in present:
                    claimant.tried = True
                pause = FIRST_PAUSE
                await self._wait(POLL_INTERVAL)
            elif search.claimed:
                pause = FIRST_PAUSE
                await take_turns()
            else:
                await self._wait(pause)
                pause = min(2 * pause, POLL_INTERVAL)
        self._runner = None
        self._on_idle()

    def _drop_answered(self) -> bool:
        """Forget the claims that have been answered or cancelled. Return whether others are left."""
        self._claimants = deque(claimant for claimant in self._claimants if not claimant.future.done())
        return bool(self._claimants)

    def _size(self) -> int:
        """Return how many tasks the next batch requests, up to the size of a batch that need not wait."""
        return sum(claimant.claim.limit for claimant in self._next_batch(SMALL))

    def _next_batch(self, tasks: int) -> Sequence[_Claimant]:
        """Return the first claims, enough for this many tasks, but not more than one statement serves."""
        batch: list[_Claimant] = []
        limit = 0
        for claimant in self._claimants:
            if claimant.reservation or claimant.future.done():
                continue
            if batch and (limit >= tasks or limit + claimant.claim.limit > BATCH_SIZE):
                break
            limit += claimant.claim.limit
            batch.append(claimant)
        return batch

    @property
    def can_reserve(self) -> bool:
        """Whether a claim waits, and no statement is under way for it."""
        return not self._searching and bool(self._next_batch(1))

    def reserve(self, tasks: int | None = None) -> "Reservation | None":
        """Reserve the first waiting claims, enough for this many new tasks; None: their number is not known.

        Returns:
            The reservation, for the transaction that makes the tasks claimable; None if no claim waits.
        """
        batch = () if self._searching else self._next_batch(tasks or BATCH_SIZE)
        return Reservation(self, batch, tasks) if batch else None

    async def search(self, connection: Connection, batch: Sequence[_Claimant], most: int | None = None) -> _Search:
        """Claim tasks for these claims, up to this many, in the transaction of the connection if there is one."""
        started = perf_counter()
        rows = await connection.fetch(sql.task_claim.sql, self._stage_type, *_arguments(batch, most))
        return self.read(rows, batch, started)

    def read(self, rows: Sequence[Record], batch: Sequence[_Claimant], started: float) -> _Search:
        """Read what ``claim_tasks`` returned for these claims, in a statement that was sent at this time."""
        exhausted = bool(rows) and rows[-1]["more"] is False
        claimed_by: list[list[Claimed]] = [[] for _ in batch]
        count = 0
        newest = 0
        wait = metrics.TASK_WAIT.labels(metrics.label(self._stage_type))
        for row in rows:
            if row["claim"] is None:
                continue
            claimed = Claimed(row["leases"], row["tasks"], row["bodies"], row["context"])
            claimed_by[int(row["claim"]) - 1].append(claimed)
            count += len(claimed.task_ids)
            newest = max(newest, *claimed.lease_ids)
            for seconds in row["waits"]:
                wait.observe(seconds)
        if count:
            self._pacing.count(newest, count)
        metrics.observe_statement(metrics.CLAIM, started, count)
        return _Search(list(zip(batch, claimed_by, strict=True)), count, exhausted)

    def deliver(self, search: _Search) -> None:
        """Answer the claims that got tasks, once these are committed."""
        for claimant, claimed in search.shares:
            if claimed and claimant.future.done():
                release(self._settle, self._stage_type, claimed, claimant.claim.worker_id)
            elif claimed:
                claimant.future.set_result(claimed)

    async def _wait(self, pause: timedelta) -> None:
        """Wait until something has changed, at most for this long, and answer claims whose time is over meanwhile."""
        end = self._loop.time() + pause.total_seconds()
        while not self._changed.is_set():
            next_deadline = self._answer_expired(end)
            now = self._loop.time()
            if now >= end or not self._drop_answered():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(next_deadline - now):
                    await self._changed.wait()
        self._answer_expired(end)

    def _answer_expired(self, end: float) -> float:
        """Answer the claims that may not wait any longer. Return when the next one may not, at most the end."""
        now = self._loop.time()
        for claimant in self._claimants:
            if claimant.reservation or claimant.future.done():
                continue
            deadline = now if self._closing else claimant.deadline
            if not claimant.tried:
                deadline += BUSY_TIMEOUT.total_seconds()
            if deadline <= now:
                claimant.future.set_result(())
            else:
                end = min(end, deadline)
        return end


def release(settle: Settle, stage_type: str, claimed: Sequence[Claimed], worker_id: str | None) -> None:
    """Release tasks whose client has disconnected. If this fails, they return when their leases expire."""
    reports = [
        Report(task_id, None if worker_id is None else lease_id, worker_id, Outcome.RELEASED)
        for tasks in claimed
        for lease_id, task_id in zip(tasks.lease_ids, tasks.task_ids, strict=True)
    ]
    log.info("claim cancelled by the client; tasks released", stage_type=stage_type, tasks=len(reports))
    settle(reports).add_done_callback(_log_failure)


class Reservation:
    """Waiting claims of one stage type, served by the transaction that makes tasks claimable.

    Until the transaction ends, the batcher skips these claims. If they got other tasks meanwhile, those of the
    transaction would have to be released. The transaction makes its reservations last, so one takes about as long as a
    statement of the batcher itself.
    """

    def __init__(self, batcher: ClaimBatcher, claimants: Sequence[_Claimant], tasks: int | None) -> None:
        self._batcher = batcher
        self._claimants = claimants
        self._tasks = tasks
        self._started = perf_counter()
        self._search: _Search | None = None
        for claimant in claimants:
            claimant.reservation = self

    async def claim(self, connection: Connection) -> None:
        """Claim tasks in the transaction of this connection."""
        self._search = await self._batcher.search(connection, self._claimants, self._tasks)

    @property
    def arguments(self) -> Sequence[object]:
        """The arguments of ``claim_tasks`` after the stage type, for a statement that also makes tasks claimable."""
        return _arguments(self._claimants, self._tasks)

    def read(self, rows: Sequence[Record]) -> None:
        """Read what that statement has claimed."""
        self._search = self._batcher.read(rows, self._claimants, self._started)

    @property
    def leaves_tasks(self) -> bool:
        """Whether tasks that have become claimable in this transaction may be left for other claims."""
        search = self._search
        return search is None or not (search.exhausted or search.claimed == self._tasks)

    def end(self, *, committed: bool) -> None:
        """Answer the claims that got tasks. The others continue to wait."""
        for claimant in self._claimants:
            claimant.reservation = None
        if committed and self._search:
            self._batcher.deliver(self._search)
        self._batcher.resume()


def _arguments(batch: Sequence[_Claimant], most: int | None) -> Sequence[object]:
    """Return the arguments of ``claim_tasks`` after the stage type, for these claims and up to this many tasks."""
    *starts, limit = accumulate((claimant.claim.limit for claimant in batch), initial=0)
    return (
        limit if most is None else min(limit, most),
        [start + 1 for start in starts],
        [claimant.claim.worker_id for claimant in batch],
        [claimant.claim.lease for claimant in batch],
        [claimant.claim.minimal for claimant in batch],
        BYTE_BUDGET,
    )


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()):
        log.warning("tasks not released; their leases will expire", exc_info=error)
