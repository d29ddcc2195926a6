"""A worker of the SDK, with handlers of all styles, to be stopped and killed at any moment.

Its handlers write down what they do. What goes over the wire is written down by its transport, which also tells each
handler its lease, in the task's data: with it the plan says what the handler does.

Usage: python -m tests.chaos.sdk_worker NAME JOURNAL LEASE_SECONDS STAGE_TYPES URLS, the last two with commas.
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
from tests.chaos.journal import Event, Pen
from tests.chaos.worker import BUSY
from tests.support import jumping_clock

SLOTS = 3
"""Of each style."""
PATIENCE = 4.0
"""Seconds for an answer: two for a claim to wait at the manager."""
RETRY_DELAY_MS = 1_000
DRAIN_SECONDS = 5.0
JOURNAL = "JOURNAL"
"""The variable that tells handlers, wherever they run, where to write."""


class Order(BaseModel):
    """A task, with what the transport adds."""

    kind: plan.Kind
    dice: int
    lease: int

    @property
    def step(self) -> plan.Step:
        """How the attempt is to end."""
        return plan.step(self.model_dump(), self.lease)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return plan.seconds(self.model_dump(), self.lease)


class Done(BaseModel):
    """The result."""

    lease: int


class Planned(Exception):  # noqa: N818 - the type that the plan names
    """An attempt fails as planned."""


@contextmanager
def _handling(order: Order, context: TaskContext) -> Generator[None]:
    """Write down what becomes of an attempt."""
    pen, about = Pen(Path(os.environ[JOURNAL])), (str(context.task_id), order.lease)
    pen.write(Event.BEGUN, *about)
    context.progress(0.5, str(order.lease))
    try:
        yield
    except BaseException:
        pen.write(Event.INTERRUPTED, *about, reason=context.cancellation.reason)
        raise
    pen.write(Event.DONE, *about, outcome=order.step.outcome)


def _end(order: Order) -> Done:
    """End as planned; that it is handed back is for `hand_back` to say."""
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


async def attend(order: Order, context: TaskContext) -> Done:
    """Take as long as planned, and end as planned."""
    with _handling(order, context):
        await asyncio.sleep(order.seconds)
    return _end(order)


def attend_plainly(order: Order, context: TaskContext) -> Done:
    """Take as long as planned, and end as planned."""
    with _handling(order, context):
        time.sleep(order.seconds)
    return _end(order)


async def hand_back(order: Order, _context: TaskContext[Any], call: CallNext) -> Outcome:
    """Hand a task back where that is planned, which a handler cannot say itself."""
    ending = await call()
    return Released("planned") if order.step.outcome == "RELEASED" else ending


class Transport(httpx2.AsyncBaseTransport):
    """Writes down claims, reports and verdicts as they pass."""

    def __init__(self, pen: Pen) -> None:
        self._pen = pen
        self._network = httpx2.AsyncHTTPTransport()

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        settling = request.url.path.endswith("/tasks/settle")
        reports: list[dict[str, Any]] = json.loads(request.content)["results"] if settling else []
        for report in reports:
            self._pen.write(Event.SETTLING, report["taskId"], report["leaseId"], outcome=report["outcome"])
        answer = await self._network.handle_async_request(request)
        content = await answer.aread()
        if not answer.is_success:
            if answer.status_code not in BUSY or b"UNKNOWN_ERROR" in content:
                self._pen.write(Event.STRANGE, path=request.url.path, status=answer.status_code, body=content.decode())
        elif settling:
            refused: dict[int, dict[str, Any]] = {one["index"]: one for one in json.loads(content)["refused"]}
            for index, report in enumerate(reports):
                verdict = refused.get(index, {"accepted": True})  # as what, the answer does not say
                told = {name: verdict.get(name) for name in ("accepted", "status", "code")}
                self._pen.write(Event.ANSWERED, report["taskId"], report["leaseId"], **told)
        elif request.url.path.endswith("/tasks/claim"):
            claim = json.loads(content)
            for task in claim["tasks"]:
                self._pen.write(Event.CLAIMED, task["id"], task["leaseId"], attempts=task["attempts"])
                task["data"]["lease"] = task["leaseId"]
            content = json.dumps(claim).encode()
        headers = {"Content-Type": "application/json", "Retry-After": answer.headers.get("Retry-After", "")}
        return httpx2.Response(answer.status_code, headers=headers, content=content)

    @override
    async def aclose(self) -> None:
        await self._network.aclose()


class Container:
    """The parts of the process."""

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
            log_level="WARNING",
        )

    def settings(self) -> WorkerSettings:
        """The settings."""
        return self._settings

    def worker(self) -> Worker:
        """The worker, which begins its journal."""
        # The transport's pen has no name yet: a worker has its id when it is made.
        pen = Pen(self._journal)
        client = JobnikClient(
            self._settings.jobnik_base_url, timeout=timedelta(seconds=PATIENCE), transport=Transport(pen)
        )
        worker = Worker(
            client,
            [
                _handler(stage_type, style)
                for stage_type, style in zip(self._stage_types, cycle(HandlerStyle), strict=False)
            ],
            middleware=[hand_back],
            lease=self._lease,
            drain_timeout=self._settings.drain_timeout,
            poll_initial_delay=self._settings.poll_initial_delay,
            poll_max_delay=self._settings.poll_max_delay,
        )
        pen.worker = worker.id
        pen.write(Event.HIRED)
        return worker


def _handler(name: str, style: HandlerStyle) -> AnyHandler:
    stage_type = StageType(name, task=Order, result=Done)
    match style:
        case HandlerStyle.ASYNC:
            return Handler(stage_type, attend, concurrency=SLOTS)
        case HandlerStyle.THREAD:
            return Handler(stage_type, attend_plainly, style=style, concurrency=SLOTS)
        case HandlerStyle.PROCESS:
            return Handler(stage_type, attend_plainly, style=style, concurrency=SLOTS)


def main() -> int:
    """Work until killed, or told to stop."""
    _name, journal, lease, stage_types, managers = sys.argv[1:]
    os.environ[JOURNAL] = journal
    return run(Container(Path(journal), float(lease), stage_types.split(","), managers.split(",")[0]))


jumping_clock.jump_if_requested()  # in the handlers' processes, too, which import this

if __name__ == "__main__":
    sys.exit(main())
