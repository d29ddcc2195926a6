"""Deletes jobs that ended long ago, by the rules in the database.

A pass looks at the ended jobs of each name, oldest first. A deleted job is invisible at once; another maintenance task
deletes the rows of its tasks.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

import structlog

from reference_manager.archive.errors import ArchiveError
from reference_manager.archive.stores import Archive
from reference_manager.domain.states import JobStatus
from reference_manager.engine import metrics
from reference_manager.engine.maintenance.archiving import archive_jobs
from reference_manager.engine.maintenance.job_maintenance import JobMaintenance, rest_after
from reference_manager.store.pool import Connection, Record, sql

log = structlog.stdlib.get_logger(__name__)

NAMES_IN_A_STATEMENT = 1000
JOBS_IN_A_PASS = 1000
JOBS_IN_A_BATCH = 100
STAGES_IN_A_BATCH = 1000
"""A transaction that deletes so many stages holds the locks of their jobs for about ten milliseconds."""
FOUND_IN_A_BATCH = 500
STATUSES = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ABORTED)
CLOCK_TOLERANCE = timedelta(hours=1)
"""How far the clock of retention may be behind without a log line."""


class Retention(JobMaintenance):
    """Deletes up to ``JOBS_IN_A_BATCH`` jobs in each transaction."""

    name = "retention"
    pause = timedelta(seconds=10)
    batch_size = JOBS_IN_A_BATCH

    def __init__(self, archive: Archive | None = None) -> None:
        super().__init__()
        self._archive = archive
        self._archives = False
        """Whether the jobs of this pass must be in an archive before they are deleted."""
        self._clock: datetime | None = None
        """The clock of retention when this manager last saw it."""
        self._clock_seen_at = 0.0
        """When that was, by ``monotonic``."""
        self._is_behind = False
        self._has_started = False
        self._could_delete = True
        self._begin_pass()

    def _begin_pass(self) -> None:
        self._name: str | None = ""
        """The name of the jobs to look at next, or after this one; None: the pass is complete."""
        self._again = False
        """Whether to look at the jobs of this name again."""
        self._oldest = dict[JobStatus, datetime]()
        """When the oldest job of each status ended that the pass has seen and kept."""
        self._due = 0
        """The number of due jobs that the pass has found."""

    async def is_due(self, connection: Connection) -> bool:
        """Return whether any jobs are to be deleted, and a pass is due. Log at the start if none are."""
        if not self._has_started:
            self._has_started = True
            if not await sql.retention_is_on(connection):
                log.info("retention is off: ended jobs are kept for ever", see="jobnik-manager retention set --help")
        return await sql.retention_is_due(connection) and await self._may_delete(connection)

    async def _may_delete(self, connection: Connection) -> bool:
        """Return whether this manager can archive jobs, if they must be archived."""
        self._archives = await sql.retention_archives(connection)
        may_delete = self._archive is not None or not self._archives
        if not may_delete and self._could_delete:
            log.warning("no archive: this manager deletes no jobs", see="--archive-url")
        self._could_delete = may_delete
        return may_delete

    async def round(self, connection: Connection) -> int:
        """Do a pass over the ended jobs of all names. Return the number of deleted jobs."""
        started = monotonic()
        await self._advance_clock(connection)
        while await sql.retention_find(connection, limit=FOUND_IN_A_BATCH):
            self.progress()
        self._begin_pass()
        deleted = await super().round(connection)
        oldest = {status.lower(): self._oldest.get(status) for status in STATUSES}
        duration = timedelta(seconds=monotonic() - started)
        await sql.retention_finish(connection, duration=duration, due=self._due, **oldest)
        if deleted:
            log.info("retention deleted jobs", jobs=deleted, seconds=round(duration.total_seconds(), 3))
        return deleted

    async def _advance_clock(self, connection: Connection) -> None:
        """Move the clock of retention ahead, at most by twice the time that this process has measured.

        The clock is behind after that of the database has jumped ahead, and after a time without a manager.
        """
        now = monotonic()
        passed = timedelta(seconds=now - self._clock_seen_at)
        row = await sql.retention_advance(connection, seen=self._clock, passed=passed)
        self._clock, self._clock_seen_at = row["clock"], now
        is_behind = row["behind"] > CLOCK_TOLERANCE
        if is_behind and not self._is_behind:
            log.warning(
                "retention clock is behind that of the database",
                behind_seconds=round(row["behind"].total_seconds()),
                time=row["clock"].isoformat(),
            )
        self._is_behind = is_behind

    async def pending(self, connection: Connection, passed: Sequence[UUID]) -> Sequence[Record]:
        """Return due jobs of the next name that has any."""
        while self._name is not None:
            self.progress()
            rows = await connection.fetch(
                sql.retention_due_jobs.sql, self._name, self._again, passed, NAMES_IN_A_STATEMENT, JOBS_IN_A_PASS
            )
            jobs = [row for row in rows if row["job_id"] is not None]
            last: str | None = rows[-1]["name"]
            for row in rows[:-1]:
                if row["job_id"] is None:
                    self._see(row, is_counted=self._again and row["name"] == self._name)
            self._name, self._again = last, bool(jobs)
            if jobs:
                return jobs
        return []

    def _see(self, row: Record, *, is_counted: bool) -> None:
        if not is_counted:
            self._due += row["due"]
        if not row["due"]:
            status = JobStatus(row["status"])
            self._oldest[status] = min(self._oldest.get(status, row["ended_at"]), row["ended_at"])

    async def work(
        self, connection: Connection, rows: Sequence[Record], *, waits: bool
    ) -> tuple[int, Collection[UUID]]:
        """Delete jobs. Return their number."""
        ids: Sequence[UUID] = [row["job_id"] for row in rows]
        prints: Sequence[int] | None = None
        if self._archives and self._archive is not None:
            try:
                archived = await archive_jobs(connection, self._archive, ids, self.progress)
            except ArchiveError as error:
                log.warning("archive failed; its jobs are kept", error=str(error))
                return 0, ()
            ids, prints = list(archived), list(archived.values())
        started = monotonic()
        row = await sql.retention_delete(connection, ids=ids, prints=prints, stages=STAGES_IN_A_BATCH, waits=waits)
        total = 0
        for status in STATUSES:
            deleted: int = row[status.lower()] or 0
            metrics.RETENTION_DELETED.labels(status).inc(deleted)
            total += deleted
        await rest_after(started)
        return total, row["busy"] or ()
