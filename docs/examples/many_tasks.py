"""Any number of tasks from a stream, created in constant memory and processed in large batches.

    python many_tasks.py http://127.0.0.1:8080

It prints:

    10000 tasks created
    10000 handled, COMPLETED
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

from jobnik_sdk import (
    Event,
    Handler,
    JobnikClient,
    JobType,
    NewStage,
    Producer,
    StageType,
    TaskCompleted,
    TaskContext,
    Worker,
)
from jobnik_sdk.testing import work_off
from pydantic import BaseModel


class Number(BaseModel):
    """A task's data."""

    value: int


numbers = JobType("numbers")
squares = StageType(f"squares-{uuid4()}", task=Number)


async def read_numbers() -> AsyncIterator[Number]:
    """Yield the numbers, as if from a file or a table that does not fit into memory."""
    for value in range(10_000):
        yield Number(value=value)


async def square(_task: Number, _context: TaskContext) -> None:
    """Do nothing, as a stand-in for a very short task."""


async def main(manager: str) -> None:
    """Create the tasks in a stage that is started when it has all of them, and process them."""
    handled = 0

    def listen(event: Event) -> None:
        nonlocal handled
        handled += isinstance(event, TaskCompleted)

    async with JobnikClient(manager) as client:
        producer = Producer(client)
        job = await producer.create_job(numbers, stages=[NewStage(squares, waiting=True)])
        created = await producer.stream_tasks(job.stages[0].id, squares, read_numbers())
        print(created, "tasks created")
        await producer.start_stage(job.stages[0].id)
        # High concurrency suits small tasks: hundreds of them are claimed and reported in one request.
        worker = Worker(client, [Handler(squares, square, concurrency=500)], listeners=[listen])
        status = await work_off(worker, job, timeout=timedelta(minutes=2))
        print(f"{handled} handled, {status}")


asyncio.run(main(sys.argv[1]))
