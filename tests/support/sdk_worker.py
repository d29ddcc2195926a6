"""An SDK worker process with handlers of all three styles, which record what they do in a journal.

Each style has its own stage type: the name from the environment, a hyphen and the style. Each task names a file, and
its handler completes when that file exists.
"""

import asyncio
import json
import os
import sys
import time
from datetime import timedelta
from enum import StrEnum
from multiprocessing import parent_process
from pathlib import Path

from jobnik_sdk import Handler, HandlerStyle, JobnikClient, StageType, TaskContext, Worker, WorkerSettings, run
from jobnik_sdk.execution.handler import AnyHandler
from pydantic import BaseModel, Field

from tests.support import jumping_clock
from tests.support.journal import JournalWriter
from tests.support.processes import hold_the_gil

POLL_INTERVAL = timedelta(milliseconds=20)


class Event(StrEnum):
    """The events that handlers record."""

    BEGUN = "begun"
    ENDED = "ended"
    CANCELLED = "cancelled"


class Settings(WorkerSettings):
    """The settings that the tests pass in the environment."""

    journal: Path = Field(default=...)
    stage_type: str = Field(default=...)
    slots: dict[HandlerStyle, int] = Field(default=...)
    """The number of slots of each style; a style without an entry has no handler."""
    lease_seconds: float = 30
    client_timeout_seconds: float = 30
    """How long the worker waits for a response of the manager."""


class Order(BaseModel):
    """The payload of a task: the file to wait for."""

    go: Path


class Done(BaseModel):
    """The result of a task: the traceparent of the attempt that completed it."""

    attempt: str


class _RecordedAttempt:
    """Records the course of an attempt, and prints what the environment says. The handler runs in its `with` block."""

    _journal: JournalWriter | None = None

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._record(Event.BEGUN)
        if printed := os.environ.get("PRINTED"):
            sys.stdout.write(printed)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._record(Event.ENDED if kind is None else Event.CANCELLED)

    def _record(self, event: Event) -> None:
        type(self)._journal = journal = self._journal or JournalWriter(Path(os.environ["JOURNAL"]))
        context = self._context
        fields = {"event": event, "task": str(context.task_id), "attempt": context.traceparent, "pid": os.getpid()}
        journal.write(**fields, wall=time.time(), reason=context.cancellation.reason)


def _hold_the_gil(style: HandlerStyle) -> None:
    """Run C code that holds Python's lock, for as many seconds as the environment sets for this style."""
    if bursts := os.environ.get("BURST_SECONDS"):
        hold_the_gil(json.loads(bursts)[style])


async def handle_async(order: Order, context: TaskContext) -> Done:
    """Wait until the file of the order exists."""
    with _RecordedAttempt(context):
        while not order.go.exists():  # a file, because it reaches handlers of every style
            _hold_the_gil(HandlerStyle.ASYNC)
            await asyncio.sleep(POLL_INTERVAL.total_seconds())
    return Done(attempt=context.traceparent)


def handle_sync(order: Order, context: TaskContext) -> Done:
    """Wait until the file of the order exists."""
    with _RecordedAttempt(context):
        while not order.go.exists():
            _hold_the_gil(HandlerStyle.THREAD if parent_process() is None else HandlerStyle.PROCESS)
            context.cancellation.wait(POLL_INTERVAL)
    return Done(attempt=context.traceparent)


class Container:
    """The dependencies of the process."""

    def __init__(self) -> None:
        self._settings = Settings()

    def settings(self) -> Settings:
        """Return the settings."""
        return self._settings

    def worker(self) -> Worker:
        """Return the worker."""
        settings = self._settings
        return Worker(
            JobnikClient(settings.jobnik_base_url, timeout=timedelta(seconds=settings.client_timeout_seconds)),
            [self._handler(style, slots) for style, slots in settings.slots.items()],
            lease=timedelta(seconds=settings.lease_seconds),
            drain_timeout=settings.drain_timeout,
            poll_initial_delay=settings.poll_initial_delay,
            poll_max_delay=settings.poll_max_delay,
        )

    def _handler(self, style: HandlerStyle, slots: int) -> AnyHandler:
        stage_type = StageType(f"{self._settings.stage_type}-{style}", task=Order, result=Done)
        match style:
            case HandlerStyle.ASYNC:
                return Handler(stage_type, handle_async, concurrency=slots)
            case HandlerStyle.THREAD:
                return Handler(stage_type, handle_sync, style=style, concurrency=slots)
            case HandlerStyle.PROCESS:
                return Handler(stage_type, handle_sync, style=style, concurrency=slots)


jumping_clock.jump_if_requested()  # also runs in the handlers' processes, which import this module

if __name__ == "__main__":
    sys.exit(run(Container()))
