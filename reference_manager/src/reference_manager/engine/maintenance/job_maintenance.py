"""Maintenance of many jobs, where the trouble of one job does not delay the others.

A pass looks for pending work of all jobs, takes a limited share of each job, and does it in small transactions. A job
that another session has locked is passed by. So is a job whose work fails: because of its data, a locked row, or a
statement that takes too long.
"""

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
"""How long a job is left alone after its lock was not free."""
LONGEST_PAUSE = timedelta(minutes=1)
"""The longest time that a job is left alone after failures. The time begins with a second and doubles each time."""
FORGET_AFTER = timedelta(minutes=5)
"""How long trouble is remembered after the job was left alone, in case its work was no longer pending then."""

_NOT_THE_JOBS_FAULT = ("08", "25", "53", "57P", "58")
"""Beginnings of the error codes of PostgreSQL for lost connections, a read-only server, exhausted resources, a shutdown
and system errors. A round ends with them."""


@dataclass(slots=True)
class _Trouble:
    """What kept the work of one job from being done."""

    passes: int = 0
    """How often its lock was not free."""
    wait_at: int = 1
    """After this number of passes, the maintenance task waits for the lock. It doubles with each wait in vain."""
    failures: int = 0
    """How often its work failed."""
    retry_at: float = 0.0
    """When to try again, by ``monotonic``."""


class JobMaintenance(MaintenanceTask):
    """A maintenance task whose work belongs to jobs.

    It takes each lock of a job only if it is free. If sessions that complete tasks share the lock in turn, it might
    never be free. So after the work of the other jobs, a pass waits for one job, until the ``lock_timeout`` of the
    connection: at once the first time, and ever more rarely if the job stays locked.
    """

    batch_size: ClassVar[int] = 1
    """The maximum number of rows that one transaction works on."""

    def __init__(self) -> None:
        super().__init__()
        self._troubles: dict[UUID, _Trouble] = {}

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
            waits: Whether to wait for the locks of jobs. Otherwise, locked jobs are passed by.

        Returns:
            The amount of work, and the jobs that were passed by.
        """

    async def round(self, connection: Connection) -> int:
        """Work in passes until only jobs in trouble have pending work."""
        total = 0
        while rows := await self.pending(connection, self._resting()):
            resting = set(self._resting())
            done = await self._pass(connection, rows)
            total += done
            if not done and resting.issuperset(self._resting()):
                break  # the rest is not to be done: leases that were renewed meanwhile, for example
        forgotten = monotonic() - FORGET_AFTER.total_seconds()
        self._troubles = {job: trouble for job, trouble in self._troubles.items() if trouble.retry_at > forgotten}
        return total

    async def _pass(self, connection: Connection, rows: Sequence[Record]) -> int:
        total = 0
        locked = set[UUID]()
        for start in range(0, len(rows), self.batch_size):
            done, busy = await self._attempt(connection, rows[start : start + self.batch_size])
            total += done
            locked.update(busy)
        for job in locked:
            trouble = self._trouble(job, LOCKED_PAUSE)
            trouble.passes += 1
        waited_for = [job for job in locked if self._troubles[job].passes >= self._troubles[job].wait_at]
        if waited_for:
            job = min(waited_for, key=lambda job: self._troubles[job].wait_at)
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
            if connection.is_closed() or (error.sqlstate or "").startswith(_NOT_THE_JOBS_FAULT):
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
                self._troubles.pop(job, None)
        return done, busy

    def _record_failure(self, job: UUID, error: asyncpg.PostgresError, *, waits: bool) -> None:
        if waits and isinstance(error, asyncpg.LockNotAvailableError):
            trouble = self._trouble(job, LOCKED_PAUSE)
            trouble.wait_at = 2 * trouble.passes
            log.info("job is locked; maintenance passes it by", task=self.name, job_id=str(job), times=trouble.passes)
            return
        failures = self._troubles[job].failures if job in self._troubles else 0
        pause = min(timedelta(seconds=2 ** min(failures, 6)), LONGEST_PAUSE)
        self._trouble(job, pause).failures = failures + 1
        log.warning(
            "maintenance of a job failed; other jobs continue",
            task=self.name,
            job_id=str(job),
            error=str(error),
            retry_seconds=pause.total_seconds(),
        )

    def _trouble(self, job: UUID, pause: timedelta) -> _Trouble:
        """Return the trouble of a job, and leave the job alone for this time."""
        trouble = self._troubles.setdefault(job, _Trouble())
        trouble.retry_at = monotonic() + pause.total_seconds()
        return trouble

    def _resting(self) -> Sequence[UUID]:
        """The jobs to leave alone for now."""
        now = monotonic()
        return [job for job, trouble in self._troubles.items() if trouble.retry_at > now]


def _by_job(rows: Sequence[Record]) -> Mapping[UUID | None, Sequence[Record]]:
    jobs: dict[UUID | None, list[Record]] = {}
    for row in rows:
        jobs.setdefault(row["job_id"], []).append(row)
    return jobs
