"""Whole worker processes against the real manager."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from jobnik_sdk import JobType, NewTask, Producer, Stage, StageType, TaskStatus
from pydantic import BaseModel

from tests.support.collector import Collector

FoundT = TypeVar("FoundT")
_PROGRAM = Path(__file__).with_name("worker_program.py")
plain = JobType("plain")


class Order(BaseModel):
    """What a handler of the program does."""

    begun: Path
    go: Path | None = None
    then: str = "return"


class WorkerProcess:
    """A running worker program and its log lines so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    async def line(self, event: str) -> dict[str, Any]:
        """Wait for the next log line with this event."""
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            self.lines.append(json.loads(raw))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        raise AssertionError(f"no line says {event!r}: {self.lines}")

    async def end(self) -> int:
        """Wait for its end and return its exit code."""
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            self.lines.append(json.loads(raw))
        return await self.process.wait()

    async def complaints(self) -> Sequence[str]:
        """Wait until it says no more on standard error, and return that."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode().splitlines()


Start = Callable[..., Awaitable[WorkerProcess]]
Create = Callable[..., Awaitable[Stage[Any, Any]]]


@pytest.fixture
async def start(manager_url: str, own_name: str) -> AsyncIterator[Start]:
    """Return a function that starts a worker with handlers of a style; an empty variable is as one that is not set."""
    processes: list[Process] = []
    ours = {"JOBNIK_BASE_URL": manager_url, "PROBE_HOST": "127.0.0.1", "PROBE_PORT": "0"}

    async def start(style: str, folder: Path = _PROGRAM.parent, **environment: str) -> WorkerProcess:
        said = os.environ | ours | environment
        process = await asyncio.create_subprocess_exec(
            sys.executable, _PROGRAM, own_name, style, stdout=PIPE, stderr=PIPE, env=said, cwd=folder
        )
        processes.append(process)
        return WorkerProcess(process)

    yield start
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
def orders(producer: Producer, own_name: str) -> Create:
    """Return a function that creates a stage with one task, and one attempt, for each order."""

    async def create(*orders: Order) -> Stage[Any, Any]:
        stage_type = StageType(own_name, task=Order)
        stage = await producer.create_stage(await producer.create_job(plain), stage_type)
        await producer.create_tasks(stage, stage_type, [NewTask(order, max_attempts=1) for order in orders])
        return stage

    return create


async def _appears(path: Path) -> str:
    """Wait until a file has content: a file is the only signal that reaches out of a handler's process."""
    return await asyncio.to_thread(_wait_for, lambda: path.read_text() if path.exists() else "")


async def _gone(pid: int) -> None:
    """Wait until a process has ended; nobody may have collected its exit code yet."""
    status = Path(f"/proc/{pid}/status")
    await asyncio.to_thread(_wait_for, lambda: not status.exists() or "State:\tZ" in status.read_text())


async def _stops_being_ready(port: int) -> None:
    """Wait until a worker has taken note of a signal, which its probes tell even while its event loop is blocked."""
    readiness = f"http://127.0.0.1:{port}/readyz"
    await asyncio.to_thread(_wait_for, lambda: httpx2.get(readiness).status_code == HTTPStatus.SERVICE_UNAVAILABLE)


def _wait_for(condition: Callable[[], FoundT]) -> FoundT:
    while not (found := condition()):
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("style", ["async", "thread", "process"])
async def test_signal_lets_running_tasks_finish(style: str, start: Start, orders: Create, tmp_path: Path) -> None:
    """After a signal the task in hand is finished and reported, nothing more is claimed, and the exit code is 0."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "go")
    await orders(order)
    worker = await start(style)
    await _appears(order.begun)
    worker.process.send_signal(signal.SIGINT if style == "thread" else signal.SIGTERM)
    assert order.go is not None
    order.go.touch()
    completed = await worker.line("task completed")
    assert completed["attempt"] == 1
    assert await worker.end() == 0
    assert worker.lines[-1]["event"] == "worker stopped"


@pytest.mark.parametrize("style", ["async", "thread", "process"])
async def test_second_signal_ends_it_at_once(style: str, start: Start, orders: Create, tmp_path: Path) -> None:
    """Also while a handler blocks the event loop, and no process of a handler stays."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "never")
    await orders(order)
    worker = await start(style)
    port = (await worker.line("probes and metrics are served"))["port"]
    pid = int(await _appears(order.begun))
    worker.process.send_signal(signal.SIGTERM)
    await _stops_being_ready(port)  # two signals of one number that are pending at the same time would count as one
    worker.process.send_signal(signal.SIGTERM)
    assert await worker.end() == 128 + signal.SIGTERM
    await _gone(pid)


async def test_handlers_process_that_dies_takes_no_other_along(
    start: Start, orders: Create, producer: Producer, tmp_path: Path, own_name: str
) -> None:
    """A death and a peculiar exception are failed attempts; the task beside them, and the next ones, complete."""
    slow = Order(begun=tmp_path / "slow", go=tmp_path / "go")
    stage = await orders(slow)
    await orders(Order(begun=tmp_path / "dead", then="die"))
    await orders(Order(begun=tmp_path / "peculiar", then="raise"))
    await orders(Order(begun=tmp_path / "fine"))
    worker = await start("process")
    failures = [await worker.line("task failed") for _ in range(2)]
    await worker.line("task completed")
    assert slow.go is not None
    slow.go.touch()
    await worker.line("task completed")
    worker.process.terminate()
    assert await worker.end() == 0
    assert [line["error_type"] for line in failures] == ["ProcessDiedError", "PeculiarError"]
    assert failures[-1]["error_message"] == "very peculiar"
    assert "worker_program.py" in failures[-1]["exception"]
    (task,) = await producer.get_tasks(stage, StageType(own_name, task=Order))
    assert (task.status, task.attempts) == (TaskStatus.COMPLETED, 0)


async def test_killed_worker_leaves_no_processes(start: Start, orders: Create, tmp_path: Path) -> None:
    """Not even kill -9 leaves a handler's process behind."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "never")
    await orders(order)
    worker = await start("process")
    pid = int(await _appears(order.begun))
    worker.process.kill()
    await worker.end()
    await _gone(pid)


async def test_probes_and_metrics_are_served(start: Start, orders: Create, tmp_path: Path) -> None:
    """Ready once the manager has answered, not ready while it stops; metrics count what was done."""
    first, second = (Order(begun=tmp_path / name, go=tmp_path / f"go-{name}") for name in ("first", "second"))
    await orders(first, second)
    worker = await start("process")
    port = (await worker.line("probes and metrics are served"))["port"]
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as probes:
        await _appears(first.begun)
        assert [(await probes.get(path)).status_code for path in ("/livez", "/readyz", "/startupz")] == [200] * 3
        assert first.go is not None
        assert second.go is not None
        first.go.touch()
        stage_type = (await worker.line("task completed"))["stage_type"]
        counted = f'jobnik_sdk_worker_tasks_completed_total{{stage_type="{stage_type}"}} 1.0'
        assert counted in (await probes.get("/metrics")).text
        await _appears(second.begun)
        worker.process.terminate()
        await _stops_being_ready(port)
        assert (await probes.get("/livez")).status_code == 200
        second.go.touch()
    assert await worker.end() == 0


async def test_settings_that_cannot_work_are_named(start: Start) -> None:
    """Each on a line of its own, on standard error, and the exit code is 2."""
    worker = await start("thread", JOBNIK_BASE_URL="", WORKER_CONCURRENCY="many")
    base_url, concurrency = await worker.complaints()
    assert await worker.end() == 2
    assert base_url.startswith("JOBNIK_BASE_URL is not set: ")
    assert concurrency.startswith("WORKER_CONCURRENCY: ")
    assert worker.lines == []


async def test_settings_are_read_from_env_files(start: Start, manager_url: str, tmp_path: Path) -> None:
    """What the environment does not say is in `.env`; a slip of the pen is told."""
    said = {"JOBNIK_BASE_URL": manager_url, "PROBE_HOST": "nowhere.invalid", "WORKER_CONCURENCY": "4"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in said.items()))
    worker = await start("thread", folder=tmp_path, JOBNIK_BASE_URL="")
    warning = await worker.line("this variable is no setting")
    assert (warning["variable"], warning["meant"]) == ("WORKER_CONCURENCY", "WORKER_CONCURRENCY")
    assert (await worker.line("worker started"))["manager"] == manager_url
    worker.process.terminate()
    assert await worker.end() == 0


async def test_port_that_is_taken_is_named(start: Start) -> None:
    """The exit code is 1, and one line says why."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        worker = await start("thread", PROBE_PORT=str(other.getsockname()[1]))
        assert await worker.end() == 1
        (line,) = worker.lines
        assert (line["event"], line["reason"]) == ("probes cannot be served", "Address already in use")
        assert line["port"] == other.getsockname()[1]


async def test_signal_counts_while_the_worker_is_made(start: Start, tmp_path: Path) -> None:
    """Nothing is claimed, and the exit code is 0; meanwhile the probes say what it waits for."""
    made, may_be_made = tmp_path / "made", tmp_path / "may-be-made"
    worker = await start("thread", MADE=str(made), MAY_BE_MADE=str(may_be_made))
    port = (await worker.line("probes and metrics are served"))["port"]
    await asyncio.to_thread(_wait_for, made.exists)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as probes:
        answers = [await probes.get(path) for path in ("/livez", "/readyz", "/startupz")]
    assert [answer.status_code for answer in answers] == [200, 503, 503]
    assert answers[1].text == "worker not created yet\n"
    worker.process.terminate()
    may_be_made.touch()
    assert await worker.end() == 0
    assert "claim failed" not in [line["event"] for line in worker.lines]


async def test_second_signal_counts_while_the_worker_is_made(start: Start, tmp_path: Path) -> None:
    """It ends the process at once, whatever it waits for."""
    made = tmp_path / "made"
    worker = await start("thread", MADE=str(made), MAY_BE_MADE=str(tmp_path / "never"))
    await asyncio.to_thread(_wait_for, made.exists)
    worker.process.send_signal(signal.SIGTERM)
    worker.process.send_signal(signal.SIGINT)
    assert await worker.end() in {128 + signal.SIGTERM, 128 + signal.SIGINT}


async def test_thread_that_hangs_does_not_keep_the_process(start: Start, orders: Create, tmp_path: Path) -> None:
    """What a handler left behind in a thread is told, and the exit code is 0 all the same."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "never", then="hang")
    await orders(order)
    worker = await start("async", WORKER_DRAIN_SECONDS="1")
    await _appears(order.begun)
    worker.process.terminate()
    await worker.line("a thread is left behind")
    assert await worker.end() == 0


async def test_event_loop_that_is_blocked_does_not_keep_the_process(
    start: Start, orders: Create, tmp_path: Path
) -> None:
    """The time to drain holds whatever a handler does; then the exit code is 1."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "never")
    await orders(order)
    worker = await start("async", WORKER_DRAIN_SECONDS="0.5", STOP_MARGIN_SECONDS="0.5")
    await _appears(order.begun)
    worker.process.terminate()
    await worker.line("the worker could not be stopped in time")
    assert await worker.end() == 1


async def test_spans_are_sent_before_the_process_ends(start: Start, orders: Create, tmp_path: Path) -> None:
    """A handler's own span is in the trace of its task, and its log line names it."""
    order = Order(begun=tmp_path / "begun", then="trace")
    stage = await orders(order)
    with Collector() as collector:
        (tmp_path / ".env").write_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n")
        worker = await start("thread", folder=tmp_path, OTEL_SERVICE_NAME="painter")
        line = await worker.line("obeyed")
        worker.process.terminate()
        assert await worker.end() == 0
        span = next(span for span in collector.spans if span.name == "obeying")
    assert span.resource["service.name"] == "painter"
    assert span.trace_id == stage.traceparent.split("-")[1]
    assert (line["trace_id"], line["span_id"]) == (span.trace_id, span.span_id)


async def test_collector_that_does_not_answer_holds_nothing_up(start: Start, orders: Create, tmp_path: Path) -> None:
    """The last spans have a tenth of the time to drain; then they are lost, which is told."""
    order = Order(begun=tmp_path / "begun", then="trace")
    await orders(order)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        worker = await start("thread", TELEMETRY_TRACING_URL=url, WORKER_DRAIN_SECONDS="5")
        await worker.line("task completed")
        worker.process.terminate()
        await worker.line("the last spans could not be sent in time")
        assert await worker.end() == 0
