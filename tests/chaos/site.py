"""What chaos happens to: one PostgreSQL, two managers behind proxies, four workers; all of them processes.

Two workers are the SDK's, with handlers of all styles. The other two know the protocol alone, and report what they have
lost all the same: see the programs.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
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
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.embedded.process import end_with_parent

from tests.chaos.journal import Event, Journal
from tests.support import jumping_clock
from tests.support.journal import NewLines
from tests.support.truths import truths
from tools.manager import ManagerProcess
from tools.proxy import Proxy

Answer = TypeVar("Answer")

MANAGERS = 2
STAGE_TYPES = ("resize", "encode", "index")
WIRE, SDK = "tests.chaos.worker", "tests.chaos.sdk_worker"
CREW = (
    (WIRE, ("resize", "encode")),
    (WIRE, ("encode", "index")),
    (SDK, ("index", "resize")),
    (SDK, STAGE_TYPES),
)
"""The program and the stage types of each worker: without any one of them the others can do everything."""
LEASE = timedelta(seconds=1)
EXPECTED = ("database failed", "task failed", "circuit breaker opened")
"""How the errors begin that may be logged."""
LOOK_AGAIN = 0.02
"""Seconds between two looks at what nothing announces."""
SOME = 15
"""Attempts that begin between two troubles."""
LIMIT = 60.0
"""Seconds in which everything must have settled once all is well again."""
ROOT = Path(__file__).parents[2]

sql: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - aiosql types its own parameters loosely
    Path(__file__).with_name("site.sql"), "asyncpg"
)

DATABASE_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What becomes of a question when PostgreSQL is killed."""


class UnsettledError(Exception):
    """Something that had to happen did not."""


class WorkerProcess:
    """One run of a worker's program.

    Args:
        program: Of the two.
        name: Of its files.
        folder: For them.
        skills: The stage types that it works on.
        managers: Their addresses. The SDK's worker has one, the first.
        clock_jumps: Whether its wall clock does.
    """

    def __init__(  # noqa: PLR0913 - all that makes a worker
        self,
        program: str,
        name: str,
        folder: Path,
        skills: Sequence[str],
        managers: Iterable[str],
        *,
        clock_jumps: bool,
    ) -> None:
        self.program = program
        self.skills = skills
        self._name = name
        self._journal = folder / f"{name}.journal"
        arguments = (name, self._journal, LEASE.total_seconds(), ",".join(skills), ",".join(managers))
        with (folder / "workers.log").open("a") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", program, *map(str, arguments)],
                cwd=ROOT,
                env=os.environ | ({jumping_clock.VARIABLE: "yes"} if clock_jumps else {}),
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - a run that is killed leaves no worker behind
            )

    @property
    def name(self) -> str:
        """What managers know it by, with which its journal begins."""
        with suppress(FileNotFoundError):
            first, newline, _ = self._journal.read_bytes().partition(b"\n")
            if newline:
                self._name = str(json.loads(first)["worker"])
        return self._name

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or will when it is continued."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it with kill -9."""
        self.process.kill()
        self.process.wait()


class Site:
    """All of it, from the moment it works until the end of the ``with`` block.

    Args:
        folder: For data, logs and journals. It must be there, and open to every user.
        seed: Of whatever is chosen at random.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = Random(seed)  # noqa: S311 - a run is repeated by its seed
        self.journal = Journal(folder)
        self.postgres = EmbeddedPostgres(folder / "data", settings={"port": str(_steady_port())})
        self.managers: list[ManagerProcess] = []
        self.proxies: list[Proxy] = []
        self.workers: list[WorkerProcess] = []
        self.struck: Counter[object] = Counter()
        """How often each trouble has."""
        self.killed: set[str] = set()
        """The workers that were killed."""
        self.drained: set[str] = set()
        """The workers that were to stop."""
        self.fenced: set[int] = set()
        """Leases that ran out while their workers stood still."""
        self.aborted: set[UUID] = set()
        """Jobs whose abort was asked for."""
        self._logs = [NewLines(folder, "manager-*.log"), NewLines(folder, "workers.log")]
        self._stack = ExitStack()
        self._begun = 0
        self._hired = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.postgres)
            stack.callback(self._end_processes)
            self.managers = [self._new_manager(number) for number in range(MANAGERS)]
            self.proxies = [stack.enter_context(Proxy(manager.url)) for manager in self.managers]
            self.workers = [self._new_worker(*one) for one in CREW]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def restart_postgres(self) -> None:
        """Start it again, on the same data and the same port."""
        self.postgres.stop()
        self.postgres.start()

    def restart_manager(self, number: int) -> None:
        """Start a new one in the place of one that was killed."""
        self.managers[number].stop()
        self.managers[number] = self._new_manager(number)
        self.proxies[number].target = self.managers[number].url

    def replace_worker(self, number: int) -> None:
        """Start a new one in the place of one that has ended."""
        self.workers[number] = self._new_worker(self.workers[number].program, self.workers[number].skills)

    async def ask(self, query: Callable[..., Awaitable[Any]], **arguments: object) -> Any:  # noqa: ANN401 - any value
        """Ask the database something that may be asked again, until it answers."""

        async def try_it() -> tuple[Any] | None:
            try:
                connection = await asyncpg.connect(self.postgres.url, server_settings={"search_path": "jobnik"})
                try:
                    return (await query(connection, **arguments),)
                finally:
                    await connection.close()
            except asyncpg.SyntaxOrAccessError:
                raise  # the question is wrong, and will be
            except DATABASE_ERRORS:
                return None

        (answer,) = await eventually("the database answers", try_it)
        return answer

    async def under_way(self) -> None:
        """Wait until some attempts more have begun; or give up: what struck before may have brought all to a halt."""

        async def enough() -> bool:
            self.journal.read()
            return self.journal.events[Event.BEGUN] >= self._begun + SOME

        with suppress(UnsettledError):
            await eventually("work goes on", enough, limit=3)
        self._begun = self.journal.events[Event.BEGUN]

    async def whole(self) -> None:
        """Wait until every manager answers and reaches its database."""
        async with httpx2.AsyncClient(timeout=5) as http:
            for manager in self.managers:

                async def answers(url: str = manager.url) -> bool:
                    try:
                        return (await http.get(f"{url}/v1/queues/any/depth")).is_success
                    except httpx2.TransportError:
                        return False

                await eventually("every manager answers", answers)

    async def settled(self, jobs: Sequence[UUID]) -> None:
        """Wait until these jobs have ended, nothing is left, no worker waits for a verdict, and all are heard of."""

        async def nothing_is_left() -> bool:
            workers = [worker.name for worker in self.workers if worker.is_alive]
            return (
                await self.ask(sql.heard_of, workers=workers) == len(workers)
                and not await self.ask(sql.unfinished, jobs=jobs)
                and not await self.ask(truths.left_over)
                and not self.unanswered()
            )

        await eventually("everything settles", nothing_is_left)

    def unanswered(self) -> set[int]:
        """Leases whose workers live and have no verdict yet."""
        self.journal.read()
        return set[int]().union(*(self.journal.unanswered[worker.name] for worker in self.workers if worker.is_alive))

    async def hanging(self) -> Sequence[str]:
        """What has not come to an end, one sentence each."""
        return await self.ask(sql.hanging) + [
            f"lease {lease} was never answered" for lease in sorted(self.unanswered())
        ]

    def complaints(self) -> Sequence[str]:
        """What managers and workers have logged since the last time and never should."""
        return [line.decode() for logs in self._logs for line in logs.read() if not _is_expected(line)]

    def missing(self) -> Sequence[str]:
        """The workers that have ended, though nobody had them killed or told them to stop."""
        gone = {worker.name: worker.process.returncode for worker in self.workers if not worker.is_alive}
        return [
            f"{name} has ended, with {code}" for name, code in gone.items() if name not in self.killed | self.drained
        ]

    def _new_manager(self, number: int) -> ManagerProcess:
        # Few connections and a short timeout, so that the pool is soon full.
        arguments = ("--database-url", self.postgres.url, "--database-connections", "4", "--database-timeout", "PT1S")
        return ManagerProcess(*arguments, log_file=self.folder / f"manager-{number + 1}.log").__enter__()

    def _new_worker(self, program: str, skills: Sequence[str]) -> WorkerProcess:
        self._hired += 1
        name = f"worker-{self._hired}"
        proxies = self.proxies if self._hired % 2 else self.proxies[::-1]
        urls = [proxy.url for proxy in proxies]
        return WorkerProcess(program, name, self.folder, skills, urls, clock_jumps=bool(self._hired % 2))

    def _end_processes(self) -> None:
        for worker in self.workers:
            worker.kill()
        for manager in self.managers:
            manager.process.kill()
            manager.stop()


async def eventually(what: str, check: Callable[[], Awaitable[Answer | None]], limit: float = LIMIT) -> Answer:
    """What a check gives, once it gives something that is true; for what nothing announces.

    Raises:
        UnsettledError: It did not happen.
    """
    deadline = time.monotonic() + limit
    while not (answer := await check()):
        if time.monotonic() > deadline:
            raise UnsettledError(f"{what}: not within {limit:.0f} s")
        await asyncio.sleep(LOOK_AGAIN)
    return answer


def _is_expected(line: bytes) -> bool:
    """Whether this may be logged while all is struck and tasks fail as planned."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return entry["level"] in {"info", "warning"} or str(entry["event"]).startswith(EXPECTED)


def _steady_port() -> int:
    """A free port below those that the kernel gives to connections: nobody takes it while the server is down."""
    for port in range(20_000, 32_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("Every port from 20000 to 32000 is taken")
