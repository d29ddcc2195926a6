"""A chain and a fan-in: each task adds the next one with its result, and the last task reads all results.

    python chain.py http://127.0.0.1:8080

It prints:

    COMPLETED, 3 texts with 11 letters
"""

import asyncio
import sys
from uuid import uuid4

from jobnik_sdk import Empty, Handler, JobnikClient, JobType, NewStage, Producer, StageType, TaskContext, Worker
from jobnik_sdk.testing import work_off
from pydantic import BaseModel


class Source(BaseModel):
    """Where a text comes from."""

    name: str


class Text(BaseModel):
    """A text that was fetched."""

    text: str


class Letters(BaseModel):
    """The number of letters of a text."""

    letters: int


class Report(BaseModel):
    """All texts together."""

    texts: int
    letters: int


run = uuid4()  # so that a worker of another run does not claim these tasks
library = JobType("library")
fetch = StageType(f"fetch-{run}", task=Source)
count = StageType(f"count-{run}", task=Text, result=Letters)
report = StageType(f"report-{run}", task=Empty, result=Report)


async def fetch_text(task: Source, context: TaskContext) -> None:
    """Fetch a text, and add the task that counts its letters. A second attempt does not add it again."""
    await context.add_tasks(count, [Text(text=task.name.upper())])


async def count_letters(task: Text, _context: TaskContext) -> Letters:
    """Count the letters of one text."""
    return Letters(letters=len(task.text))


async def write_report(_task: Empty, context: TaskContext) -> Report:
    """Add up the results of all texts."""
    letters = [result.letters async for result in context.results(count)]
    return Report(texts=len(letters), letters=sum(letters))


async def main(manager: str) -> None:
    """Create a job whose second stage is empty at first, and process it."""
    async with JobnikClient(manager) as client:
        sources = [Source(name=name) for name in ("ada", "emma", "jane")]
        stages = [NewStage(fetch, sources), NewStage(count), NewStage(report, [Empty()])]
        job = await Producer(client).create_job(library, stages=stages)
        handlers = [Handler(fetch, fetch_text), Handler(count, count_letters), Handler(report, write_report)]
        status = await work_off(Worker(client, handlers), job)
        (task,) = await Producer(client).get_tasks(job.stages[2].id, report)
        if task.result is not None:
            print(f"{status}, {task.result.texts} texts with {task.result.letters} letters")


asyncio.run(main(sys.argv[1]))
