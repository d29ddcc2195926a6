"""A producer against the real manager."""

from uuid import UUID, uuid4

import pytest
from jobnik_sdk import (
    JobStatus,
    JobType,
    NewTask,
    Priority,
    Producer,
    StageStatus,
    StageType,
    TaskStatus,
    errors,
    trace,
)
from pydantic import BaseModel


class Gallery(BaseModel):
    """A job's data."""

    title: str


class Owner(BaseModel):
    """Metadata."""

    owner: str = "nobody"


class Picture(BaseModel):
    """A task's data."""

    source: str
    size: int = 256


gallery = JobType("gallery", data=Gallery, metadata=Owner)
pictures = StageType("pictures", task=Picture, task_metadata=Owner, data=Gallery)


async def test_job_with_stages_and_tasks_comes_back_typed(producer: Producer) -> None:
    """What was created is read back as it was said, with what the manager adds."""
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner(owner="me"), priority=Priority.HIGH)
    stage = await producer.create_stage(job, pictures, Gallery(title="first"))
    new = NewTask(Picture(source="b"), metadata=Owner(owner="me"), max_attempts=5)
    tasks = await producer.create_tasks(stage, pictures, [Picture(source="a"), new])
    assert [(task.data.source, task.metadata.owner, task.max_attempts) for task in tasks] == [
        ("a", "nobody", 3),
        ("b", "me", 5),
    ]
    read = await producer.get_job(job.id, gallery)
    assert (read.data, read.metadata, read.priority, read.status) == (
        Gallery(title="Rome"),
        Owner(owner="me"),
        Priority.HIGH,
        JobStatus.PENDING,
    )
    stage = await producer.get_stage(stage.id, pictures)
    assert (stage.order, stage.status, stage.data.title, stage.summary.pending) == (1, StageStatus.PENDING, "first", 2)
    assert (await producer.get_summary(stage)).total == 2
    assert {task.id for task in await producer.get_tasks(stage, pictures)} == {task.id for task in tasks}


async def test_trace_goes_along(producer: Producer) -> None:
    """A job's trace is its stages' and its tasks' trace."""
    traceparent = trace.generate()
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner(), traceparent=traceparent)
    stage = await producer.create_stage(job, pictures, Gallery(title="first"))
    (task,) = await producer.create_tasks(stage, pictures, [NewTask(Picture(source="a"), metadata=Owner())])
    assert [job.traceparent, stage.traceparent, task.traceparent] == [traceparent] * 3


async def test_jobs_are_steered(producer: Producer) -> None:
    """A job is paused, resumed, made urgent, aborted and deleted; a waiting stage is started."""
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    stage = await producer.create_stage(job, pictures, Gallery(title="first"), waiting=True)
    assert stage.status is StageStatus.WAITING
    await producer.start_stage(stage)
    await producer.pause_job(job)
    assert (await producer.get_job(job, gallery)).status is JobStatus.PAUSED
    await producer.resume_job(job)
    await producer.set_priority(job, Priority.VERY_HIGH)
    await producer.set_priority(job, Priority.VERY_HIGH)
    assert (await producer.get_job(job, gallery)).priority is Priority.VERY_HIGH
    with pytest.raises(errors.JobNotFinishedError):
        await producer.delete_job(job)
    await producer.abort_job(job)
    assert (await producer.get_stage(stage, pictures)).status is StageStatus.ABORTED
    await producer.delete_job(job)
    with pytest.raises(errors.JobNotFoundError):
        await producer.get_job(job, gallery)


async def test_refusals_have_their_errors(producer: Producer) -> None:
    """What the manager refuses is raised as what it is."""
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    stage = await producer.create_stage(job, pictures, Gallery(title="first"))
    with pytest.raises(errors.IllegalTransitionError, match="PENDING"):
        await producer.resume_job(job)
    await producer.abort_job(job)
    with pytest.raises(errors.JobFinishedError):
        await producer.create_stage(job, pictures, Gallery(title="late"))
    with pytest.raises(errors.StageFinishedError):
        await producer.create_tasks(stage, pictures, [NewTask(Picture(source="a"), metadata=Owner())])
    with pytest.raises(errors.StageNotFoundError):
        await producer.get_summary(uuid4())
    with pytest.raises(errors.PayloadTooLargeError):
        await producer.create_job(gallery, Gallery(title="x" * 2_000_000), metadata=Owner())


async def test_empty_list_of_tasks_creates_none(producer: Producer) -> None:
    """No tasks are a list too."""
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    stage = await producer.create_stage(job, pictures, Gallery(title="first"))
    assert await producer.create_tasks(stage, pictures, []) == []
    assert isinstance(stage.id, UUID)
    assert TaskStatus.PENDING not in {task.status for task in await producer.get_tasks(stage, pictures)}
