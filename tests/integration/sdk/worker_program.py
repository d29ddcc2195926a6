"""A worker process for tests: each task says what its handler is to do."""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from jobnik_sdk import Handler, HandlerStyle, JobnikClient, StageType, TaskContext, Worker, run
from jobnik_sdk.logging import configure_logging
from jobnik_sdk.settings import WorkerSettings
from pydantic import BaseModel


class Order(BaseModel):
    """What a handler does: it writes its process id to `begun`, waits for `go` to exist, then does `then`."""

    begun: Path
    go: Path | None = None
    then: str = "return"


class PeculiarError(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def obey(order: Order, context: TaskContext) -> None:
    """Follow an order."""
    order.begun.write_text(str(os.getpid()))
    while order.go is not None and not order.go.exists():
        time.sleep(0.01)
    match order.then:
        case "die":
            os._exit(7)
        case "raise":
            raise PeculiarError("very", "peculiar")
        case _:
            context.logger.info("obeyed")


async def obey_blocking(order: Order, context: TaskContext) -> None:
    """Follow an order on the event loop, which it blocks."""
    obey(order, context)


def _main(stage_type_name: str, style: HandlerStyle) -> int:
    settings = WorkerSettings()
    configure_logging(settings.log_level)
    client = JobnikClient(settings.jobnik_base_url)
    stage_type = StageType(stage_type_name, task=Order)
    match style:
        case HandlerStyle.ASYNC:
            handler = Handler(stage_type, obey_blocking)
        case HandlerStyle.THREAD:
            handler = Handler(stage_type, obey, style=style, concurrency=2)
        case HandlerStyle.PROCESS:
            handler = Handler(stage_type, obey, style=style, concurrency=2)
    worker = Worker(client, [handler], poll_max_delay=timedelta(milliseconds=20))
    return run(worker, probe_host=settings.probe_host, probe_port=settings.probe_port)


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1], HandlerStyle(sys.argv[2])))
