"""Tasks that a handler adds to a later stage exist once, however often the handler is attempted."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from jobnik_sdk import (
    ConfigurationError,
    Handler,
    InvalidPayloadError,
    JobStatus,
    JobType,
    NewStage,
    NewTask,
    Producer,
    StageType,
    TaskContext,
    UnsupportedError,
    Worker,
)
from jobnik_sdk.model import payloads
from jobnik_sdk.producer import bodies
from jobnik_sdk.testing import FakeManager, context_for, work_off
from pydantic import BaseModel
from structlog.testing import capture_logs

from tests.unit.sdk.script import Word, words

essay = JobType("essay")
split = StageType("split", task=Word)


async def ignore(_task: Word, _context: TaskContext) -> Word:
    """Do nothing with an added task."""
    return Word()


async def _run(*added: StageType[Word, Word], handler: Callable[[Word, TaskContext], object]) -> list[str]:
    """Run a job whose first task adds others, and return the texts of these."""
    fake = FakeManager()
    function: object = handler
    stages = [NewStage(split, [NewTask(Word(text="a b"), max_attempts=3)]), *map(NewStage, added)]
    job = await Producer(fake.client()).create_job(essay, stages=stages)
    worker = Worker(fake.client(), [Handler(split, function), Handler(words, ignore)])  # type: ignore[arg-type]
    assert await work_off(worker, job) is JobStatus.COMPLETED
    return sorted(task.data.text for task in fake.tasks(words))


async def test_second_attempt_adds_nothing_again() -> None:
    """In whatever order it makes its additions; what the first attempt did not add is added."""

    async def add(task: Word, context: TaskContext) -> None:
        texts = task.text.split() if context.attempt == 1 else [*reversed(task.text.split()), "c"]
        for text in texts:
            await context.add_tasks(words, [Word(text=text)])
        if context.attempt < 3:
            raise ValueError("again")

    assert await _run(words, handler=add) == ["a", "b", "c"]


async def test_the_same_tasks_can_be_added_twice() -> None:
    """An attempt may want two equal tasks, and another attempt still adds no third one."""

    async def add(task: Word, context: TaskContext) -> None:
        await asyncio.gather(*(context.add_tasks(words, [task]) for _ in range(2)))
        if context.attempt == 1:
            raise ValueError("again")

    assert await _run(words, handler=add) == ["a b", "a b"]


async def test_tasks_are_added_to_the_next_stage_of_the_type() -> None:
    """If the job has several."""

    async def add(task: Word, context: TaskContext) -> None:
        await context.add_tasks(words, [NewTask(task), NewTask(task)])
        stages = context.producer.list_stages(context.job.id, words)
        totals.extend([(await context.producer.get_summary(stage)).total async for stage in stages])
        second = [stage async for stage in context.producer.list_stages(context.job.id, words)][1]
        await context.producer.create_tasks(second, words, [task])  # an empty stage never completes

    totals: list[int] = []
    assert await _run(words, words, handler=add) == ["a b", "a b", "a b"]
    assert totals == [2, 0]


async def test_an_empty_stage_is_logged() -> None:
    """Adding no tasks is fine if another task has added some; otherwise the job would wait forever."""

    async def add(task: Word, context: TaskContext) -> None:
        await context.add_tasks(words, [])
        await context.add_tasks(words, [task])
        await context.add_tasks(words, [])

    with capture_logs() as lines:
        assert await _run(words, handler=add) == ["a b"]
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [(line["event"], line["empty_stage_type"]) for line in warnings] == [("stage still empty", "words")]


class Tags(BaseModel):
    """The data of a task with a set, whose values every process writes in another order."""

    tags: set[str]


async def test_sets_are_recognised_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their values are written in an order that depends on the process."""
    tagged = StageType("tagged", task=Tags)
    encoded: list[bytes] = [b'["a","b"]', b'["b","a"]']
    encode = payloads.encode_payload

    def in_another_order(payload: BaseModel, *arguments: Any) -> bytes:  # noqa: ANN401 passed on
        document = encode(payload, *arguments)
        return document.replace(b'["a","b"]', encoded[0]).replace(b'["b","a"]', encoded[0])

    monkeypatch.setattr(bodies, "encode_payload", in_another_order)
    fake = FakeManager()
    job = await Producer(fake.client()).create_job(essay, stages=[NewStage(split, [Word()]), NewStage(tagged)])

    async def add(_task: Word, context: TaskContext) -> None:
        await context.add_tasks(tagged, [Tags(tags={"a", "b"})])
        if context.attempt == 1:
            encoded.reverse()
            raise ValueError("again")

    async def ignore_tags(_task: Tags, _context: TaskContext) -> None: ...

    worker = Worker(fake.client(), [Handler(split, add), Handler(tagged, ignore_tags)])
    assert await work_off(worker, job) is JobStatus.COMPLETED
    assert len(fake.tasks(tagged)) == 1


class Other(BaseModel):
    """Another model."""


async def test_what_cannot_be_added_is_an_error() -> None:
    """It names the missing stage, or the task that does not fit."""
    errors: list[Exception] = []

    async def add(task: Word, context: TaskContext) -> None:
        for stage_type, tasks in ((split, [task]), (StageType("none", task=Word), [task]), (words, [Other()])):
            try:
                await context.add_tasks(stage_type, tasks)  # type: ignore[arg-type]
            except (ConfigurationError, InvalidPayloadError) as error:
                errors.append(error)
        await context.add_tasks(words, [task])

    await _run(words, handler=add)
    assert "has no stage of type 'split' after this one" in str(errors[0])
    assert "has no stage of type 'none' after this one" in str(errors[1])
    assert str(errors[2]).startswith("tasks[0].data: ")


async def test_manager_without_idempotency_keys_is_named() -> None:
    """Nothing is added, because a second attempt would add it again."""
    fake = FakeManager(part_a_only=True)
    job = await Producer(fake.client()).create_job(
        essay, stages=[NewStage(split, [Word()]), NewStage(words, [Word(text="first")])]
    )
    errors: list[Exception] = []

    async def add(task: Word, context: TaskContext) -> None:
        try:
            await context.add_tasks(words, [task])
        except UnsupportedError as error:
            errors.append(error)

    worker = Worker(fake.client(), [Handler(split, add), Handler(words, ignore)])
    assert await work_off(worker, job) is JobStatus.COMPLETED
    assert [task.data.text for task in fake.tasks(words)] == ["first"]
    assert str(errors[0]).startswith("This manager lacks the feature 'idempotency-keys'")


async def test_context_for_a_test_records_what_is_added() -> None:
    """Without a manager, and after the same checks."""
    context = context_for(split)
    await context.add_tasks(words, [Word(text="a"), NewTask(Word(text="b"), max_attempts=1)])
    await context.add_tasks(StageType("others", task=Word), [Word(text="c")])
    assert context.added_tasks(words) == [Word(text="a"), Word(text="b")]
    with pytest.raises(InvalidPayloadError, match=r"^tasks\[0\]\.data: "):
        await context.add_tasks(words, [Other()])  # type: ignore[list-item]


async def test_context_of_the_fake_manager_adds_and_records() -> None:
    """Both can be asserted."""
    fake = FakeManager()
    await Producer(fake.client()).create_job(essay, stages=[NewStage(split, [Word()]), NewStage(words)])
    task, context = fake.claim(split)
    await context.add_tasks(words, [task])
    assert context.added_tasks(words) == [task] == [added.data for added in fake.tasks(words)]
