"""Whole worker processes with the real manager."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, closing
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from jobnik_sdk import JobType, NewTask, Producer, Stage, StageType, TaskStatus
from pydantic import BaseModel

from tests.support.collector import Collector
from tests.support.forked_programs import start_worker
from tests.support.processes import wait_until_gone
from tools.manager import Process
from tools.snapshot import ROOT

FoundT = TypeVar("FoundT")
_PROGRAM = "tests.integration.sdk.worker_program"
plain = JobType("plain")


class Order(BaseModel):
    """The data of a task; see `worker_program.py`."""

    begun: Path
    go: Path | None = None
    then: str = "return"


class WorkerProcess:
    """A worker process, with the log lines that have been read."""

    def __init__(self, process: Process, output: asyncio.StreamReader, errors: asyncio.StreamReader) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._output = output
        self._errors = errors

    async def wait_for_log(self, event: str) -> dict[str, Any]:
        """Wait for the next log line with this event."""
        async for raw in self._output:
            self.lines.append(json.loads(raw))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        raise AssertionError(f"no log line with event {event!r}: {self.lines}")

    async def wait_for_exit(self) -> int:
        """Wait until the process has ended, and return its exit code."""
        async for raw in self._output:
            self.lines.append(json.loads(raw))
        return await asyncio.to_thread(self.process.wait)

    async def read_errors(self) -> Sequence[str]:
        """Read the lines of standard error until it is closed."""
        return (await self._errors.read()).decode().splitlines()

    async def kill(self) -> None:
        """End it, unless it has ended."""
        self.process.kill()
        await asyncio.gather(self._output.read(), self._errors.read(), asyncio.to_thread(self.process.wait))


async def _read(descriptor: int) -> asyncio.StreamReader:
    """Return a reader of a pipe, which is closed at its end."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(descriptor, "rb"))
    return reader


Start = Callable[..., Awaitable[WorkerProcess]]
Create = Callable[..., Awaitable[Stage[Any, Any]]]


@pytest.fixture
async def start(manager_url: str, own_name: str) -> AsyncIterator[Start]:
    """Return a function that starts a worker with a handler of a style; an empty variable counts as not set."""
    ours = {"JOBNIK_BASE_URL": manager_url, "PROBE_HOST": "127.0.0.1", "PROBE_PORT": "0", "PYTHONPATH": str(ROOT)}

    async def start(style: str, folder: Path = ROOT, *, closed: bool = False, **environment: str) -> WorkerProcess:
        variables, arguments = os.environ | ours | environment, (own_name, style)
        (reading, output), (reading_errors, errors) = os.pipe(), os.pipe()
        if closed:
            command = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", _PROGRAM, *arguments]
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own program, which starts as the forks do
                command, cwd=folder, env=variables, stdout=output, stderr=errors
            )
        else:
            process = start_worker(_PROGRAM, arguments, variables, output, errors=errors, folder=folder)
        os.close(output)
        os.close(errors)
        worker = WorkerProcess(process, await _read(reading), await _read(reading_errors))
        stack.push_async_callback(worker.kill)
        return worker

    async with AsyncExitStack() as stack:
        yield start


@pytest.fixture
def orders(producer: Producer, own_name: str) -> Create:
    """Return a function that creates a stage with a task for each order; each task has one attempt."""

    async def create(*orders: Order) -> Stage[Any, Any]:
        stage_type = StageType(own_name, task=Order)
        stage = await producer.create_stage(await producer.create_job(plain), stage_type)
        await producer.create_tasks(stage, stage_type, [NewTask(order, max_attempts=1) for order in orders])
        return stage

    return create


async def _wait_for_content(path: Path) -> str:
    """Wait until a file has content, and return it: a handler in a process has no other way to give a signal."""
    return await asyncio.to_thread(_wait_for, lambda: path.read_text() if path.exists() else "")


async def _wait_until_not_ready(port: int) -> None:
    """Wait until a worker has handled a signal; its probes respond even while its event loop is blocked."""
    readiness = f"http://127.0.0.1:{port}/readyz"
    await asyncio.to_thread(_wait_for, lambda: httpx2.get(readiness).status_code == HTTPStatus.SERVICE_UNAVAILABLE)


def _wait_for(condition: Callable[[], FoundT]) -> FoundT:
    while not (found := condition()):
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("style", ["async", "thread", "process"])
async def test_a_signal_lets_running_tasks_finish(style: str, start: Start, orders: Create, tmp_path: Path) -> None:
    """The running task is finished and reported, no further task is claimed, and the exit code is 0."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "go")
    await orders(order)
    worker = await start(style)
    await _wait_for_content(order.begun)
    worker.process.send_signal(signal.SIGINT if style == "thread" else signal.SIGTERM)
    assert order.go is not None
    order.go.touch()
    completed = await worker.wait_for_log("task completed")
    assert completed["attempt"] == 1
    assert await worker.wait_for_exit() == 0
    assert worker.lines[-1]["event"] == "worker stopped"


@pytest.mark.parametrize("style", ["async", "thread", "process"])
async def test_a_second_signal_ends_the_process_at_once(
    style: str, start: Start, orders: Create, tmp_path: Path
) -> None:
    """This works even while a handler blocks the event loop, and leaves no process of a handler behind."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "never")
    await orders(order)
    worker = await start(style)
    port = (await worker.wait_for_log("serving probes and metrics"))["port"]
    pid = int(await _wait_for_content(order.begun))
    worker.process.send_signal(signal.SIGTERM)
    await _wait_until_not_ready(port)  # two pending signals of one number count as one
    worker.process.send_signal(signal.SIGTERM)
    assert await worker.wait_for_exit() == 128 + signal.SIGTERM
    await wait_until_gone([pid])


async def test_a_process_that_dies_affects_no_other(
    start: Start, orders: Create, producer: Producer, tmp_path: Path, own_name: str
) -> None:
    """A crash and an exception that cannot be pickled fail their attempts; other tasks complete."""
    slow = Order(begun=tmp_path / "slow", go=tmp_path / "go")
    stage = await orders(slow)
    await orders(Order(begun=tmp_path / "dead", then="die"))
    await orders(Order(begun=tmp_path / "peculiar", then="raise"))
    await orders(Order(begun=tmp_path / "fine"))
    worker = await start("process")
    failures = [await worker.wait_for_log("task failed") for _ in range(2)]
    await worker.wait_for_log("task completed")
    assert slow.go is not None
    slow.go.touch()
    await worker.wait_for_log("task completed")
    worker.process.terminate()
    assert await worker.wait_for_exit() == 0
    assert [line["error_type"] for line in failures] == ["ProcessDiedError", "PeculiarError"]
    assert failures[-1]["error_message"] == "very peculiar"
    assert "worker_program.py" in failures[-1]["exception"]
    (task,) = await producer.get_tasks(stage, StageType(own_name, task=Order))
    assert (task.status, task.attempts) == (TaskStatus.COMPLETED, 0)


async def test_a_killed_worker_leaves_no_processes(start: Start, orders: Create, tmp_path: Path) -> None:
    """The processes of handlers end with the worker, even after SIGKILL."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "never")
    await orders(order)
    worker = await start("process")
    pid = int(await _wait_for_content(order.begun))
    worker.process.kill()
    await worker.wait_for_exit()
    await wait_until_gone([pid])


async def test_probes_and_metrics_are_served(start: Start, orders: Create, tmp_path: Path) -> None:
    """The worker is ready when the manager has answered, and not while it stops. Metrics count its tasks."""
    first, second = (Order(begun=tmp_path / name, go=tmp_path / f"go-{name}") for name in ("first", "second"))
    await orders(first, second)
    worker = await start("process")
    port = (await worker.wait_for_log("serving probes and metrics"))["port"]
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as probes:
        await _wait_for_content(first.begun)
        assert [(await probes.get(path)).status_code for path in ("/livez", "/readyz", "/startupz")] == [200] * 3
        assert first.go is not None
        assert second.go is not None
        first.go.touch()
        stage_type = (await worker.wait_for_log("task completed"))["stage_type"]
        counted = f'jobnik_sdk_worker_tasks_completed_total{{stage_type="{stage_type}"}} 1.0'
        assert counted in (await probes.get("/metrics")).text
        await _wait_for_content(second.begun)
        worker.process.terminate()
        await _wait_until_not_ready(port)
        assert (await probes.get("/livez")).status_code == 200
        second.go.touch()
    assert await worker.wait_for_exit() == 0


async def test_invalid_settings_are_named(start: Start) -> None:
    """Each setting has a line on standard error, and the exit code is 2."""
    worker = await start("thread", JOBNIK_BASE_URL="", WORKER_CONCURRENCY="many")
    base_url, concurrency = await worker.read_errors()
    assert await worker.wait_for_exit() == 2
    assert base_url.startswith("JOBNIK_BASE_URL is not set: ")
    assert concurrency.startswith("WORKER_CONCURRENCY: ")
    assert worker.lines == []


async def test_settings_are_read_from_env_files(start: Start, manager_url: str, tmp_path: Path) -> None:
    """Variables that the environment does not have are read from `.env`; a misspelled one is logged."""
    variables = {"JOBNIK_BASE_URL": manager_url, "PROBE_HOST": "nowhere.invalid", "WORKER_CONCURENCY": "4"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    worker = await start("thread", folder=tmp_path, JOBNIK_BASE_URL="")
    warning = await worker.wait_for_log("unknown setting")
    assert (warning["variable"], warning["did_you_mean"]) == ("WORKER_CONCURENCY", "WORKER_CONCURRENCY")
    assert (await worker.wait_for_log("worker started"))["manager"] == manager_url
    worker.process.terminate()
    assert await worker.wait_for_exit() == 0


async def test_a_port_in_use_ends_the_process(start: Start) -> None:
    """The exit code is 1, and a log line has the reason."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        worker = await start("thread", PROBE_PORT=str(other.getsockname()[1]))
        assert await worker.wait_for_exit() == 1
        (line,) = worker.lines
        assert (line["event"], line["reason"]) == ("cannot serve probes", "Address already in use")
        assert line["port"] == other.getsockname()[1]


async def test_a_signal_counts_while_the_worker_is_created(start: Start, tmp_path: Path) -> None:
    """No task is claimed, and the exit code is 0. Until then, the probes tell what the process waits for."""
    made, may_be_made = tmp_path / "made", tmp_path / "may-be-made"
    worker = await start("thread", MADE=str(made), MAY_BE_MADE=str(may_be_made))
    port = (await worker.wait_for_log("serving probes and metrics"))["port"]
    await asyncio.to_thread(_wait_for, made.exists)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as probes:
        answers = [await probes.get(path) for path in ("/livez", "/readyz", "/startupz")]
    assert [answer.status_code for answer in answers] == [200, 503, 503]
    assert answers[1].text == "worker not created yet\n"
    worker.process.terminate()
    may_be_made.touch()
    assert await worker.wait_for_exit() == 0
    assert "claim failed" not in [line["event"] for line in worker.lines]


async def test_a_second_signal_counts_while_the_worker_is_created(start: Start, tmp_path: Path) -> None:
    """It ends the process at once."""
    made = tmp_path / "made"
    worker = await start("thread", MADE=str(made), MAY_BE_MADE=str(tmp_path / "never"))
    await asyncio.to_thread(_wait_for, made.exists)
    worker.process.send_signal(signal.SIGTERM)
    worker.process.send_signal(signal.SIGINT)
    assert await worker.wait_for_exit() in {128 + signal.SIGTERM, 128 + signal.SIGINT}


async def test_resources_are_open_while_the_worker_runs(start: Start, orders: Create, tmp_path: Path) -> None:
    """They are opened before the first claim, and closed after the last report."""
    order, resource = Order(begun=tmp_path / "begun", go=tmp_path / "go"), tmp_path / "resource"
    await orders(order)
    worker = await start("thread", RESOURCE=str(resource))
    await _wait_for_content(order.begun)
    assert resource.read_text() == "opening\nopen\n"
    worker.process.terminate()
    await worker.wait_for_log("worker draining")
    assert resource.read_text() == "opening\nopen\n"
    assert order.go is not None
    order.go.touch()
    assert await worker.wait_for_exit() == 0
    assert resource.read_text() == "opening\nopen\nclosed\n"


async def test_a_signal_interrupts_the_opening_of_resources(start: Start, tmp_path: Path) -> None:
    """A database that does not respond does not delay the exit, and the exit code is 0."""
    resource = tmp_path / "resource"
    worker = await start("async", RESOURCE=str(resource), RESOURCE_RESPONDS=str(tmp_path / "never"))
    await _wait_for_content(resource)
    worker.process.terminate()
    await worker.wait_for_log("stopped before the worker was created")
    assert await worker.wait_for_exit() == 0
    assert resource.read_text() == "opening\nclosed\n"


async def test_a_thread_that_hangs_is_abandoned(start: Start, orders: Create, tmp_path: Path) -> None:
    """A hanging call in `asyncio.to_thread` is logged, and the exit code is 0."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "never", then="hang")
    await orders(order)
    worker = await start("async", WORKER_DRAIN_SECONDS="1")
    await _wait_for_content(order.begun)
    worker.process.terminate()
    await worker.wait_for_log("thread abandoned")
    assert await worker.wait_for_exit() == 0


async def test_a_thread_that_a_handler_leaves_is_abandoned(start: Start, orders: Create, tmp_path: Path) -> None:
    """The worker ends, although Python would wait forever for a thread that is not a daemon."""
    await orders(Order(begun=tmp_path / "begun", then="start a thread"))
    worker = await start("async", WORKER_DRAIN_SECONDS="1")
    await worker.wait_for_log("task completed")
    worker.process.terminate()
    await worker.wait_for_log("thread abandoned")
    assert await worker.wait_for_exit() == 0


@pytest.mark.parametrize("then", ["stop the loop", "exit in a callback", "interrupt in a callback"])
async def test_a_handler_cannot_stop_the_event_loop(then: str, start: Start, orders: Create, tmp_path: Path) -> None:
    """The handler's own attempt and later ones complete, and the worker stops cleanly."""
    await orders(Order(begun=tmp_path / "begun", then=then), Order(begun=tmp_path / "next"))
    worker = await start("async")
    await worker.wait_for_log("event loop stopped by a handler, continuing")
    for attempt in range(2):
        assert (await worker.wait_for_log("task completed"))["attempt"] == 1, attempt
    worker.process.terminate()
    assert await worker.wait_for_exit() == 0


@pytest.mark.parametrize("style", ["async", "process"])
async def test_closed_standard_streams_are_opened(style: str, start: Start, orders: Create, tmp_path: Path) -> None:
    """Otherwise connections would get their numbers, and programs of a handler would write to them."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "go")
    await orders(order)
    assert order.go is not None
    worker = await start(style, closed=True)
    pid = await _wait_for_content(order.begun)
    assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {os.devnull}  # noqa: PTH115 no I/O
    order.go.touch()
    worker.process.terminate()
    assert await worker.wait_for_exit() == 0


async def test_a_blocked_event_loop_does_not_keep_the_process_alive(
    start: Start, orders: Create, tmp_path: Path
) -> None:
    """The process ends when the drain timeout has passed, with exit code 1."""
    order = Order(begun=tmp_path / "begun", go=tmp_path / "never")
    await orders(order)
    worker = await start("async", WORKER_DRAIN_SECONDS="0.5", STOP_MARGIN_SECONDS="0.5")
    await _wait_for_content(order.begun)
    worker.process.terminate()
    await worker.wait_for_log("worker did not stop in time, exiting")
    assert await worker.wait_for_exit() == 1


async def test_spans_are_flushed_before_the_process_ends(start: Start, orders: Create, tmp_path: Path) -> None:
    """A span that the handler creates belongs to the trace of its task, and the log line has its ids."""
    order = Order(begun=tmp_path / "begun", then="trace")
    stage = await orders(order)
    with Collector() as collector:
        (tmp_path / ".env").write_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n")
        worker = await start("thread", folder=tmp_path, OTEL_SERVICE_NAME="painter")
        line = await worker.wait_for_log("obeyed")
        worker.process.terminate()
        assert await worker.wait_for_exit() == 0
        span = next(span for span in collector.spans if span.name == "obeying")
    assert span.resource["service.name"] == "painter"
    assert span.trace_id == stage.traceparent.split("-")[1]
    assert (line["trace_id"], line["span_id"]) == (span.trace_id, span.span_id)


async def test_a_collector_that_does_not_respond_delays_the_end_only_briefly(
    start: Start, orders: Create, tmp_path: Path
) -> None:
    """After a tenth of the drain time, the last spans are lost, and this is logged."""
    order = Order(begun=tmp_path / "begun", then="trace")
    await orders(order)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        worker = await start("thread", TELEMETRY_TRACING_URL=url, WORKER_DRAIN_SECONDS="5")
        await worker.wait_for_log("task completed")
        worker.process.terminate()
        await worker.wait_for_log("spans not sent in time")
        assert await worker.wait_for_exit() == 0
