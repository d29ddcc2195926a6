"""A worker of the SDK with handlers of all styles, which chaos stops and kills at any time.

The handlers and the transport write to the journal. The transport also adds the lease to the data of each task, because
the plan of an attempt depends on it.

Usage: python -m tests.chaos.sdk_worker NAME JOURNAL LEASE_SECONDS STAGE_TYPES URLS, the last two separated by commas.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import httpx2
from jobnik_sdk import (
    CallNext,
    DoNotRetry,
    Handler,
    HandlerStyle,
    JobnikClient,
    Outcome,
    Released,
    RetryLater,
    Snooze,
    StageType,
    TaskContext,
    Worker,
    WorkerSettings,
    run,
)
from jobnik_sdk.execution.handler import AnyHandler
from pydantic import BaseModel
from typing_extensions import override

from tests.chaos import plan
from tests.chaos.journal import Event, JournalWriter
from tests.chaos.worker import BUSY
from tests.support import jumping_clock
from tests.support.processes import hold_the_gil

BURST_SECONDS = 0.005
"""How long a handler in the worker's own process runs C code that holds Python's lock. In a process, it does so for all
of its time, so a worker may be killed while each of its handlers does."""
HOLDING = "holding"
"""While a file with this name is beside the journal, handlers of all styles do so for all of their time, which may be
longer than a lease."""
SLOTS = 3
"""Concurrency of each handler."""
TIMEOUT = 4.0
"""Seconds to wait for a response, including the two seconds for which the manager holds a claim."""
RETRY_DELAY_MS = 1_000
DRAIN_SECONDS = 5.0
JOURNAL = "JOURNAL"
"""The environment variable with the path of the journal, for handlers in all threads and processes."""


class Order(BaseModel):
    """The data of a task, with the lease that the transport adds."""

    kind: plan.Kind
    dice: int
    lease: int

    @property
    def step(self) -> plan.Step:
        """The planned end of the attempt."""
        return plan.step(self.model_dump(), self.lease)

    @property
    def seconds(self) -> float:
        """The planned duration of the handler."""
        return plan.seconds(self.model_dump(), self.lease)


class Done(BaseModel):
    """The result of a task."""

    lease: int


class Planned(Exception):  # noqa: N818 - the type that the plan names
    """A planned failure."""


@contextmanager
def _handling(order: Order, context: TaskContext) -> Generator[None]:
    """Write the events of a handler to the journal."""
    writer, about = JournalWriter(Path(os.environ[JOURNAL])), (str(context.task_id), order.lease)
    writer.write(Event.HANDLER_STARTED, *about)
    context.progress(0.5, str(order.lease))
    try:
        yield
    except BaseException:
        writer.write(Event.HANDLER_CANCELLED, *about, reason=context.cancellation.reason)
        raise
    writer.write(Event.HANDLER_ENDED, *about, outcome=order.step.outcome)


def _is_holding() -> bool:
    return Path(os.environ[JOURNAL]).with_name(HOLDING).exists()


def _end(order: Order) -> Done:
    """End as planned, except for a release, which `release_if_planned` handles."""
    step = order.step
    match step:
        case plan.Step("FAILED", retryable=False):
            raise DoNotRetry from Planned(f"lease {order.lease}")
        case plan.Step("FAILED", delay=0.0):
            raise Planned(f"lease {order.lease}")
        case plan.Step("FAILED"):
            raise RetryLater(timedelta(seconds=step.delay)) from Planned(f"lease {order.lease}")
        case plan.Step("SNOOZED"):
            raise Snooze(timedelta(seconds=step.delay))
        case _:
            return Done(lease=order.lease)


async def handle_async(order: Order, context: TaskContext) -> Done:
    """Run as long as planned and end as planned."""
    with _handling(order, context):
        if _is_holding():
            hold_the_gil(order.seconds)
        else:
            hold_the_gil(BURST_SECONDS)
            await asyncio.sleep(order.seconds)
    return _end(order)


def handle_sync(order: Order, context: TaskContext) -> Done:
    """Run as long as planned and end as planned."""
    with _handling(order, context):
        if parent_process() is not None or _is_holding():
            hold_the_gil(order.seconds)
        else:
            hold_the_gil(BURST_SECONDS)
            time.sleep(order.seconds)
    return _end(order)


async def release_if_planned(order: Order, _context: TaskContext[Any], call: CallNext) -> Outcome:
    """Release the task if that is planned, which a handler cannot do itself."""
    outcome = await call()
    return Released("planned") if order.step.outcome == "RELEASED" else outcome


class Transport(httpx2.AsyncBaseTransport):
    """Writes claims, reports and verdicts to the journal."""

    def __init__(self, writer: JournalWriter) -> None:
        self._writer = writer
        self._network = httpx2.AsyncHTTPTransport()

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        settling = request.url.path.endswith("/tasks/settle")
        reports: list[dict[str, Any]] = json.loads(request.content)["results"] if settling else []
        for report in reports:
            self._writer.write(Event.REPORTING, report["taskId"], report["leaseId"], outcome=report["outcome"])
        answer = await self._network.handle_async_request(request)
        content = await answer.aread()
        if not answer.is_success:
            if answer.status_code not in BUSY or b"UNKNOWN_ERROR" in content:
                self._writer.write(
                    Event.UNEXPECTED_RESPONSE, path=request.url.path, status=answer.status_code, body=content.decode()
                )
        elif settling:
            verdicts = json.loads(content)
            refused: dict[int, dict[str, Any]] = {one["index"]: one for one in verdicts["refused"]}
            undecided = {one["index"] for one in verdicts.get("undecided", ())}
            for index, report in enumerate(reports):
                if index in undecided:
                    continue  # the worker sends it again
                verdict = refused.get(index, {"accepted": True})  # the response does not contain the status
                fields = {name: verdict.get(name) for name in ("accepted", "status", "code")}
                self._writer.write(Event.VERDICT, report["taskId"], report["leaseId"], **fields)
        elif request.url.path.endswith("/tasks/claim"):
            claim = json.loads(content)
            for task in claim["tasks"]:
                self._writer.write(Event.CLAIMED, task["id"], task["leaseId"], attempts=task["attempts"])
                task["data"]["lease"] = task["leaseId"]
            content = json.dumps(claim).encode()
        headers = {"Content-Type": "application/json", "Retry-After": answer.headers.get("Retry-After", "")}
        return httpx2.Response(answer.status_code, headers=headers, content=content)

    @override
    async def aclose(self) -> None:
        await self._network.aclose()


class Container:
    """The settings and the worker of the process."""

    def __init__(self, journal: Path, lease: float, stage_types: list[str], manager: str) -> None:
        self._journal = journal
        self._lease = timedelta(seconds=lease)
        self._stage_types = stage_types
        self._settings = WorkerSettings(
            jobnik_base_url=manager,
            probe_host="127.0.0.1",
            probe_port=0,
            worker_retry_initial_delay_ms=RETRY_DELAY_MS,
            worker_retry_max_delay_ms=RETRY_DELAY_MS,
            worker_drain_seconds=DRAIN_SECONDS,
            log_level=os.environ.get("LOG_LEVEL", "WARNING"),
        )

    def settings(self) -> WorkerSettings:
        """Return the settings."""
        return self._settings

    def worker(self) -> Worker:
        """Create the worker and start its journal."""
        # The transport gets its writer before the worker exists; the worker's id follows below.
        writer = JournalWriter(self._journal)
        client = JobnikClient(
            self._settings.jobnik_base_url, timeout=timedelta(seconds=TIMEOUT), transport=Transport(writer)
        )
        worker = Worker(
            client,
            [
                _handler(stage_type, style)
                for stage_type, style in zip(self._stage_types, cycle(HandlerStyle), strict=False)
            ],
            middleware=[release_if_planned],
            lease=self._lease,
            drain_timeout=self._settings.drain_timeout,
            poll_initial_delay=self._settings.poll_initial_delay,
            poll_max_delay=self._settings.poll_max_delay,
        )
        writer.worker = worker.id
        writer.write(Event.WORKER_STARTED)
        return worker


def _handler(name: str, style: HandlerStyle) -> AnyHandler:
    stage_type = StageType(name, task=Order, result=Done)
    match style:
        case HandlerStyle.ASYNC:
            return Handler(stage_type, handle_async, concurrency=SLOTS)
        case HandlerStyle.THREAD:
            return Handler(stage_type, handle_sync, style=style, concurrency=SLOTS)
        case HandlerStyle.PROCESS:
            return Handler(stage_type, handle_sync, style=style, concurrency=SLOTS)


def main() -> int:
    """Run until the process is stopped or killed."""
    _name, journal, lease, stage_types, managers = sys.argv[1:]
    os.environ[JOURNAL] = journal
    return run(Container(Path(journal), float(lease), stage_types.split(","), managers.split(",")[0]))


jumping_clock.jump_if_requested()  # also in the processes of handlers, which import this module

if __name__ == "__main__":
    sys.exit(main())
