"""Maintenance of many jobs, where a problem with one job does not delay the others.

A pass looks for pending work of all jobs, takes a limited share of each job, and does it in small transactions. A job
that another session has locked is skipped. So is a job whose work fails because of its data, a locked row, or a
statement that takes too long.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import ClassVar
from uuid import UUID

import asyncpg
import structlog

from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, Record

log = structlog.stdlib.get_logger(__name__)

LOCKED_PAUSE = timedelta(milliseconds=200)
"""How long a job is skipped after its lock was not free."""
LONGEST_PAUSE = timedelta(minutes=1)
"""The longest time that a job is skipped after failures. The time begins with a second and doubles each time."""
FORGET_AFTER = timedelta(minutes=5)
"""How long a problem is remembered after the job is no longer skipped, in case it has no pending work then."""

REST = 9
"""The rest after a transaction that deletes rows, as a multiple of its duration. Nobody waits for the transaction, but
claims and reports need the same processors and disks."""
LONGEST_REST = timedelta(seconds=1)

_SERVER_ERRORS = ("08", "25", "53", "57P", "58")
"""Beginnings of the error codes of PostgreSQL for lost connections, a read-only server, exhausted resources, a shutdown
and system errors. A round ends with them."""


@dataclass(slots=True)
class _Problem:
    """What kept the work of one job from being done."""

    passes: int = 0
    """The number of passes in which its lock was not free."""
    wait_at: int = 1
    """After this number of passes, the maintenance task waits for the lock. It doubles after each unsuccessful wait."""
    failures: int = 0
    """The number of times that its work failed."""
    retry_at: float = 0.0
    """When to try again, by ``monotonic``."""


class JobMaintenance(MaintenanceTask):
    """A maintenance task whose work belongs to jobs.

    It takes the lock of a job only if the lock is free. If sessions that complete tasks share the lock one after
    another, it might never be free. After the work of the other jobs, a pass therefore waits for the lock of one job,
    until the ``lock_timeout`` of the connection: the first time at once, and less and less often if the job stays
    locked.
    """

    batch_size: ClassVar[int] = 1
    """The maximum number of rows that one transaction works on."""

    def __init__(self) -> None:
        super().__init__()
        self._problems: dict[UUID, _Problem] = {}

    @abstractmethod
    async def pending(self, connection: Connection, passed: Sequence[UUID]) -> Sequence[Record]:
        """Return pending work of all jobs but those in ``passed``, a share of each: rows with the ``job_id``."""

    @abstractmethod
    async def work(
        self, connection: Connection, rows: Sequence[Record], *, waits: bool
    ) -> tuple[int, Collection[UUID]]:
        """Do the work of these rows in one transaction.

        Args:
            connection: The connection to use.
            rows: Rows that ``pending`` returned.
            waits: Whether to wait for the locks of jobs. Otherwise, locked jobs are skipped.

        Returns:
            The amount of work, and the jobs that were skipped.
        """

    async def round(self, connection: Connection) -> int:
        """Work in passes until only skipped jobs have pending work."""
        total = 0
        while rows := await self.pending(connection, self._skipped()):
            skipped = set(self._skipped())
            done = await self._pass(connection, rows)
            total += done
            if not done and skipped.issuperset(self._skipped()):
                break  # the remaining rows need no work, such as leases that have been renewed in the meantime
        forgotten = monotonic() - FORGET_AFTER.total_seconds()
        self._problems = {job: problem for job, problem in self._problems.items() if problem.retry_at > forgotten}
        return total

    async def _pass(self, connection: Connection, rows: Sequence[Record]) -> int:
        total = 0
        locked = set[UUID]()
        for start in range(0, len(rows), self.batch_size):
            done, busy = await self._attempt(connection, rows[start : start + self.batch_size])
            total += done
            locked.update(busy)
        for job in locked:
            problem = self._skip(job, LOCKED_PAUSE)
            problem.passes += 1
        waited_for = [job for job in locked if self._problems[job].passes >= self._problems[job].wait_at]
        if waited_for:
            job = min(waited_for, key=lambda job: self._problems[job].wait_at)
            mine = [row for row in rows if row["job_id"] == job][: self.batch_size]
            total += (await self._attempt(connection, mine, waits=True))[0]
        return total

    async def _attempt(
        self, connection: Connection, rows: Sequence[Record], *, waits: bool = False
    ) -> tuple[int, Collection[UUID]]:
        """Do the work of these rows. If it fails, do the work of each job on its own."""
        self.progress()
        by_job = _by_job(rows)
        try:
            done, busy = await self.work(connection, rows, waits=waits)
        except asyncpg.PostgresError as error:
            if connection.is_closed() or (error.sqlstate or "").startswith(_SERVER_ERRORS):
                raise
            if len(by_job) > 1:
                results = [await self._attempt(connection, mine) for mine in by_job.values()]
                return sum(done for done, _ in results), [job for _, busy in results for job in busy]
            (job,) = by_job
            if job is None:
                raise
            self._record_failure(job, error, waits=waits)
            return 0, ()
        for job in by_job.keys() - busy:
            if job is not None:
                self._problems.pop(job, None)
        return done, busy

    def _record_failure(self, job: UUID, error: asyncpg.PostgresError, *, waits: bool) -> None:
        if waits and isinstance(error, asyncpg.LockNotAvailableError):
            problem = self._skip(job, LOCKED_PAUSE)
            problem.wait_at = 2 * problem.passes
            log.info("job is locked; maintenance skips it", task=self.name, job_id=str(job), times=problem.passes)
            return
        failures = self._problems[job].failures if job in self._problems else 0
        pause = min(timedelta(seconds=2 ** min(failures, 6)), LONGEST_PAUSE)
        self._skip(job, pause).failures = failures + 1
        log.warning(
            "maintenance of a job failed; other jobs continue",
            task=self.name,
            job_id=str(job),
            error=str(error),
            retry_seconds=pause.total_seconds(),
        )

    def _skip(self, job: UUID, pause: timedelta) -> _Problem:
        """Return the problem of a job, and skip the job for this time."""
        problem = self._problems.setdefault(job, _Problem())
        problem.retry_at = monotonic() + pause.total_seconds()
        return problem

    def _skipped(self) -> Sequence[UUID]:
        """The jobs to skip for now."""
        now = monotonic()
        return [job for job, problem in self._problems.items() if problem.retry_at > now]


async def rest_after(started: float) -> None:
    """Rest after a transaction that deletes rows and started at this time, by ``monotonic``."""
    await asyncio.sleep(min(REST * (monotonic() - started), LONGEST_REST.total_seconds()))


def _by_job(rows: Sequence[Record]) -> Mapping[UUID | None, Sequence[Record]]:
    jobs: dict[UUID | None, list[Record]] = {}
    for row in rows:
        jobs.setdefault(row["job_id"], []).append(row)
    return jobs
