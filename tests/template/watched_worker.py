"""A worker that does some of everything which metrics tell of, then writes down what its probe server tells Prometheus.

Usage: python -m tests.template.watched_worker MANAGER STAGE_TYPE FILE
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
    """What is to become of a task."""

    end: End


async def watch(manager: str, stage_type: str) -> str:
    """Return what it tells once a task was completed, one failed, one was reported too late, and nobody answered."""
    stage = StageType(stage_type, task=Order)
    client = JobnikClient(manager)
    producer = Producer(client)

    async def handle(order: Order, context: TaskContext) -> None:
        if order.end is End.FAILED:
            raise ValueError
        if order.end is End.REFUSED:
            await producer.abort_job(context.job.id)

    for end in End:
        tasks = [NewTask(Order(end=end), max_attempts=1)]
        job = await producer.create_job(JobType("watched"), stages=[NewStage(stage, tasks)])
        await work_off(Worker(client, [Handler(stage, handle)]), job)
    await _ask_nobody()
    with ProbeServer(Health(), host="127.0.0.1", port=0) as probes:
        async with httpx2.AsyncClient() as prometheus:
            return (await prometheus.get(f"http://127.0.0.1:{probes.port}/metrics")).text


async def _ask_nobody() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        async with JobnikClient(f"http://127.0.0.1:{deaf.getsockname()[1]}") as nobody:
            with suppress(UnreachableError):
                await nobody.request("GET", "/v1/capabilities")


if __name__ == "__main__":
    address, name, file = sys.argv[1:]
    Path(file).write_text(asyncio.run(watch(address, name)))
