"""The queues in the comparison. Each has its own module, which follows the documentation of the queue."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from importlib.metadata import version
from typing import Protocol, Self


class Contender(Protocol):
    """A queue of empty tasks. Its producer runs in this process, its worker in a separate one."""

    async def __aenter__(self) -> Self:
        """Connect as a producer and prepare the store."""
        ...

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        ...

    async def fill(self, count: int) -> None:
        """Create `count` tasks in the fastest documented way."""
        ...

    async def put(self) -> None:
        """Create one task."""
        ...

    def work(self, note: Callable[[], None]) -> None:
        """Run the worker in this process until SIGTERM. The handler of a task only calls `note`."""
        ...


class Store(Enum):
    """The store that holds the tasks."""

    MANAGER = "manager"
    POSTGRES = "PostgreSQL"
    REDIS = "Redis"


@dataclass(frozen=True)
class Entry:
    """The configuration of a contender."""

    package: str
    """Name of the distribution, whose version the results show."""
    module: str
    store: Store
    tasks: int
    """Number of tasks per round, enough for a few seconds."""
    concurrency: str
    """How many tasks one worker process handles at a time, as its documentation recommends."""
    options: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def title(self) -> str:
        """The name and version of the distribution."""
        return f"{self.package} {version(self.package)}"

    def contender(self, address: str) -> Contender:
        """Import and return the contender. Only its module imports the package."""
        return import_module(f"{__name__}.{self.module}").Contender(address, **self.options)


BASE = "pgqueuer-100"
"""The contender that the ratios refer to."""
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
