"""A worker process for tests, in which each task tells its handler what to do."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from jobnik_sdk import Handler, HandlerStyle, JobnikClient, StageType, TaskContext, Worker, WorkerSettings, run
from jobnik_sdk.service import process
from opentelemetry import trace
from pydantic import BaseModel


class Settings(WorkerSettings):
    """Further settings for tests."""

    made: Path | None = None
    """Created when the creation of the worker starts, which then waits until `may_be_made` exists."""
    may_be_made: Path | None = None
    resource: Path | None = None
    """Where the container records that it opens and closes a resource, which takes until `resource_responds` exists."""
    resource_responds: Path | None = None
    stop_margin_seconds: float = process.STOP_MARGIN_SECONDS
    """Replaces the constant of this name."""


class Order(BaseModel):
    """What a handler does: write its process id to `begun`, wait until `go` exists, then do `then`."""

    begun: Path
    go: Path | None = None
    then: str = "return"


class PeculiarError(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def execute(order: Order, context: TaskContext) -> None:
    """Follow an order."""
    order.begun.write_text(str(os.getpid()))
    while order.go is not None and not order.go.exists():
        time.sleep(0.01)
    match order.then:
        case "die":
            os._exit(7)
        case "start a thread":
            threading.Thread(target=time.sleep, args=(1_000_000,)).start()
        case "raise":
            raise PeculiarError("very", "peculiar")
        case "trace":
            with trace.get_tracer("a handler").start_as_current_span("obeying"):
                context.logger.info("obeyed")
        case _:
            context.logger.info("obeyed")


async def obey_blocking(order: Order, context: TaskContext) -> None:
    """Follow an order on the event loop, which it blocks, or in a thread."""
    if order.then == "hang":
        await asyncio.to_thread(execute, order, context)
        return
    execute(order, context)
    loop = asyncio.get_running_loop()
    match order.then:
        case "stop the loop":
            loop.stop()
        case "exit in a callback":
            loop.call_soon(sys.exit, 3)
        case "interrupt in a callback":
            loop.call_soon(signal.default_int_handler, signal.SIGINT, None)
        case _:
            return
    await asyncio.sleep(0.1)


@asynccontextmanager
async def _resource(settings: Settings) -> AsyncGenerator[None]:
    if settings.resource is None:
        yield
        return
    with settings.resource.open("a", buffering=1) as record:
        record.write("opening\n")
        try:
            while settings.resource_responds is not None and not settings.resource_responds.exists():  # noqa: ASYNC110 a file
                await asyncio.sleep(0.01)
            record.write("open\n")
            yield
        finally:
            record.write("closed\n")


class Container:
    """The parts of the process."""

    def __init__(self, stage_type_name: str, style: HandlerStyle) -> None:
        self._stage_type = StageType(stage_type_name, task=Order)
        self._style = style
        self._settings: Settings | None = None

    def settings(self) -> Settings:
        """Read the settings."""
        self._settings = self._settings or Settings()
        return self._settings

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[Worker]:
        """Open the resource, and make the worker."""
        async with _resource(self.settings()):
            yield self._make_worker()

    def _make_worker(self) -> Worker:
        settings, style = self.settings(), self._style
        process.STOP_MARGIN_SECONDS = settings.stop_margin_seconds
        if settings.made is not None and settings.may_be_made is not None:
            settings.made.touch()
            while not settings.may_be_made.exists():
                time.sleep(0.01)
        match style:
            case HandlerStyle.ASYNC:
                handler = Handler(self._stage_type, obey_blocking)
            case HandlerStyle.THREAD:
                handler = Handler(self._stage_type, execute, style=style, concurrency=2)
            case HandlerStyle.PROCESS:
                handler = Handler(self._stage_type, execute, style=style, concurrency=2)
        return Worker(
            JobnikClient(settings.jobnik_base_url),
            [handler],
            drain_timeout=settings.drain_timeout,
            poll_max_delay=timedelta(milliseconds=20),
        )


if __name__ == "__main__":
    raise SystemExit(run(Container(sys.argv[1], HandlerStyle(sys.argv[2]))))
