"""Worker processes for tests of failures, with journals and logs that tests read."""

import asyncio
import inspect
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx2

from tests.support.forked_programs import start_worker
from tests.support.journal import NewLines
from tests.support.protocol import Client
from tests.support.sdk_worker import Event

Found = TypeVar("Found")
Entity = dict[str, Any]

STYLES = ("async", "thread", "process")
ROOT = Path(__file__).parents[3]
LOOK_AGAIN = 0.02
"""Seconds between two checks of a condition."""


class WorkerProcess:
    """One run of ``sdk_worker.py``, with the part of its journal and log that has been read.

    Args:
        folder: The folder of both.
        name: The name of the worker.
        environment: Further environment variables.
        output: A file descriptor for its standard output and error, instead of its log.
    """

    def __init__(self, folder: Path, name: str, environment: dict[str, str], output: int | None = None) -> None:
        self.journal: list[Entity] = []
        self.log: list[Entity] = []
        self._new = [NewLines(folder, f"{name}.journal"), NewLines(folder, f"{name}.log")]
        ours = {"JOURNAL": str(folder / f"{name}.journal"), "PROBE_HOST": "127.0.0.1", "PROBE_PORT": "0"}
        with (folder / f"{name}.log").open("w") as log:
            stream = log.fileno() if output is None else output
            self.process = start_worker(
                "tests.support.sdk_worker", (), os.environ | ours | environment, stream, forked=output is None
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def read(self) -> None:
        """Read new lines."""
        for lines, new in zip((self.journal, self.log), self._new, strict=True):
            lines += [json.loads(line) for line in new.read()]

    def entries(self, event: Event) -> list[Entity]:
        """Return the journal entries of its handlers with this event."""
        self.read()
        return [entry for entry in self.journal if entry["event"] == event]

    async def wait_for_entries(self, event: Event, count: int, *, within: float = 40) -> list[Entity]:
        """Wait until its handlers have written `count` entries with this event, and return all of them."""
        await eventually(f"{count} times {event}", lambda: len(self.entries(event)) >= count, within)
        return self.entries(event)

    async def wait_for_log(self, event: str, count: int = 1) -> Sequence[Entity]:
        """Wait until its log has `count` lines with this event, and return them."""

        def lines() -> Sequence[Entity] | None:
            self.read()
            found = [line for line in self.log if line["event"] == event]
            return found if len(found) >= count else None

        return await eventually(f"{count} times in the log: {event}", lines)

    async def wait_until_ready(self, *, ready: bool = True) -> None:
        """Wait until its readiness probe succeeds, or, with `ready=False`, fails."""
        port = (await self.wait_for_log("serving probes and metrics"))[0]["port"]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as probes:

            async def matches() -> bool:
                return (await probes.get("/readyz")).is_success == ready

            await eventually(f"ready: {ready}", matches)

    async def wait_for_exit(self, within: float = 40) -> int:
        """Wait until the process has ended, and return its exit code."""
        return await asyncio.to_thread(self.process.wait, within)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()
        self.process.wait()


class Site:
    """The tasks and workers of one test.

    Args:
        folder: The folder of journals, logs, and the files that tasks wait for.
        name: The prefix of its stage types.
        manager: The manager's address, for requests of the test itself.
    """

    def __init__(self, folder: Path, name: str, manager: str) -> None:
        self.folder = folder
        self.name = name
        self.manager = manager
        self._workers: list[WorkerProcess] = []
        self._tasks: list[Entity] = []
        self._http = httpx2.AsyncClient(timeout=15)

    async def close(self) -> None:
        """Kill all workers."""
        for worker in self._workers:
            worker.kill()
        await self._http.aclose()

    def worker(self, manager: str = "", output: int | None = None, /, **environment: str) -> WorkerProcess:
        """Start a worker; by default, it has a slot of each style, and writes a log."""
        ours = {
            "JOBNIK_BASE_URL": manager or self.manager,
            "STAGE_TYPE": self.name,
            "SLOTS": json.dumps(dict.fromkeys(STYLES, 1)),
            # One second on average, so that the circuit breaker of claims stays closed while a manager is away.
            "WORKER_RETRY_INITIAL_DELAY_MS": "2000",
            "WORKER_RETRY_MAX_DELAY_MS": "2000",
        }
        self._workers.append(WorkerProcess(self.folder, f"worker-{len(self._workers)}", ours | environment, output))
        return self._workers[-1]

    async def create_tasks(self, go: str, **counts: int) -> None:
        """Create tasks of each style, by default one; their handlers end when the file `go` exists."""
        self._http.base_url = self.manager  # the manager may have been replaced
        protocol = Client(self._http)
        for style, count in (counts or dict.fromkeys(STYLES, 1)).items():
            stage = await protocol.stage(await protocol.job(), f"{self.name}-{style}")
            body = [{"data": {"go": str(self.folder / go)}, "maxAttempts": 9}] * count
            answer = await self._http.post(f"/v1/stages/{stage['id']}/tasks", json=body)
            assert answer.is_success, answer.text
            self._tasks += answer.json()

    def go(self, go: str) -> None:
        """Create the file that lets handlers end."""
        (self.folder / go).touch()

    async def tasks(self) -> list[Entity]:
        """Return all tasks, in the order of their creation."""
        return [await self.get(f"/v1/tasks/{task['id']}") for task in self._tasks]

    async def attempts(self) -> list[list[Entity]]:
        """Return the attempts at each task."""
        return [await self.get(f"/v1/tasks/{task['id']}/attempts") for task in self._tasks]

    async def outcomes(self) -> list[list[str]]:
        """Return the outcomes of the attempts at each task."""
        return [[attempt["outcome"] for attempt in attempts] for attempts in await self.attempts()]

    async def wait_until_completed(self) -> list[list[Entity]]:
        """Wait until all tasks are completed, and return their attempts, of which only the last has completed."""
        waited_for = [task["id"] for task in self._tasks]

        async def done() -> bool:
            # Most looks end at the first task, so that they leave the machine to the workers.
            while waited_for and (await self.get(f"/v1/tasks/{waited_for[-1]}"))["status"] == "COMPLETED":
                waited_for.pop()
            return not waited_for

        await eventually("all tasks are completed", done, within=45)  # the worker may pause its claims first
        all_attempts = await self.attempts()
        for task, attempts in zip(await self.tasks(), all_attempts, strict=True):
            assert [attempt["outcome"] for attempt in attempts].index("COMPLETED") == len(attempts) - 1
            written = {
                (entry["task"], entry["attempt"]) for worker in self._workers for entry in worker.entries(Event.ENDED)
            }
            assert (task["id"], task["result"]["attempt"]) in written, "no handler ran this task"
        return all_attempts

    async def get(self, path: str) -> Any:  # noqa: ANN401 any JSON
        """Return the manager's response."""
        answer = await self._http.get(f"{self.manager}{path}")
        assert answer.is_success, answer.text
        return answer.json()


async def eventually(
    what: str, check: Callable[[], Found | None] | Callable[[], Awaitable[Found | None]], within: float = 40
) -> Found:
    """Repeat `check` until it returns a true value, and return that; for conditions without a signal."""
    deadline = time.monotonic() + within
    while True:
        found: Any = check()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return cast("Found", found)
        assert time.monotonic() < deadline, f"{what}: not within {within:.0f} s"
        await asyncio.sleep(LOOK_AGAIN)
