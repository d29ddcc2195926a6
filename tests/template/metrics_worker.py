"""A worker that exercises all its metrics and then writes the response of its /metrics endpoint to a file.

Usage: python -m tests.template.metrics_worker MANAGER STAGE_TYPE FILE
"""

import asyncio
import socket
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import httpx2
from jobnik_sdk import (
    Handler,
    HandlerStyle,
    JobnikClient,
    JobType,
    NewStage,
    NewTask,
    Producer,
    StageType,
    TaskContext,
    UnreachableError,
    Worker,
)
from jobnik_sdk.observability.probes import Health, ProbeServer
from jobnik_sdk.testing import work_off
from pydantic import BaseModel


class End(StrEnum):
    """How an attempt ends."""

    COMPLETED = "completed"
    FAILED = "failed"
    REFUSED = "refused"


class Order(BaseModel):
    """The data of a task."""

    end: End


def complete(_order: Order, _context: TaskContext) -> None:
    """Do nothing, in a process."""


async def collect_metrics(manager: str, stage_type: str) -> str:
    """Return the metrics after a task of each end, a task in a process, and a request without a response."""
    stage = StageType(stage_type, task=Order)
    client = JobnikClient(manager)
    producer = Producer(client)

    async def handle(order: Order, context: TaskContext) -> None:
        if order.end is End.FAILED:
            raise ValueError
        if order.end is End.REFUSED:
            await producer.abort_job(context.job.id)

    async def work(handler: Handler[Order], end: End) -> None:
        tasks = [NewTask(Order(end=end), max_attempts=1)]
        job = await producer.create_job(JobType("watched"), stages=[NewStage(stage, tasks)])
        await work_off(Worker(client, [handler]), job)

    for end in End:
        await work(Handler(stage, handle), end)
    await work(Handler(stage, complete, style=HandlerStyle.PROCESS), End.COMPLETED)
    await _send_request_without_response()
    with ProbeServer(Health(), host="127.0.0.1", port=0) as probes:
        async with httpx2.AsyncClient() as prometheus:
            return (await prometheus.get(f"http://127.0.0.1:{probes.port}/metrics")).text


async def _send_request_without_response() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with JobnikClient(f"http://127.0.0.1:{closed.getsockname()[1]}") as client:
            with suppress(UnreachableError):
                await client.request("GET", "/v1/capabilities")


if __name__ == "__main__":
    address, name, file = sys.argv[1:]
    Path(file).write_text(asyncio.run(collect_metrics(address, name)))
