"""Tests of a worker's handlers: alone, with a manager in memory and its clock, and with a real manager.

    pytest test_books.py

The fixtures are part of `jobnik-sdk[testing]`; the real manager is part of `jobnik-reference-manager`.
"""

import asyncio
from datetime import timedelta

import pytest
from jobnik_sdk import (
    Failed,
    Handler,
    HandlerStyle,
    JobnikClient,
    JobStatus,
    JobType,
    NewStage,
    Producer,
    RetryLater,
    StageType,
    TaskContext,
    TaskStatus,
    Worker,
)
from jobnik_sdk.testing import FakeManager, context_for, run_handler, work_off, working
from pydantic import BaseModel


class Book(BaseModel):
    """The data and the result of a task: a number of pages."""

    pages: int


class Chapter(BaseModel):
    """A chapter of a book."""

    number: int


class Noted(BaseModel):
    """The metadata of a job."""

    chapters: int = 0


library = JobType("library", metadata=Noted)
books = StageType("books", task=Book, result=Book)
chapters = StageType("chapters", task=Chapter)


async def read(task: Book, context: TaskContext) -> Book:
    """Read the pages that the previous attempt has not read, and create a task for each chapter of ten pages."""
    done = Book.model_validate(context.checkpoint or {"pages": 0}).pages
    for page in range(done, task.pages):
        if page == 13 and context.attempt == 1:
            raise RetryLater(timedelta(hours=1), "the library is closed")
        context.progress((page + 1) / task.pages)
        context.save_checkpoint({"pages": page + 1})
    found = [Chapter(number=number) for number in range(1, task.pages // 10 + 1)]
    await context.producer.create_tasks(await context.producer.create_stage(context.job.id, chapters), chapters, found)
    await context.set_job_metadata(Noted(chapters=len(found)))
    return Book(pages=task.pages - done)


async def list_chapter(_task: Chapter, _context: TaskContext) -> None:
    """Do nothing, as a stand-in for a very short task."""


def compute(task: Book, _context: TaskContext) -> Book:
    """Compute without end."""
    while True:
        task.pages += 1


async def test_a_handlers_exception_reaches_the_test() -> None:
    """The context has recorded the progress and the checkpoint of the handler."""
    context = context_for(books)
    with pytest.raises(RetryLater) as caught:
        await read(Book(pages=20), context)
    assert caught.value.delay == timedelta(hours=1)
    assert context.recorded_progress[-1].fraction == 0.65
    assert context.saved_checkpoint == {"pages": 13}


async def test_the_time_limit_is_enforced() -> None:
    """`run_handler` runs a handler in its style: here a process, which is killed."""
    handler = Handler(books, compute, style=HandlerStyle.PROCESS, timeout=timedelta(seconds=0.2))
    outcome = await run_handler(handler, Book(pages=1))
    assert isinstance(outcome.outcome, Failed)
    assert outcome.outcome.error_type == "TimeoutError"


async def test_each_chapter_gets_a_task(fake_manager: FakeManager) -> None:
    """The manager in memory stores what a handler creates and changes."""
    async with fake_manager.client() as client:
        await Producer(client).create_job(library, metadata=Noted(), stages=[NewStage(books, [Book(pages=12)])])
    task, context = fake_manager.claim(books)
    assert await read(task, context) == Book(pages=12)
    assert [chapter.data.number for chapter in fake_manager.tasks(chapters)] == [1]
    assert [job.metadata.chapters for job in fake_manager.jobs(library)] == [1]


async def test_a_retry_continues_after_an_hour(fake_manager: FakeManager) -> None:
    """The second attempt reads the remaining pages, and the test does not wait for an hour."""
    async with fake_manager.client() as client:
        producer = Producer(client)
        job = await producer.create_job(library, metadata=Noted(), stages=[NewStage(books, [Book(pages=20)])])
        async with working(Worker(client, [Handler(books, read), Handler(chapters, list_chapter)])):
            while fake_manager.tasks(books)[0].status is not TaskStatus.RETRIED:
                await asyncio.sleep(0)  # until the first attempt has failed
            fake_manager.advance(timedelta(hours=1))
            done = await producer.wait_for_job(job, timeout=timedelta(seconds=5))
    assert done.metadata.chapters == 2
    assert [book.result for book in fake_manager.tasks(books)] == [Book(pages=7)]


async def test_a_real_manager_agrees(jobnik_manager: str) -> None:
    """The fixture starts a manager with its own PostgreSQL for the tests."""
    async with JobnikClient(jobnik_manager) as client:
        job = await Producer(client).create_job(library, metadata=Noted(), stages=[NewStage(books, [Book(pages=12)])])
        worker = Worker(client, [Handler(books, read), Handler(chapters, list_chapter)])
        assert await work_off(worker, job) is JobStatus.COMPLETED
