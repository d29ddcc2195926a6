"""A unique job with all its stages and tasks in one request, whose second stage reads the results of the first.

    python whole_job.py http://127.0.0.1:8080

It prints:

    created True, created again False
    counted [5, 2], 7 in total
    COMPLETED 100 %
"""

import asyncio
import sys
from uuid import uuid4

from jobnik_sdk import Handler, JobnikClient, JobType, NewStage, Producer, StageType, TaskContext, Worker
from jobnik_sdk.testing import working
from pydantic import BaseModel


class Text(BaseModel):
    """The text to count."""

    text: str


class Letters(BaseModel):
    """The number of letters."""

    letters: int


class Everything(BaseModel):
    """The data of a task that needs none."""


run = uuid4()  # so that a worker of another run does not claim these tasks
essay = JobType("essay")
count = StageType(f"count-{run}", task=Text, result=Letters)
total = StageType(f"sum-{run}", task=Everything, result=Letters)


async def count_letters(task: Text, _context: TaskContext) -> Letters:
    """Count the letters of one text."""
    return Letters(letters=len(task.text))


async def add_up(_task: Everything, context: TaskContext) -> Letters:
    """Add up the results of the first stage."""
    counted = [result.letters async for result in context.results(count)]
    print(f"counted {counted}, {sum(counted)} in total")
    return Letters(letters=sum(counted))


async def main(manager: str) -> None:
    """Create the job, try to create it again, and process it."""
    async with JobnikClient(manager) as client:
        producer = Producer(client)
        stages = [NewStage(count, [Text(text="seven"), Text(text="is")]), NewStage(total, [Everything()])]
        job = await producer.create_job(essay, stages=stages, unique_key=f"essay-{run}")
        again = await producer.create_job(essay, stages=stages, unique_key=f"essay-{run}")
        print(f"created {job.is_new}, created again {again.is_new}")
        worker = Worker(client, [Handler(count, count_letters, concurrency=2), Handler(total, add_up)])
        async with working(worker):
            done = await producer.wait_for_job(job)
        print(done.status, done.percentage, "%")


asyncio.run(main(sys.argv[1]))
