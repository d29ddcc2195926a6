"""Where workers of the SDK get into trouble: processes, with journals and logs that tests read."""

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx2
from reference_manager.embedded.process import end_with_parent

from tests.support.journal import NewLines
from tests.support.protocol import Client
from tests.support.sdk_worker import Event

Found = TypeVar("Found")
Entity = dict[str, Any]

STYLES = ("async", "thread", "process")
ROOT = Path(__file__).parents[3]
LOOK_AGAIN = 0.02
"""Seconds between two looks at what nothing announces."""


class WorkerProcess:
    """One run of ``sdk_worker.py``, with its journal and its log as far as they are read.

    Args:
        folder: For both.
        name: Its own.
        environment: What it is told besides.
    """

    def __init__(self, folder: Path, name: str, environment: dict[str, str]) -> None:
        self.journal: list[Entity] = []
        self.log: list[Entity] = []
        self._new = [NewLines(folder, f"{name}.journal"), NewLines(folder, f"{name}.log")]
        ours = {"JOURNAL": str(folder / f"{name}.journal"), "PROBE_HOST": "127.0.0.1", "PROBE_PORT": "0"}
        with (folder / f"{name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.sdk_worker"],
                cwd=ROOT,
                env=os.environ | ours | environment,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - a run that is killed leaves no worker behind
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def read(self) -> None:
        """Read what is new."""
        for lines, new in zip((self.journal, self.log), self._new, strict=True):
            lines += [json.loads(line) for line in new.read()]

    def of(self, event: Event) -> list[Entity]:
        """What its handlers have written down of one kind."""
        self.read()
        return [entry for entry in self.journal if entry["event"] == event]

    async def noted(self, event: Event, count: int, *, within: float = 15) -> list[Entity]:
        """Wait until its handlers have written down so many."""
        await eventually(f"{count} times {event}", lambda: len(self.of(event)) >= count, within)
        return self.of(event)

    async def said(self, event: str, count: int = 1) -> Sequence[Entity]:
        """Wait until its log has so many lines with this event."""

        def lines() -> Sequence[Entity] | None:
            self.read()
            found = [line for line in self.log if line["event"] == event]
            return found if len(found) >= count else None

        return await eventually(f"{count} times in the log: {event}", lines)

    async def is_ready(self, ready: bool = True) -> None:  # noqa: FBT001, FBT002 - reads like the word
        """Wait until it is ready, or is not."""
        port = (await self.said("probes and metrics are served"))[0]["port"]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as probes:

            async def as_wished() -> bool:
                return (await probes.get("/readyz")).is_success == ready

            await eventually(f"ready: {ready}", as_wished)

    async def end(self, within: float = 15) -> int:
        """Wait for its end; its exit code."""
        return await asyncio.to_thread(self.process.wait, within)

    def kill(self) -> None:
        """End it with kill -9."""
        self.process.kill()
        self.process.wait()


class Site:
    """One test's tasks and workers.

    Args:
        folder: For journals, logs, and the files that tasks wait for.
        name: What its stage types begin with.
        manager: The manager's address, for the test itself.
    """

    def __init__(self, folder: Path, name: str, manager: str) -> None:
        self.folder = folder
        self.name = name
        self.manager = manager
        self._workers: list[WorkerProcess] = []
        self._tasks: list[Entity] = []
        self._http = httpx2.AsyncClient(timeout=15)

    async def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.kill()
        await self._http.aclose()

    def worker(self, manager: str = "", **environment: str) -> WorkerProcess:
        """Start a worker, with a slot of each style unless it is told otherwise."""
        ours = {
            "JOBNIK_BASE_URL": manager or self.manager,
            "STAGE_TYPE": self.name,
            "SLOTS": json.dumps(dict.fromkeys(STYLES, 1)),
            # A second on average: no more than the circuit breaker of claims puts up with while a manager is away.
            "WORKER_RETRY_INITIAL_DELAY_MS": "2000",
            "WORKER_RETRY_MAX_DELAY_MS": "2000",
        }
        self._workers.append(WorkerProcess(self.folder, f"worker-{len(self._workers)}", ours | environment))
        return self._workers[-1]

    async def fill(self, go: str, **counts: int) -> None:
        """Create so many tasks of each style, one of each if none is named; they are done when told to `go`."""
        self._http.base_url = self.manager  # it may have been replaced
        protocol = Client(self._http)
        for style, count in (counts or dict.fromkeys(STYLES, 1)).items():
            stage = await protocol.stage(await protocol.job(), f"{self.name}-{style}")
            body = [{"data": {"go": str(self.folder / go)}, "maxAttempts": 9}] * count
            answer = await self._http.post(f"/v1/stages/{stage['id']}/tasks", json=body)
            assert answer.is_success, answer.text
            self._tasks += answer.json()

    def go(self, go: str) -> None:
        """Let tasks be done."""
        (self.folder / go).touch()

    async def tasks(self) -> list[Entity]:
        """All tasks, in the order of their creation."""
        return await asyncio.gather(*(self.ask(f"/v1/tasks/{task['id']}") for task in self._tasks))

    async def attempts(self) -> list[list[Entity]]:
        """The attempts at each of them."""
        return await asyncio.gather(*(self.ask(f"/v1/tasks/{task['id']}/attempts") for task in self._tasks))

    async def outcomes(self) -> list[list[str]]:
        """The outcomes of the attempts at each of them."""
        return [[attempt["outcome"] for attempt in attempts] for attempts in await self.attempts()]

    async def completed(self) -> list[list[Entity]]:
        """Wait until all tasks are completed; their attempts, of which the last and no other completed each."""

        async def done() -> bool:
            return all(task["status"] == "COMPLETED" for task in await self.tasks())

        await eventually("all tasks are completed", done)
        all_attempts = await self.attempts()
        for task, attempts in zip(await self.tasks(), all_attempts, strict=True):
            assert [attempt["outcome"] for attempt in attempts].index("COMPLETED") == len(attempts) - 1
            written = {
                (entry["task"], entry["attempt"]) for worker in self._workers for entry in worker.of(Event.ENDED)
            }
            assert (task["id"], task["result"]["attempt"]) in written, "a task that no handler did"
        return all_attempts

    async def ask(self, path: str) -> Any:  # noqa: ANN401 any JSON
        """What the manager answers."""
        answer = await self._http.get(f"{self.manager}{path}")
        assert answer.is_success, answer.text
        return answer.json()


async def eventually(
    what: str, check: Callable[[], Found | None] | Callable[[], Awaitable[Found | None]], within: float = 15
) -> Found:
    """What a check gives, once it gives something that is true; for what nothing announces."""
    deadline = time.monotonic() + within
    while True:
        found: Any = check()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return cast("Found", found)
        assert time.monotonic() < deadline, f"{what}: not within {within:.0f} s"
        await asyncio.sleep(LOOK_AGAIN)


def is_alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
