"""Consumers: tasks are claimed and reported one by one, even if answers are lost."""

import pytest
from jobnik_sdk import (
    Consumer,
    Empty,
    JobnikClient,
    JobStatus,
    JobType,
    NewTask,
    Priority,
    Producer,
    StageType,
    TaskStatus,
    errors,
)
from pydantic import BaseModel

from tests.conformance.managers import Manager
from tests.conformance.transports import LossyTransport


class Picture(BaseModel):
    """A task's data."""

    source: str


plain = JobType("plain")


def _task(source: str) -> NewTask[Picture, Empty]:
    return NewTask(Picture(source=source), max_attempts=3)


async def _stage_of(producer: Producer, stage_type: StageType[Picture], *sources: str) -> None:
    job = await producer.create_job(plain)
    stage = await producer.create_stage(job, stage_type)
    await producer.create_tasks(stage, stage_type, [_task(source) for source in sources])


async def test_tasks_are_claimed_once_and_in_order(producer: Producer, consumer: Consumer, own_name: str) -> None:
    """Higher priorities first, then the oldest task, then None."""
    stage_type = StageType(own_name, task=Picture)
    await _stage_of(producer, stage_type, "a", "b")
    urgent = await producer.create_job(plain, priority=Priority.HIGH)
    stage = await producer.create_stage(urgent, stage_type)
    await producer.create_tasks(stage, stage_type, [Picture(source="urgent")])
    claimed = [await consumer.claim(stage_type) for _ in range(4)]
    assert [task.data.source if task is not None else None for task in claimed] == ["urgent", "a", "b", None]


async def test_failed_attempt_is_tried_again_until_none_is_left(
    producer: Producer, consumer: Consumer, own_name: str
) -> None:
    """After three failures, the task, its stage and its job have failed."""
    stage_type = StageType(own_name, task=Picture)
    job = await producer.create_job(plain)
    stage = await producer.create_stage(job, stage_type)
    await producer.create_tasks(stage, stage_type, [_task("a")])
    for attempt in (1, 2, 3):
        task = await consumer.claim(stage_type)
        assert task is not None
        assert task.attempt == attempt
        await consumer.fail(task)
    assert [task.status for task in await producer.get_tasks(stage, stage_type)] == [TaskStatus.FAILED]
    assert (await producer.get_job(job, plain)).status is JobStatus.FAILED


async def test_reports_are_idempotent(producer: Producer, consumer: Consumer, own_name: str) -> None:
    """The same report again succeeds; a different one is refused."""
    stage_type = StageType(own_name, task=Picture)
    await _stage_of(producer, stage_type, "a", "b")
    completed, failed = await consumer.claim(stage_type), await consumer.claim(stage_type)
    assert completed is not None
    assert failed is not None
    await consumer.complete(completed)
    await consumer.complete(completed)
    with pytest.raises(errors.IllegalTransitionError):
        await consumer.fail(completed)
    await consumer.fail(failed)
    await consumer.fail(failed)
    again = await consumer.claim(stage_type)
    assert again is not None
    assert again.attempt == 2


async def test_report_whose_answer_is_lost_counts_once(
    manager: Manager, producer: Producer, consumer: Consumer, own_name: str
) -> None:
    """The consumer repeats the report, and the manager accepts it once."""
    stage_type = StageType(own_name, task=Picture)
    await _stage_of(producer, stage_type, "a")
    for attempt, report in ((1, Consumer.fail), (2, Consumer.complete)):
        transport = LossyTransport(manager.transport, "PUT", "/status")
        async with JobnikClient(manager.url, transport=transport) as client:
            task = await consumer.claim(stage_type)
            assert task is not None
            assert task.attempt == attempt
            await report(Consumer(client), task)
        assert transport.lost == 1
    assert await consumer.claim(stage_type) is None


async def test_task_that_does_not_fit_can_be_failed(producer: Producer, consumer: Consumer, own_name: str) -> None:
    """A task whose data does not match the model can still be reported as failed."""

    class Older(BaseModel):
        name: str

    older, newer = StageType(own_name, task=Older), StageType(own_name, task=Picture)
    job = await producer.create_job(plain)
    stage = await producer.create_stage(job, older)
    await producer.create_tasks(stage, older, [NewTask(Older(name="a"), max_attempts=3)])
    with pytest.raises(errors.UnreadableTaskError, match=r"^data\.source: Field required") as caught:
        await consumer.claim(newer)
    await consumer.fail(caught.value.task)
    assert [task.status for task in await producer.get_tasks(stage, older)] == [TaskStatus.RETRIED]


@pytest.mark.parametrize(
    "name", ["...", ".a", "a/../b", "/", "%2E", "%2e%2e", "%", "?", "#", " ", "+", "tasks", "日本", "\N{PILE OF POO}"]
)
async def test_stage_types_of_any_characters(producer: Producer, consumer: Consumer, own_name: str, name: str) -> None:
    """A stage type may contain whatever has a meaning in a URL."""
    stage_type = StageType(f"{name}{own_name[:8]}" if name.isalnum() else name, task=Picture)
    job = await producer.create_job(plain, priority=Priority.VERY_HIGH)
    stage = await producer.create_stage(job, stage_type)
    await producer.create_tasks(stage, stage_type, [Picture(source=own_name)])
    assert [one.type async for one in producer.list_stages(job, stage_type)] == [stage_type.name]
    task = await consumer.claim(stage_type)
    assert task is not None
    assert task.data.source == own_name
    await consumer.complete(task)
    assert (await producer.get_job(job, plain)).status is JobStatus.COMPLETED
