"""What tests of users are written with."""

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
    """Wait for a minute."""
    context.progress(0.5)
    if context.cancellation.wait(MINUTE):
        context.cancellation.raise_if_requested()
    return Word(text="waited")


async def test_a_context_records_what_a_handler_notes() -> None:
    """All progress, and the newest checkpoint."""
    context = context_for(words, attempt=2, checkpoint=1)
    assert (await shout(Word(text="ab"), context)).text == "AB"
    assert [(noted.fraction, noted.message) for noted in context.recorded_progress] == [
        (0.5, "letter 1"),
        (1.0, "letter 2"),
    ]
    assert (context.attempt, context.checkpoint, context.saved_checkpoint) == (2, 1, 2)


@pytest.mark.parametrize("style", [HandlerStyle.THREAD, HandlerStyle.PROCESS])
async def test_a_plain_handler_is_run_in_its_style(style: HandlerStyle) -> None:
    """Its result is read back, and what it notes is recorded."""
    context = context_for(words)
    handler = Handler(words, plain_shout, style=style)  # pyright: ignore[reportArgumentType, reportCallIssue] either style
    outcome = await run_handler(handler, Word(text="ab"), context)
    assert outcome.result == Word(text="AB")
    assert context.recorded_progress[-1].fraction == 1.0


def plain_shout(task: Word, context: TaskContext) -> Word:
    """Shout a word."""
    context.progress(1.0)
    return Word(text=task.text.upper())


async def test_an_outcome_says_how_a_handler_ended() -> None:
    """Whatever it raises is an ending, and there is no result then."""

    async def fail(_task: Word, _context: TaskContext) -> Word:
        raise ValueError("no")

    async def put_off(_task: Word, _context: TaskContext) -> Word:
        raise Snooze(MINUTE)

    failed = await run_handler(Handler(words, fail), Word(text=""))
    assert isinstance(failed.outcome, Failed)
    assert failed.outcome.error_type == "ValueError"
    with pytest.raises(AssertionError, match="did not complete: Failed"):
        _ = failed.result
    assert (await run_handler(Handler(words, put_off), Word(text=""))).outcome == Snoozed(MINUTE)


async def test_a_task_that_does_not_fit_is_refused() -> None:
    """As a producer would refuse it."""
    wrong = Word.model_construct(text=1)  # pyright: ignore[reportArgumentType] on purpose
    with pytest.raises(InvalidPayloadError, match=r"task\.text"):
        await run_handler(Handler(words, shout), wrong)


async def test_a_wait_takes_no_time() -> None:
    """Nobody sleeps for a minute, and the context tells how long it would have been."""
    context = context_for(words)
    assert patient(Word(text=""), context) == Word(text="waited")
    assert context.waited == MINUTE


async def test_a_wait_ends_with_the_time_limit() -> None:
    """The handler is asked to end in the middle of it."""
    context = context_for(words, timeout=timedelta(seconds=30))
    ending = (await run_handler(Handler(words, patient, style=HandlerStyle.THREAD), Word(text=""), context)).outcome
    assert isinstance(ending, Failed)
    assert (ending.error_type, context.waited) == ("TimeoutError", timedelta(seconds=30))


async def test_a_test_cancels_a_handler() -> None:
    """From any thread, with the reason that the manager would give."""

    def stuck(_task: Word, context: TaskContext) -> Word:
        context.cancellation.wait()
        context.cancellation.raise_if_requested()
        return Word(text="")

    context = context_for(words)
    threading.Timer(0, context.cancel, args=("drain",)).start()
    outcome = await run_handler(Handler(words, stuck, style=HandlerStyle.THREAD), Word(text=""), context)
    assert outcome.outcome == Released("drain")


async def test_a_job_is_worked_off(fake_manager: FakeManager) -> None:
    """The worker runs until the job has ended, and no longer."""
    async with fake_manager.client() as client:
        job = await Producer(client).create_job(essay, stages=[NewStage(words, [Word(text="a"), Word(text="b")])])
        worker = Worker(client, [Handler(words, shout, concurrency=2)])
        assert await work_off(worker, job) is JobStatus.COMPLETED
    assert [task.result for task in fake_manager.tasks(words)] == [Word(text="A"), Word(text="B")]


async def test_a_job_that_does_not_end_is_not_waited_for(fake_manager: FakeManager) -> None:
    """The error says how far it is, and the worker has drained."""
    async with fake_manager.client() as client:
        job = await Producer(client).create_job(essay, stages=[NewStage(words)])
        worker = Worker(client, [Handler(words, shout)])
        with pytest.raises(TimeoutError, match=r"it is PENDING\. Its stages: words is PENDING with 0 of 0 tasks"):
            await work_off(worker, job, timedelta(milliseconds=50))
        assert not worker.ready


async def test_workers_work_within_a_block(fake_manager: FakeManager) -> None:
    """They have drained when it is left."""
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
    """Give each word of a sentence a task, in a stage after this one, and note it everywhere."""
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


def _check_what_split_left(manager: FakeManager) -> None:
    assert [task.data.text for task in manager.tasks(words)] == ["to", "be"]
    assert [task.metadata.note for task in manager.tasks(sentences)] == ["en"]
    assert [job.metadata.note for job in manager.jobs(noted_essay)] == ["of words"]


async def test_a_claimed_task_comes_with_its_context(fake_manager: FakeManager) -> None:
    """What its handler creates and changes is found in the manager; another cannot be claimed."""
    await _create_sentence(fake_manager)
    task, context = fake_manager.claim(sentences)
    assert (task.text, context.attempt, context.job.name, context.stage.order) == ("to be", 1, "noted essay", 1)
    await split(task, context)
    _check_what_split_left(fake_manager)
    with pytest.raises(LookupError, match="No task of a stage of type 'sentences'"):
        fake_manager.claim(sentences)


async def test_a_plain_handler_waits_in_its_thread(fake_manager: FakeManager) -> None:
    """An async test calls it by run_handler; called directly, it is told so."""
    await _create_sentence(fake_manager)
    task, context = fake_manager.claim(sentences)
    with pytest.raises(ConfigurationError, match="call them with run_handler in an async test"):
        split_plainly(task, context)
    await run_handler(Handler(sentences, split_plainly, style=HandlerStyle.THREAD), task, context)
    _check_what_split_left(fake_manager)


def test_a_plain_handler_waits_in_a_plain_test(fake_manager: FakeManager) -> None:
    """There is no event loop then but the one that is made for it."""
    asyncio.run(_create_sentence(fake_manager))
    split_plainly(*fake_manager.claim(sentences))
    _check_what_split_left(fake_manager)


async def test_a_context_of_no_manager_says_where_there_is_one() -> None:
    """What was to be waited for is not left behind."""
    context = context_for(words)
    with pytest.raises(ConfigurationError, match=r"use a context from `FakeManager\.claim`"):
        context.wait(context.set_job_metadata({}))
