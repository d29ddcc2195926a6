"""A long task in a process: phases, a checkpoint from which the next attempt continues, and middleware around it.

    python long_task.py http://127.0.0.1:8080

It prints:

    attempt 1 started
    attempt 1 ended: Failed
    attempt 2 started
    attempt 2 ended: Completed
    read pages 3 to 5 in the second attempt
    job metadata: {'pages': 5}
"""

import asyncio
import sys
from datetime import timedelta
from typing import Any

from jobnik_sdk import (
    CallNext,
    Handler,
    HandlerStyle,
    JobnikClient,
    JobType,
    NewStage,
    Outcome,
    Producer,
    RetryLater,
    StageType,
    TaskContext,
    Worker,
)
from jobnik_sdk.testing import work_off
from pydantic import BaseModel, ConfigDict


class Book(BaseModel):
    """The data of a task."""

    pages: int


class Read(BaseModel):
    """The result: the pages that the last attempt read."""

    first: int
    last: int


class Noted(BaseModel):
    """The metadata of the job."""

    model_config = ConfigDict(extra="allow")


POWER_CUT = 2
library = JobType("library", metadata=Noted)
books = StageType("books", task=Book, result=Read)


def read(task: Book, context: TaskContext) -> Read:
    """Read one page after another; a power cut ends the first attempt after two pages."""
    done = int(str(context.checkpoint or 0))
    with context.phase("reading") as reading:
        for page in range(done + 1, task.pages + 1):
            reading.progress(page / task.pages, f"page {page}")
            context.save_checkpoint(page)
            if page == POWER_CUT and context.attempt == 1:
                raise RetryLater(timedelta(seconds=0.1), "a power cut")
    context.wait(context.set_job_metadata({"pages": task.pages}))
    return Read(first=done + 1, last=task.pages)


async def print_attempts(_task: Book, context: TaskContext[Any], call_next: CallNext) -> Outcome:
    """Print when an attempt starts, and its outcome."""
    print(f"attempt {context.attempt} started")
    outcome = await call_next()
    print(f"attempt {context.attempt} ended: {type(outcome).__name__}")
    return outcome


async def main(manager: str) -> None:
    """Create a job with one book, and run a worker until the job has ended."""
    async with JobnikClient(manager) as client:
        producer = Producer(client)
        job = await producer.create_job(library, metadata=Noted(), stages=[NewStage(books, [Book(pages=5)])])
        handler = Handler(books, read, style=HandlerStyle.PROCESS, timeout=timedelta(minutes=1))
        await work_off(Worker(client, [handler], middleware=[print_attempts]), job)
        async for task in producer.list_tasks(job.stages[0].id, books):
            if task.result is not None:
                print(f"read pages {task.result.first} to {task.result.last} in the second attempt")
        print("job metadata:", (await producer.get_job(job, library)).metadata.model_dump())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
