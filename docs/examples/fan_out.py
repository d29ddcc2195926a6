"""A fan-out: one task finds out what there is to do, and adds a task for each part. The handlers are plain functions.

    python fan_out.py http://127.0.0.1:8080

It prints:

    COMPLETED, chapters: one, two, three
"""

import asyncio
import sys
from uuid import uuid4

from jobnik_sdk import (
    Handler,
    HandlerStyle,
    JobnikClient,
    JobType,
    NewStage,
    Producer,
    StageType,
    TaskContext,
    Worker,
)
from jobnik_sdk.testing import work_off
from pydantic import BaseModel


class Book(BaseModel):
    """A book to split."""

    text: str


class Chapter(BaseModel):
    """A chapter of a book."""

    text: str


class Title(BaseModel):
    """The title of a chapter."""

    title: str


run = uuid4()  # so that a worker of another run does not claim these tasks
library = JobType("library")
split = StageType(f"split-{run}", task=Book)
read = StageType(f"read-{run}", task=Chapter, result=Title)


def split_book(task: Book, context: TaskContext) -> None:
    """Add a task for each chapter: all of them or none, and only once, even if this task has several attempts."""
    chapters = [Chapter(text=text) for text in task.text.split("Chapter ")[1:]]
    context.wait(context.add_tasks(read, chapters))


def read_title(task: Chapter, _context: TaskContext) -> Title:
    """Return the title of one chapter."""
    return Title(title=task.text.split(":")[0])


async def main(manager: str) -> None:
    """Create a job whose second stage is empty at first, and process it."""
    async with JobnikClient(manager) as client:
        producer = Producer(client)
        book = Book(text="Chapter one: It was late. Chapter two: It rained. Chapter three: The sun rose.")
        job = await producer.create_job(library, stages=[NewStage(split, [book]), NewStage(read)])
        handlers = [
            Handler(split, split_book, style=HandlerStyle.THREAD),
            Handler(read, read_title, style=HandlerStyle.THREAD, concurrency=4),
        ]
        status = await work_off(Worker(client, handlers), job)
        tasks = await producer.get_tasks(job.stages[1].id, read)
        print(f"{status}, chapters: {', '.join(task.result.title for task in tasks if task.result)}")


asyncio.run(main(sys.argv[1]))
