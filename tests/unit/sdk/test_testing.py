"""The tools for the tests of users."""

import asyncio
import threading
from datetime import timedelta

import pytest
from jobnik_sdk import (
    ConfigurationError,
    Failed,
    Handler,
    HandlerStyle,
    InvalidPayloadError,
    JobStatus,
    JobType,
    NewStage,
    NewTask,
    Producer,
    Released,
    Snooze,
    Snoozed,
    StageType,
    TaskContext,
    Worker,
)
from jobnik_sdk.testing import FakeManager, context_for, run_handler, work_off, working
from pydantic import BaseModel

MINUTE = timedelta(minutes=1)


class Word(BaseModel):
    """A task's data, and its result."""

    text: str


words = StageType("words", task=Word, result=Word)
essay = JobType("essay")


async def shout(task: Word, context: TaskContext) -> Word:
    """Shout a word, letter by letter."""
    for done, _ in enumerate(task.text, start=1):
        context.progress(done / len(task.text), f"letter {done}")
        context.save_checkpoint(done)
    return Word(text=task.text.upper())


def patient(_task: Word, context: TaskContext) -> Word:
    """Wait a minute."""
    context.progress(0.5)
    if context.cancellation.wait(MINUTE):
        context.cancellation.raise_if_requested()
    return Word(text="waited")


async def test_context_records_progress_and_checkpoint() -> None:
    """All progress, and the latest checkpoint."""
    context = context_for(words, attempt=2, checkpoint=1)
    assert (await shout(Word(text="ab"), context)).text == "AB"
    assert [(progress.fraction, progress.message) for progress in context.recorded_progress] == [
        (0.5, "letter 1"),
        (1.0, "letter 2"),
    ]
    assert (context.attempt, context.checkpoint, context.saved_checkpoint) == (2, 1, 2)


@pytest.mark.parametrize("style", [HandlerStyle.THREAD, HandlerStyle.PROCESS])
async def test_plain_handler_runs_in_its_style(style: HandlerStyle) -> None:
    """Its result is read back, and its progress is recorded."""
    context = context_for(words)
    handler = Handler(words, plain_shout, style=style)  # pyright: ignore[reportArgumentType, reportCallIssue] either style
    outcome = await run_handler(handler, Word(text="ab"), context)
    assert outcome.result == Word(text="AB")
    assert context.recorded_progress[-1].fraction == 1.0


def plain_shout(task: Word, context: TaskContext) -> Word:
    """Shout a word."""
    context.progress(1.0)
    return Word(text=task.text.upper())


async def test_exception_of_a_handler_becomes_the_outcome() -> None:
    """There is no result then."""

    async def fail(_task: Word, _context: TaskContext) -> Word:
        raise ValueError("no")

    async def snooze(_task: Word, _context: TaskContext) -> Word:
        raise Snooze(MINUTE)

    failed = await run_handler(Handler(words, fail), Word(text=""))
    assert isinstance(failed.outcome, Failed)
    assert failed.outcome.error_type == "ValueError"
    with pytest.raises(AssertionError, match="did not complete: Failed"):
        _ = failed.result
    assert (await run_handler(Handler(words, snooze), Word(text=""))).outcome == Snoozed(MINUTE)


async def test_invalid_task_is_refused() -> None:
    """As a producer refuses it."""
    wrong = Word.model_construct(text=1)  # pyright: ignore[reportArgumentType] on purpose
    with pytest.raises(InvalidPayloadError, match=r"task\.text"):
        await run_handler(Handler(words, shout), wrong)


async def test_wait_takes_no_time() -> None:
    """The context has the time that the handler would have waited."""
    context = context_for(words)
    assert patient(Word(text=""), context) == Word(text="waited")
    assert context.waited == MINUTE


async def test_wait_ends_at_the_timeout() -> None:
    """The handler is cancelled during the wait."""
    context = context_for(words, timeout=timedelta(seconds=30))
    outcome = (await run_handler(Handler(words, patient, style=HandlerStyle.THREAD), Word(text=""), context)).outcome
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, context.waited) == ("TimeoutError", timedelta(seconds=30))


async def test_handler_is_cancelled_by_the_test() -> None:
    """From another thread, with a reason."""

    def stuck(_task: Word, context: TaskContext) -> Word:
        context.cancellation.wait()
        context.cancellation.raise_if_requested()
        return Word(text="")

    context = context_for(words)
    threading.Timer(0, context.cancel, args=("drain",)).start()
    outcome = await run_handler(Handler(words, stuck, style=HandlerStyle.THREAD), Word(text=""), context)
    assert outcome.outcome == Released("drain")


async def test_work_off_runs_a_job(fake_manager: FakeManager) -> None:
    """The worker runs until the job has ended."""
    async with fake_manager.client() as client:
        job = await Producer(client).create_job(essay, stages=[NewStage(words, [Word(text="a"), Word(text="b")])])
        worker = Worker(client, [Handler(words, shout, concurrency=2)])
        assert await work_off(worker, job) is JobStatus.COMPLETED
    assert [task.result for task in fake_manager.tasks(words)] == [Word(text="A"), Word(text="B")]


async def test_work_off_has_a_timeout(fake_manager: FakeManager) -> None:
    """The error has the status of each stage, and the worker has drained."""
    async with fake_manager.client() as client:
        job = await Producer(client).create_job(essay, stages=[NewStage(words)])
        worker = Worker(client, [Handler(words, shout)])
        with pytest.raises(TimeoutError, match=r"it is PENDING\. Its stages: words is PENDING with 0 of 0 tasks"):
            await work_off(worker, job, timedelta(milliseconds=50))
        assert not worker.ready


async def test_workers_run_within_a_block(fake_manager: FakeManager) -> None:
    """They have drained at its end."""
    async with fake_manager.client() as client:
        producer = Producer(client)
        worker = Worker(client, [Handler(words, shout)])
        async with working(worker):
            job = await producer.create_job(essay, stages=[NewStage(words, [Word(text="a")])])
            assert (await producer.wait_for_job(job, essay)).status is JobStatus.COMPLETED
        assert not worker.ready


class Note(BaseModel):
    """Metadata."""

    note: str = ""


class Language(BaseModel):
    """A stage's data."""

    code: str


sentences = StageType("sentences", task=Word, task_metadata=Note, data=Language, metadata=Note)
noted_essay = JobType("noted essay", metadata=Note)


async def split(task: Word, context: TaskContext[Note, Language, Note]) -> None:
    """Create a task for each word of a sentence, in a stage after this one, and set all metadata."""
    stage = await context.producer.create_stage(context.job.id, words)
    await context.producer.create_tasks(stage, words, [Word(text=text) for text in task.text.split()])
    await context.set_task_metadata(Note(note=context.stage.data.code))
    await context.set_stage_metadata(Note(note="split"))
    await context.set_job_metadata(Note(note="of words"))


def split_plainly(task: Word, context: TaskContext[Note, Language, Note]) -> None:
    """Do the same."""
    context.wait(split(task, context))


async def _create_sentence(manager: FakeManager) -> None:
    async with manager.client() as client:
        stage = NewStage(
            sentences, [NewTask(Word(text="to be"), metadata=Note())], data=Language(code="en"), metadata=Note()
        )
        await Producer(client).create_job(noted_essay, metadata=Note(), stages=[stage])


def _check_split(manager: FakeManager) -> None:
    assert [task.data.text for task in manager.tasks(words)] == ["to", "be"]
    assert [task.metadata.note for task in manager.tasks(sentences)] == ["en"]
    assert [job.metadata.note for job in manager.jobs(noted_essay)] == ["of words"]


async def test_claim_returns_a_task_and_its_context(fake_manager: FakeManager) -> None:
    """The manager contains what the handler creates and changes; no other task can be claimed."""
    await _create_sentence(fake_manager)
    task, context = fake_manager.claim(sentences)
    assert (task.text, context.attempt, context.job.name, context.stage.order) == ("to be", 1, "noted essay", 1)
    await split(task, context)
    _check_split(fake_manager)
    with pytest.raises(LookupError, match="No task of a stage of type 'sentences'"):
        fake_manager.claim(sentences)


async def test_plain_handler_waits_in_its_thread(fake_manager: FakeManager) -> None:
    """An async test calls it with run_handler; a direct call is an error that says so."""
    await _create_sentence(fake_manager)
    task, context = fake_manager.claim(sentences)
    with pytest.raises(ConfigurationError, match="call them with run_handler in an async test"):
        split_plainly(task, context)
    await run_handler(Handler(sentences, split_plainly, style=HandlerStyle.THREAD), task, context)
    _check_split(fake_manager)


def test_plain_handler_waits_in_a_plain_test(fake_manager: FakeManager) -> None:
    """Without an event loop, each wait creates one."""
    asyncio.run(_create_sentence(fake_manager))
    split_plainly(*fake_manager.claim(sentences))
    _check_split(fake_manager)


async def test_context_without_a_manager_cannot_wait() -> None:
    """The error says where to get a context with a manager, and no coroutine is left unawaited."""
    context = context_for(words)
    with pytest.raises(ConfigurationError, match=r"use a context from `FakeManager\.claim`"):
        context.wait(context.set_job_metadata({}))
