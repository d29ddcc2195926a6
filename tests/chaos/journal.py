"""The workers' journals: one file per worker with one line per event, written before the event takes effect."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import journal
from tests.support.journal import NewLines


class Event(StrEnum):
    """An event in a worker."""

    WORKER_STARTED = "worker started"
    """The first line of a journal."""
    CLAIMED = "claimed"
    HANDLER_STARTED = "handler started"
    HANDLER_ENDED = "handler ended"
    """The handler ended; the entry contains the outcome that follows."""
    HANDLER_CANCELLED = "handler cancelled"
    """The handler was cancelled."""
    REPORTING = "reporting"
    """The worker is about to send the report, so the manager may receive it from now on."""
    VERDICT = "verdict"
    """The manager's response to a report."""
    REPEATED_VERDICT = "repeated verdict"
    """The manager's response to the same report, sent again."""
    LEASE_LOST = "lease lost"
    """The response to a heartbeat lists the lease as lost."""
    JOB_ABORTED = "job aborted"
    """The response to a heartbeat cancels the task, because its job was aborted."""
    UNEXPECTED_RESPONSE = "unexpected response"
    """A response that a manager must never send."""


class Entry(NamedTuple):
    """One line of a journal."""

    event: Event
    worker: str
    task: str
    lease: int
    more: dict[str, Any]
    """Further fields, which depend on the event."""


class JournalWriter:
    """Writes the journal of one worker.

    Args:
        file: The file to append to.
        worker: The id of the worker. Handlers may leave it empty.
    """

    def __init__(self, file: Path, worker: str = "") -> None:
        self._writer = journal.JournalWriter(file)
        self.worker = worker

    def write(self, event: Event, task: str = "", lease: int = 0, **more: object) -> None:
        """Append a line."""
        self._writer.write(**Entry(event, self.worker, task, lease, more)._asdict())


@dataclass
class WorkerRecord:
    """A worker's record of one lease."""

    worker: str
    task: str
    handler_outcome: str | None = None
    """The outcome that follows from how the handler ended."""
    reported_outcome: str | None = None
    """The outcome that the worker was about to report."""
    verdicts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The manager's responses: to the report, and to the repeated report."""


class Journal:
    """Reads the journals of all workers.

    Args:
        folder: The folder that contains the journals.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = NewLines(folder, "*.journal")
        self.events: Counter[Event] = Counter()
        """Number of entries, by event."""
        self.worker_records: dict[int, WorkerRecord] = {}
        """The workers' records, by lease."""
        self.leases: defaultdict[str, set[int]] = defaultdict(set)
        """Claimed leases, by task."""
        self.unanswered: defaultdict[str, set[int]] = defaultdict(set)
        """Claimed leases without a verdict, by worker."""
        self.refused = 0
        """Number of reports that the manager refused with LEASE_LOST."""
        self.unexpected: list[dict[str, Any]] = []
        """Responses that a manager must never send."""

    def read(self) -> None:
        """Read the new lines."""
        for line in self._lines.read():
            fields = json.loads(line)
            self._add(Entry(**fields | {"event": Event(fields["event"])}))

    def _add(self, entry: Entry) -> None:
        self.events[entry.event] += 1
        match entry.event:
            case Event.CLAIMED:
                if entry.lease in self.worker_records:
                    self.unexpected.append({"claimed twice": entry})
                self.worker_records[entry.lease] = WorkerRecord(entry.worker, entry.task)
                self.leases[entry.task].add(entry.lease)
                self.unanswered[entry.worker].add(entry.lease)
            case Event.HANDLER_ENDED:
                self.worker_records[entry.lease].handler_outcome = entry.more["outcome"]
            case Event.REPORTING:
                self.worker_records[entry.lease].reported_outcome = entry.more["outcome"]
            case Event.VERDICT | Event.REPEATED_VERDICT:
                self.worker_records[entry.lease].verdicts.append(entry.more)
                self.refused += entry.event is Event.VERDICT and not entry.more["accepted"]
                self.unanswered[entry.worker].discard(entry.lease)
            case Event.UNEXPECTED_RESPONSE:
                self.unexpected.append(entry.more)
            case (
                Event.WORKER_STARTED
                | Event.HANDLER_STARTED
                | Event.HANDLER_CANCELLED
                | Event.LEASE_LOST
                | Event.JOB_ABORTED
            ):
                pass
