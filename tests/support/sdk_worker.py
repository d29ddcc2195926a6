"""A worker of the SDK as a process, whose handlers of all three styles write down what they do.

Each style has a stage type of its own: the name that the environment gives, a hyphen and the style. A task names a
file, and its handler is done when there is one.
"""

import asyncio
import os
import sys
import time
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from jobnik_sdk import Handler, HandlerStyle, JobnikClient, StageType, TaskContext, Worker, WorkerSettings, run
from jobnik_sdk.execution.handler import AnyHandler
from pydantic import BaseModel, Field

from tests.support import jumping_clock
from tests.support.journal import Pen

LOOK_AGAIN = timedelta(milliseconds=20)


class Event(StrEnum):
    """What handlers write down."""

    BEGUN = "begun"
    ENDED = "ended"
    CANCELLED = "cancelled"


class Settings(WorkerSettings):
    """What the tests say."""

    journal: Path = Field(default=...)
    stage_type: str = Field(default=...)
    slots: dict[HandlerStyle, int] = Field(default=...)
    """How many of each style; one that is not named has no handler."""
    lease_seconds: float = 30
    client_timeout_seconds: float = 30
    """How long the worker waits for a response of the manager."""


class Order(BaseModel):
    """A task."""

    go: Path


class Done(BaseModel):
    """Which attempt completed it, by its traceparent."""

    attempt: str


class _Handling:
    """Writes down what becomes of an attempt, within a `with` block that is the handler."""

    _pen: Pen | None = None

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._note(Event.BEGUN)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._note(Event.ENDED if kind is None else Event.CANCELLED)

    def _note(self, event: Event) -> None:
        type(self)._pen = pen = self._pen or Pen(Path(os.environ["JOURNAL"]))
        context = self._context
        said = {"event": event, "task": str(context.task_id), "attempt": context.traceparent, "pid": os.getpid()}
        pen.write(**said, wall=time.time(), reason=context.cancellation.reason)


async def attend(order: Order, context: TaskContext) -> Done:
    """Be done when told to."""
    with _Handling(context):
        while not order.go.exists():  # noqa: ASYNC110 - a file, which reaches handlers of every style
            await asyncio.sleep(LOOK_AGAIN.total_seconds())
    return Done(attempt=context.traceparent)


def attend_plainly(order: Order, context: TaskContext) -> Done:
    """Be done when told to."""
    with _Handling(context):
        while not order.go.exists():
            context.cancellation.wait(LOOK_AGAIN)
    return Done(attempt=context.traceparent)


class Container:
    """The parts of the process."""

    def __init__(self) -> None:
        self._settings = Settings()

    def settings(self) -> Settings:
        """The settings."""
        return self._settings

    def worker(self) -> Worker:
        """The worker."""
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
                return Handler(stage_type, attend, concurrency=slots)
            case HandlerStyle.THREAD:
                return Handler(stage_type, attend_plainly, style=style, concurrency=slots)
            case HandlerStyle.PROCESS:
                return Handler(stage_type, attend_plainly, style=style, concurrency=slots)


jumping_clock.jump_if_told()  # in the handlers' processes, too, which import this

if __name__ == "__main__":
    sys.exit(run(Container()))
