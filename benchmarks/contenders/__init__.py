"""The queues that are measured side by side: each in a separate module, used as its documentation recommends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from importlib.metadata import version
from typing import Protocol, Self


class Contender(Protocol):
    """A queue of tasks that do nothing: its producer runs here, its worker in a separate process."""

    async def __aenter__(self) -> Self:
        """Connect as a producer, and set up what the queue needs in its store."""
        ...

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        ...

    async def fill(self, count: int) -> None:
        """Create this number of tasks, in the fastest way that the documentation shows."""
        ...

    async def put(self) -> None:
        """Create one task."""
        ...

    def work(self, note: Callable[[], None]) -> None:
        """Work as this process's only purpose until SIGTERM: a task's handler calls `note`, and that is all."""
        ...


class Store(Enum):
    """Where the tasks are."""

    MANAGER = "manager"
    POSTGRES = "PostgreSQL"
    REDIS = "Redis"


@dataclass(frozen=True)
class Entry:
    """How a contender takes part."""

    package: str
    """The installed package; the results show its version."""
    module: str
    store: Store
    tasks: int
    """How many are worked off in one round: some seconds' worth."""
    how: str
    """The tasks that one worker process runs at a time, as its documentation recommends."""
    options: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def title(self) -> str:
        """Package and version."""
        return f"{self.package} {version(self.package)}"

    def contender(self, address: str) -> Contender:
        """The contender itself; only its module imports the package."""
        return import_module(f"{__name__}.{self.module}").Contender(address, **self.options)


BASE = "pgqueuer-100"
"""The one that the others are compared with."""
OURS = "jobnik"

ENTRIES: Mapping[str, Entry] = {
    OURS: Entry("jobnik-sdk", "jobnik_noops", Store.MANAGER, 100_000, "500 at a time"),
    BASE: Entry("pgqueuer", "pgqueuer_noops", Store.POSTGRES, 20_000, "batches of 100", {"batch": 100}),
    "pgqueuer-10": Entry("pgqueuer", "pgqueuer_noops", Store.POSTGRES, 20_000, "batches of 10", {"batch": 10}),
    "procrastinate": Entry("procrastinate", "procrastinate_noops", Store.POSTGRES, 2_000, "30 at a time"),
    "taskiq": Entry("taskiq", "taskiq_noops", Store.REDIS, 20_000, "100 at a time"),
    "dramatiq": Entry("dramatiq", "dramatiq_noops", Store.REDIS, 10_000, "8 threads"),
    "celery": Entry("celery", "celery_noops", Store.REDIS, 10_000, "one by one"),
}
