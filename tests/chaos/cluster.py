"""The system under test: one PostgreSQL, two managers between proxies, and four workers, each in its own process.

Two workers use the SDK, with handlers of all styles. The other two implement the protocol themselves and also report
tasks whose lease they have lost; see `tests.chaos.worker`.
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

import aiosql
import asyncpg
import httpx2
from reference_manager.store.errors import DRIVER_ERRORS

from tests.chaos.journal import Event, Journal
from tests.chaos.servers import Networks, Servers
from tests.support import invariants, jumping_clock
from tests.support.forked_programs import start_worker
from tests.support.journal import NewLines
from tests.support.previous_release import PreviousRelease
from tests.support.sessions import Session, session
from tools.manager import ManagerProcess
from tools.proxy import Proxy

Answer = TypeVar("Answer")

MANAGERS = 2
STAGE_TYPES = ("resize", "encode", "index")
PROTOCOL_WORKER, SDK_WORKER = "tests.chaos.worker", "tests.chaos.sdk_worker"
WORKERS = (
    (PROTOCOL_WORKER, ("resize", "encode")),
    (PROTOCOL_WORKER, ("encode", "index")),
    (SDK_WORKER, ("index", "resize")),
    (SDK_WORKER, STAGE_TYPES),
)
"""The program and the stage types of each worker. Any three of them cover all stage types."""
LEASE = timedelta(seconds=1)
EXPECTED = ("database failed", "task failed", "circuit breaker opened")
"""The prefixes of log events at error level that are expected."""
STARTS = 5
"""How often a manager is started until it is ready."""
POLL_INTERVAL, PROGRESS_INTERVAL = 0.1, 0.02
"""Seconds between two checks of a condition, and of how many attempts have started. Most checks open a connection."""
ATTEMPTS_BETWEEN_FAULTS = 15
"""Number of attempts that start between two faults."""
SETTLE_TIMEOUT = 60.0
"""Seconds within which everything must settle after all faults are repaired."""
CLOCK = "clock"
"""The file with the offset of the clocks of the SDK's workers."""
ROOT = Path(__file__).parents[2]

sql: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - aiosql types its own parameters loosely
    Path(__file__).with_name("cluster.sql"), "asyncpg"
)


class UnsettledError(Exception):
    """A condition was not met within its time limit."""


class WorkerProcess:
    """The process of a worker.

    Args:
        program: The module to run.
        name: Name of the worker's files.
        folder: Folder for the files.
        stage_types: The stage types to claim.
        managers: The addresses of the managers. The SDK's worker uses only the first.
        clock_jumps: Whether the worker's wall clock jumps all the time.
        output: A file descriptor for all its log lines. By default, those from warnings on go into a file.
    """

    def __init__(  # noqa: PLR0913 - the full configuration of a worker
        self,
        program: str,
        name: str,
        folder: Path,
        stage_types: Sequence[str],
        managers: Iterable[str],
        *,
        clock_jumps: bool,
        output: int | None,
    ) -> None:
        self.program = program
        self.stage_types = stage_types
        self._name = name
        self._journal = folder / f"{name}.journal"
        arguments = (name, self._journal, LEASE.total_seconds(), ",".join(stage_types), ",".join(managers))
        self.log = NewLines(folder, f"{name}.log")
        """What the worker and the processes of its handlers write."""
        environment = {jumping_clock.OFFSET_VARIABLE: str(folder / CLOCK)}
        if clock_jumps:
            environment[jumping_clock.VARIABLE] = "yes"
        if output is not None:
            environment["LOG_LEVEL"] = "DEBUG"
        with (folder / f"{name}.log").open("a") as log:
            stream = log.fileno() if output is None else output
            self.process = start_worker(
                program, list(map(str, arguments)), os.environ | environment, stream, forked=output is None
            )

    @property
    def name(self) -> str:
        """The worker's id, from the first line of its journal."""
        with suppress(FileNotFoundError):
            first, newline, _ = self._journal.read_bytes().partition(b"\n")
            if newline:
                self._name = str(json.loads(first)["worker"])
        return self._name

    @property
    def has_started(self) -> bool:
        """Whether the worker has written the first line of its journal."""
        return self._journal.exists() and b"\n" in self._journal.read_bytes()

    @property
    def is_alive(self) -> bool:
        """Whether the process exists, running or stopped."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.process.kill()
        self.process.wait()


class Cluster:
    """All processes, from the start until the end of the ``with`` block.

    Args:
        folder: Existing folder for data, logs and journals, accessible to every user.
        seed: Seed of all random choices.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = Random(seed)  # noqa: S311 - the seed makes a run repeatable
        self.journal = Journal(folder)
        self.set_clocks(timedelta())
        self.servers = Servers(folder)
        self.networks: list[Networks] = []
        """The networks between each manager and PostgreSQL."""
        self.managers: list[ManagerProcess] = []
        self.proxies: list[Proxy] = []
        self.workers: list[WorkerProcess] = []
        self.fault_counts: Counter[object] = Counter()
        """Number of injections, by fault."""
        self.killed: set[str] = set()
        """The ids of killed workers."""
        self.drained: set[str] = set()
        """The ids of workers that were told to stop."""
        self.fenced: set[int] = set()
        """Leases that expired while their worker was stopped."""
        self.aborted: set[UUID] = set()
        """Jobs for which an abort was requested."""
        self.disturbed = False
        """Whether a fault that may delay any job has not been repaired."""
        self._manager_logs = NewLines(folder, "manager-*.log")
        self._all_workers: list[WorkerProcess] = []
        self._stack = ExitStack()
        self._handlers_started = 0
        self._workers_started = 0
        self._previous_release: PreviousRelease | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.servers)
            self.networks = [stack.enter_context(Networks(self.servers)) for _ in range(MANAGERS)]
            stack.callback(self._end_processes)
            self.managers = [self._new_manager(number) for number in range(MANAGERS)]
            self.proxies = [stack.enter_context(Proxy(manager.url)) for manager in self.managers]
            self.workers = [self._new_worker(*one) for one in WORKERS]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def restart_manager(self, number: int) -> None:
        """Replace a manager with a new one of this release. The former one, if it still runs, stops afterwards."""
        self._replace_manager(number, self._new_manager(number))

    def start_previous_release(self, number: int) -> None:
        """Replace a manager with one of the previous release."""
        if self._previous_release is None:
            sources = self.folder / "previous-release"
            sources.mkdir()
            self._previous_release = PreviousRelease(sources)
        release, url = self._previous_release, self.networks[number].to_primary.url
        self._replace_manager(number, _started(lambda: release.manager(url)))

    def replace_worker(self, number: int, output: int | None = None) -> None:
        """Replace an ended worker with a new one, whose log lines may go to a given file descriptor."""
        worker = self.workers[number]
        self.workers[number] = self._new_worker(worker.program, worker.stage_types, output)

    def set_clocks(self, offset: timedelta) -> None:
        """Set the clocks of the SDK's workers ahead or back."""
        jumping_clock.set_offset(self.folder / CLOCK, offset.total_seconds())

    async def ask(self, query: Callable[..., Awaitable[Any]], **arguments: object) -> Any:  # noqa: ANN401 - any value
        """Run an idempotent query, and repeat it until the database responds."""

        async def try_it() -> tuple[Any] | None:
            try:
                async with session(self.servers.primary.url) as connection:
                    return (await query(connection, **arguments),)
            except asyncpg.SyntaxOrAccessError:
                raise  # the query itself is wrong
            except DRIVER_ERRORS:  # PostgreSQL was killed
                return None

        (answer,) = await eventually("the database responds", try_it)
        return answer

    async def wait_for_progress(self) -> None:
        """Wait until more attempts have started. Give up after 3 s, because earlier faults may block all work."""

        async def enough() -> bool:
            self.journal.read()
            return self.journal.events[Event.HANDLER_STARTED] >= self._handlers_started + ATTEMPTS_BETWEEN_FAULTS

        with suppress(UnsettledError):
            await eventually("more attempts start", enough, limit=3, interval=PROGRESS_INTERVAL)
        self._handlers_started = self.journal.events[Event.HANDLER_STARTED]

    async def wait_until_available(self) -> None:
        """Wait until every manager responds and can reach its database."""
        async with httpx2.AsyncClient(timeout=5) as http:
            for manager in self.managers:

                async def answers(url: str = manager.url) -> bool:
                    try:
                        return (await http.get(f"{url}/v1/queues/any/depth")).is_success
                    except httpx2.TransportError:
                        return False

                await eventually("every manager responds", answers)

    async def wait_until_settled(self, jobs: Sequence[UUID]) -> None:
        """Wait until the jobs have ended, all leases and reports are processed, and all workers send heartbeats."""

        async def is_settled(connection: Session) -> bool:
            workers = [worker.name for worker in self.workers if worker.is_alive]
            return (
                await sql.recently_seen(connection, workers=workers) == len(workers)
                and not await sql.unfinished(connection, jobs=jobs)
                and not await invariants.queries.leftovers(connection)
            )

        async def all_is_settled() -> bool:
            # First the journals, because a connection takes longer. A report may get its verdict after the queries.
            return not self.unanswered() and await self.ask(is_settled) and not self.unanswered()

        await eventually("everything settles", all_is_settled)

    def unanswered(self) -> set[int]:
        """Return the leases of living workers without a verdict."""
        self.journal.read()
        return set[int]().union(*(self.journal.unanswered[worker.name] for worker in self.workers if worker.is_alive))

    async def unfinished_work(self) -> Sequence[str]:
        """Describe the work that has not ended, one sentence each."""
        return await self.ask(sql.unfinished_work) + [
            f"the report of lease {lease} has no verdict" for lease in sorted(self.unanswered())
        ]

    def unexpected_logs(self) -> Sequence[str]:
        """Return unexpected log lines of managers and workers since the last call."""
        lines = [line for line in self._manager_logs.read() if not _is_expected(line)]
        for worker in self._all_workers:
            # When a worker is killed, the processes of its handlers may write tracebacks.
            killed = worker.name in self.killed
            lines += [line for line in worker.log.read() if not (_is_expected(line) or (killed and line[:1] != b"{"))]
        return [line.decode() for line in lines]

    def missing_workers(self) -> Sequence[str]:
        """Describe the workers that ended without being killed or told to stop."""
        gone = {worker.name: worker.process.returncode for worker in self.workers if not worker.is_alive}
        return [
            f"{name} ended with exit code {code}"
            for name, code in gone.items()
            if name not in self.killed | self.drained
        ]

    def _new_manager(self, number: int) -> ManagerProcess:
        # Few connections and a short timeout, so that the pool fills quickly.
        url = self.networks[number].url
        arguments = ("--database-url", url, "--database-connections", "4", "--database-timeout", "PT1S")
        return _started(lambda: ManagerProcess(*arguments, log_file=self.folder / f"manager-{number + 1}.log"))

    def _replace_manager(self, number: int, manager: ManagerProcess) -> None:
        former, self.managers[number] = self.managers[number], manager
        self.proxies[number].target = manager.url
        former.stop()

    def _new_worker(self, program: str, stage_types: Sequence[str], output: int | None = None) -> WorkerProcess:
        self._workers_started += 1
        name = f"worker-{self._workers_started}"
        proxies = self.proxies if self._workers_started % 2 else self.proxies[::-1]
        urls = [proxy.url for proxy in proxies]
        jumps = bool(self._workers_started % 2)
        worker = WorkerProcess(program, name, self.folder, stage_types, urls, clock_jumps=jumps, output=output)
        self._all_workers.append(worker)
        return worker

    def _end_processes(self) -> None:
        for worker in self.workers:
            worker.kill()
        for manager in self.managers:
            manager.process.kill()
            manager.stop()


async def eventually(
    condition: str,
    check: Callable[[], Awaitable[Answer | None]],
    *,
    limit: float = SETTLE_TIMEOUT,
    interval: float = POLL_INTERVAL,
) -> Answer:
    """Poll `check` until it returns a true value, and return that value.

    Raises:
        UnsettledError: The time limit was exceeded.
    """
    deadline = time.monotonic() + limit
    while not (answer := await check()):
        if time.monotonic() > deadline:
            raise UnsettledError(f"{condition}: not within {limit:.0f} s")
        await asyncio.sleep(interval)
    return answer


def _started(new: Callable[[], ManagerProcess]) -> ManagerProcess:
    """Start a manager. Start it again if the database is not available, as an orchestrator would."""
    for _ in range(STARTS - 1):
        with suppress(RuntimeError):
            return new().__enter__()
    return new().__enter__()


def _is_expected(line: bytes) -> bool:
    """Return whether this log line is expected when faults are injected and tasks fail as planned."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return entry["level"] in {"info", "warning"} or str(entry["event"]).startswith(EXPECTED)
