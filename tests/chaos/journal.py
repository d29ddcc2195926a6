"""What the workers say that they did: a file for each, one line an event, written before anything else happens."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import journal
from tests.support.journal import NewLines


class Event(StrEnum):
    """What happened to a task in its worker's hands."""

    HIRED = "hired"
    """The worker is there: the first line of its journal."""
    CLAIMED = "claimed"
    BEGUN = "begun"
    DONE = "done"
    """What the handler did, as the outcome that follows from it."""
    INTERRUPTED = "interrupted"
    """The handler was cancelled."""
    SETTLING = "settling"
    """It is about to be reported, and may be from now on."""
    ANSWERED = "answered"
    """The manager's verdict."""
    REPEATED = "repeated"
    """The manager's verdict on the same report, said again."""
    LOST = "lost"
    """A heartbeat was answered that the lease is gone."""
    CANCELLED = "cancelled"
    """A heartbeat was answered that the job was aborted."""
    STRANGE = "strange"
    """An answer that no worker should ever get."""


class Entry(NamedTuple):
    """One line."""

    event: Event
    worker: str
    task: str
    lease: int
    more: dict[str, Any]
    """What belongs to the kind of event."""


class Pen:
    """Writes the journal of one worker.

    Args:
        file: To be appended to.
        worker: Whose journal it is, as managers know it; handlers need not know.
    """

    def __init__(self, file: Path, worker: str = "") -> None:
        self._pen = journal.JournalWriter(file)
        self.worker = worker

    def write(self, event: Event, task: str = "", lease: int = 0, **more: object) -> None:
        """Add a line."""
        self._pen.write(**Entry(event, self.worker, task, lease, more)._asdict())


@dataclass
class Story:
    """What a worker says of one lease."""

    worker: str
    task: str
    done: str | None = None
    """The outcome of what the handler did."""
    settling: str | None = None
    """The outcome that it was about to report."""
    verdicts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What the manager said: to the report, and to the same report said again."""


class Journal:
    """Reads the journals of all workers, as far as they are written.

    Args:
        folder: Of their files.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = NewLines(folder, "*.journal")
        self.events: Counter[Event] = Counter()
        """How many there are of each kind."""
        self.stories: dict[int, Story] = {}
        """By lease."""
        self.leases: defaultdict[str, set[int]] = defaultdict(set)
        """Leases that were claimed, by task."""
        self.unanswered: defaultdict[str, set[int]] = defaultdict(set)
        """Leases that were claimed and have no verdict yet, by worker."""
        self.refused = 0
        """Reports that were answered LEASE_LOST."""
        self.strange: list[dict[str, Any]] = []
        """Answers that no worker should ever get."""

    def read(self) -> None:
        """Read what is new."""
        for line in self._lines.read():
            said = json.loads(line)
            self._add(Entry(**said | {"event": Event(said["event"])}))

    def _add(self, entry: Entry) -> None:
        self.events[entry.event] += 1
        match entry.event:
            case Event.CLAIMED:
                if entry.lease in self.stories:
                    self.strange.append({"claimed twice": entry})
                self.stories[entry.lease] = Story(entry.worker, entry.task)
                self.leases[entry.task].add(entry.lease)
                self.unanswered[entry.worker].add(entry.lease)
            case Event.DONE:
                self.stories[entry.lease].done = entry.more["outcome"]
            case Event.SETTLING:
                self.stories[entry.lease].settling = entry.more["outcome"]
            case Event.ANSWERED | Event.REPEATED:
                self.stories[entry.lease].verdicts.append(entry.more)
                self.refused += entry.event is Event.ANSWERED and not entry.more["accepted"]
                self.unanswered[entry.worker].discard(entry.lease)
            case Event.STRANGE:
                self.strange.append(entry.more)
            case Event.HIRED | Event.BEGUN | Event.INTERRUPTED | Event.LOST | Event.CANCELLED:
                pass
