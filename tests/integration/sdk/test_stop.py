"""Whatever hangs, a worker process ends in time after a signal, and its tasks are released."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from jobnik_sdk import JobnikClient, JobType, NewStage, NewTask, Producer, StageType
from jobnik_sdk.service import process

from tests.integration.sdk.stop_program import CONCURRENCY, Nothing

_PROGRAM: Final = Path(__file__).with_name("stop_program.py")
_DRAIN_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 10.0
"""How long the end of a process may take on a busy machine, in addition to what is promised."""


class StoppedWorker:
    """A worker process with the log lines that it has written."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.process = child
        self.events: list[str] = []
        self._signalled_at = 0.0

    async def wait_for_log(self, event: str) -> None:
        """Wait for the next log line with this event."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.events.append(json.loads(line)["event"])
            if self.events[-1] == event:
                return
        raise AssertionError(f"no log line with event {event!r}: {self.events}")

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal."""
        self._signalled_at = time.monotonic()
        self.process.send_signal(number)

    async def wait_for_exit(self, within: float) -> int:
        """Wait until the process has ended, and return its exit code; check how long it took since the last signal."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.events.append(json.loads(line)["event"])
        code = await self.process.wait()
        assert time.monotonic() - self._signalled_at < within + _BUSY_SECONDS
        return code


Start = Callable[[str], Awaitable[StoppedWorker]]


@pytest.fixture
async def start(manager_url: str, own_name: str) -> AsyncIterator[Start]:
    """Return a function that starts a worker in which something hangs."""
    children: list[asyncio.subprocess.Process] = []
    environment = os.environ | {
        "JOBNIK_BASE_URL": manager_url,
        "PROBE_HOST": "127.0.0.1",
        "PROBE_PORT": "0",
        "WORKER_DRAIN_SECONDS": str(_DRAIN_SECONDS),
    }

    async def start(fault: str) -> StoppedWorker:
        children.append(
            await asyncio.create_subprocess_exec(
                sys.executable, _PROGRAM, own_name, fault, stdout=subprocess.PIPE, env=environment
            )
        )
        return StoppedWorker(children[-1])

    yield start
    for child in children:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def _create_tasks(client: JobnikClient, name: str, number: int = 1) -> Any:  # noqa: ANN401 a stage
    stage = NewStage(StageType(name, task=Nothing), [NewTask(Nothing(), max_attempts=1)] * number)
    return (await Producer(client).create_job(JobType("plain"), stages=[stage])).stages[0]


async def _tasks(client: JobnikClient, stage: Any) -> list[tuple[str, int]]:  # noqa: ANN401 a stage
    tasks: list[Any] = (await client.request("GET", f"/v1/stages/{stage.id}/tasks")).json()
    return [(task["status"], task["attempts"]) for task in tasks]


@pytest.mark.parametrize(
    "fault",
    [
        "resource that does not open",
        "async lifespan that does not open",
        "thread lifespan that does not open",
        "process lifespan that does not open",
    ],
)
async def test_what_does_not_open_does_not_delay_a_stop(
    start: Start, client: JobnikClient, own_name: str, fault: str
) -> None:
    """The worker ends with code 0, although what opens ignores the cancellation; its task is released."""
    stage = await _create_tasks(client, own_name)
    worker = await start(fault)
    await worker.wait_for_log("hanging")
    worker.signal()
    assert await worker.wait_for_exit(_DRAIN_SECONDS + process.STOP_MARGIN_SECONDS) == 0
    assert await _tasks(client, stage) == [("PENDING", 0)]


@pytest.mark.parametrize(
    "fault",
    [
        "resource that does not close",
        "async lifespan that does not close",
        "thread lifespan that does not close",
        "process lifespan that does not close",
        "handler that ignores cancellation",
        "handler that leaves a process",
    ],
)
async def test_what_does_not_close_is_abandoned(start: Start, client: JobnikClient, own_name: str, fault: str) -> None:
    """The worker ends with code 0, and its task has been released before."""
    stage = await _create_tasks(client, own_name)
    worker = await start(fault)
    await worker.wait_for_log("running")
    worker.signal()
    assert await worker.wait_for_exit(_DRAIN_SECONDS + process.STOP_MARGIN_SECONDS) == 0
    assert await _tasks(client, stage) == [("PENDING", 0)]


async def test_a_worker_without_free_threads_releases_its_tasks(
    start: Start, client: JobnikClient, own_name: str
) -> None:
    """Nothing that a stop needs waits for a thread of `asyncio.to_thread`."""
    stage = await _create_tasks(client, own_name, CONCURRENCY)
    worker = await start("handler that occupies all threads")
    for _ in range(CONCURRENCY):
        await worker.wait_for_log("running")
    worker.signal()
    assert await worker.wait_for_exit(_DRAIN_SECONDS + process.STOP_MARGIN_SECONDS) == 0
    assert await _tasks(client, stage) == [("PENDING", 0)] * CONCURRENCY


_only_linux: Final = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not name a writer's process")


@pytest.mark.parametrize("fault", ["settings that hang", pytest.param("settings that block", marks=_only_linux)])
async def test_a_signal_ends_the_reading_of_settings(start: Start, fault: str) -> None:
    """The process ends at once with code 0, because it has claimed nothing, and its drain time is not known yet."""
    worker = await start(fault)
    await worker.wait_for_log("hanging")
    worker.signal()
    assert await worker.wait_for_exit(0) == 0


@_only_linux
@pytest.mark.parametrize("fault", ["resource that blocks", "handler that blocks"])
async def test_a_signal_limits_the_time_of_c_code(
    start: Start, client: JobnikClient, own_name: str, fault: str
) -> None:
    """The process ends with code 1 after its time, although Python cannot run its signal handler meanwhile."""
    await _create_tasks(client, own_name)
    worker = await start(fault)
    await worker.wait_for_log("hanging")
    worker.signal()
    assert await worker.wait_for_exit(_DRAIN_SECONDS + process.STOP_MARGIN_SECONDS) == 1
    assert "worker did not stop in time, exiting" in worker.events


@_only_linux
async def test_a_second_signal_interrupts_c_code(start: Start) -> None:
    """The process ends at once, with the code of a signal."""
    worker = await start("resource that blocks")
    await worker.wait_for_log("hanging")
    worker.signal()
    worker.signal(signal.SIGINT)
    assert await worker.wait_for_exit(0) in {128 + signal.SIGTERM, 128 + signal.SIGINT}
