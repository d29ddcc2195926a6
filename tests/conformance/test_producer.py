"""Producers: jobs, stages and tasks are created, read and changed."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from jobnik_sdk import (
    Consumer,
    Empty,
    Handler,
    Job,
    JobnikClient,
    JobStatus,
    JobType,
    NewStage,
    NewTask,
    Priority,
    Producer,
    RetryPolicy,
    StageStatus,
    StageType,
    StreamProgress,
    TaskContext,
    TaskDefaults,
    TaskStatus,
    Worker,
    errors,
)
from jobnik_sdk.observability import trace_context
from pydantic import BaseModel

from tests.conformance.blocking import AwaitedProducer
from tests.conformance.managers import Manager
from tests.conformance.transports import LossyTransport


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


class Size(BaseModel):
    """A task's result."""

    width: int


gallery = JobType("gallery", data=Gallery, metadata=Owner)
pictures = StageType("pictures", task=Picture, task_metadata=Owner, data=Gallery)


@pytest.fixture(params=[Producer, AwaitedProducer], ids=["async", "sync"])
def producer(request: pytest.FixtureRequest, client: JobnikClient) -> Any:  # noqa: ANN401 either has the same methods
    """Both kinds of producers."""
    return request.param(client)


async def test_job_with_stages_and_tasks_comes_back_typed(
    producer: Producer,
    is_original: bool,  # noqa: FBT001 pytest passes it by name
) -> None:
    """Created entities are read back as they were given, with the fields that the manager adds."""
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner(owner="me"), priority=Priority.HIGH)
    stage = await producer.create_stage(job, pictures, Gallery(title="first"))
    new = NewTask(Picture(source="b"), metadata=Owner(owner="me"), max_attempts=5)
    tasks = await producer.create_tasks(stage, pictures, [Picture(source="a"), new])
    assert [(task.data.source, task.metadata.owner, task.max_attempts) for task in tasks] == [
        ("a", "nobody", 1 if is_original else 3),
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


async def test_trace_is_inherited(producer: Producer) -> None:
    """Stages and tasks belong to the trace of their job."""
    traceparent = trace_context.generate()
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner(), traceparent=traceparent)
    stage = await producer.create_stage(job, pictures, Gallery(title="first"))
    (task,) = await producer.create_tasks(stage, pictures, [NewTask(Picture(source="a"), metadata=Owner())])
    assert [job.traceparent, stage.traceparent, task.traceparent] == [traceparent] * 3


async def test_jobs_are_changed(producer: Producer, is_original: bool) -> None:  # noqa: FBT001 as above
    """A job is paused, resumed, given another priority, aborted and deleted; a waiting stage is started.

    The original manager does not abort the stages of an aborted job.
    """
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
    if not is_original:
        assert (await producer.get_stage(stage, pictures)).status is StageStatus.ABORTED
    await producer.delete_job(job)
    with pytest.raises(errors.JobNotFoundError):
        await producer.get_job(job, gallery)


async def test_refusals_are_raised_as_errors(producer: Producer) -> None:
    """Each refusal of the manager has an error class."""
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
    """An empty list is accepted."""
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    stage = await producer.create_stage(job, pictures, Gallery(title="first"))
    assert await producer.create_tasks(stage, pictures, []) == []
    assert isinstance(stage.id, UUID)
    assert TaskStatus.PENDING not in {task.status for task in await producer.get_tasks(stage, pictures)}


async def test_whole_job_is_created_at_once(producer: Producer, consumer: Consumer, own_name: str) -> None:
    """Stages and tasks exist when the call returns, the stages in their order, and tasks can be claimed."""
    later = StageType(f"{own_name}-2", task=Picture, data=Gallery)
    first = StageType(own_name, task=Picture)
    job = await producer.create_job(
        gallery,
        Gallery(title="Rome"),
        metadata=Owner(),
        stages=[
            NewStage(first, [NewTask(Picture(source=name), max_attempts=most) for name, most in (("a", 3), ("b", 1))]),
            NewStage(later, [Picture(source="sheet")], data=Gallery(title="all")),
        ],
    )
    assert job.is_new
    assert [(stage.type, stage.order, stage.status, stage.summary.total) for stage in job.stages] == [
        (first.name, 1, StageStatus.PENDING, 2),
        (later.name, 2, StageStatus.CREATED, 1),
    ]
    assert {stage.traceparent for stage in job.stages} == {job.traceparent}
    tasks = await producer.get_tasks(job.stages[0], first)
    assert [(task.data.source, task.max_attempts) for task in tasks] == [("a", 3), ("b", 1)]
    (stage,) = [stage async for stage in producer.list_stages(job, later)]
    assert stage.data.title == "all"
    claimed = await consumer.claim(first)
    assert claimed is not None
    assert claimed.data.source == "a"


async def test_whole_job_with_a_waiting_stage(producer: Producer, consumer: Consumer, own_name: str) -> None:
    """Its tasks can be claimed once the stage is started."""
    stage_type = StageType(own_name, task=Picture)
    tree = [NewStage(stage_type, [Picture(source="a")], waiting=True)]
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner(), stages=tree)
    assert job.stages[0].status is StageStatus.WAITING
    assert await consumer.claim(stage_type) is None
    await producer.start_stage(job.stages[0])
    assert await consumer.claim(stage_type) is not None


async def test_thousands_of_tasks_are_streamed_and_listed(producer: Producer, own_name: str) -> None:
    """Each task of a stream is created once, in any order, and appears once in a list of several pages."""
    stage_type = StageType(own_name, task=Picture)
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    stage = await producer.create_stage(job, stage_type, waiting=True)
    seen: list[StreamProgress] = []
    tasks = (Picture(source=str(number)) for number in range(2_345))
    assert await producer.stream_tasks(stage, stage_type, tasks, batch=200, on_progress=seen.append) == 2_345
    assert (await producer.get_summary(stage)).total == 2_345
    assert (len(seen), seen[-1].created) == (12, 2_345)
    listed = [int(task.data.source) async for task in producer.list_tasks(stage, stage_type)]
    assert sorted(listed) == list(range(2_345))


async def test_stream_with_one_batch_in_flight_keeps_its_order(producer: Producer, own_name: str) -> None:
    """The tasks are listed in the order of their source."""
    stage_type = StageType(own_name, task=Picture)
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    stage = await producer.create_stage(job, stage_type, waiting=True)
    tasks = (Picture(source=str(number)) for number in range(50))
    await producer.stream_tasks(stage, stage_type, tasks, batch=7, in_flight=1)
    listed = [int(task.data.source) async for task in producer.list_tasks(stage, stage_type)]
    assert listed == list(range(50))


async def test_stream_into_an_ended_stage_is_refused(producer: Producer, own_name: str) -> None:
    """The refusal ends the stream, and no task is created."""
    stage_type = StageType(own_name, task=Picture)
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    stage = await producer.create_stage(job, stage_type)
    await producer.abort_job(job)
    with pytest.raises(errors.StreamError) as caught:
        await producer.stream_tasks(stage, stage_type, [Picture(source="a"), Picture(source="b")], batch=1, in_flight=1)
    assert isinstance(caught.value.__cause__, errors.StageFinishedError)
    assert (caught.value.created, caught.value.refused, caught.value.unsent) == (0, (range(1),), 1)


async def test_options_of_tasks_and_stages_are_accepted(
    client: JobnikClient, producer: Producer, own_name: str
) -> None:
    """Limits, delays and retry policies are accepted, or the SDK raises an error if the manager lacks them."""
    stage_type = StageType(own_name, task=Picture)
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    second = timedelta(seconds=1)
    policies = [RetryPolicy.fixed(second), RetryPolicy.exponential(second, max_delay=9 * second, jitter=0.1)]
    tasks = [NewTask(Picture(source="a"), timeout=second, retry=policy, max_attempts=2) for policy in policies]
    tasks += [NewTask(Picture(source="a"), available_at=datetime.now(UTC) + second)]
    tasks += [NewTask(Picture(source="a"), delay=second)]
    if {"retry-policy", "task-defaults", "weighted-progress"} <= await client.capabilities():
        defaults = TaskDefaults(max_attempts=7, timeout=second, retry=policies[0])
        stage = await producer.create_stage(job, stage_type, weight=3, task_defaults=defaults, waiting=True)
        created = await producer.create_tasks(stage, stage_type, tasks)
        assert [task.max_attempts for task in created] == [2, 2, 7, 7]
    else:
        stage = await producer.create_stage(job, stage_type)
        with pytest.raises(errors.UnsupportedError):
            await producer.create_tasks(stage, stage_type, tasks)


async def test_unique_job_is_created_once(client: JobnikClient, producer: Producer, own_name: str) -> None:
    """Of several concurrent calls with the same key, one creates the job; an error if the manager lacks this."""

    async def create() -> tuple[UUID, bool]:
        job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner(), unique_key=own_name)
        return job.id, job.is_new

    if "unique-jobs" not in await client.capabilities():
        with pytest.raises(errors.UnsupportedError):
            await create()
        return
    created = await asyncio.gather(*[create() for _ in range(5)])
    assert len({job for job, _ in created}) == 1
    assert [is_new for _, is_new in created].count(True) == 1
    await producer.abort_job(created[0][0])
    assert (await create())[1]


async def test_wait_for_a_job_and_read_its_results(client: JobnikClient, producer: Producer, own_name: str) -> None:
    """The wait reports progress until the job is completed; then the typed results can be read."""
    stage_type = StageType(own_name, task=Picture, result=Size)
    tree = [NewStage(stage_type, [Picture(source="a" * length) for length in (1, 2, 3)])]
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner(), stages=tree)

    async def measure(picture: Picture, _context: TaskContext) -> Size:
        return Size(width=len(picture.source))

    seen: list[JobStatus] = []

    def note(change: Job[Gallery, Owner]) -> None:
        seen.append(change.status)

    worker = Worker(client, [Handler(stage_type, measure)], poll_initial_delay=timedelta(milliseconds=10))
    working = asyncio.create_task(worker.run())
    done = await producer.wait_for_job(job, gallery, timeout=timedelta(seconds=15), on_progress=note)
    worker.stop()
    await working
    assert (done.status, done.percentage, seen[-1]) == (JobStatus.COMPLETED, 100, JobStatus.COMPLETED)
    tasks = [task async for task in producer.list_tasks(job.stages[0], stage_type, TaskStatus.COMPLETED)]
    features = await client.capabilities()
    if "results" in features:
        assert [task.result and task.result.width for task in tasks] == [1, 2, 3]
    if "attempts" in features:
        assert [attempt.outcome for attempt in await producer.get_attempts(tasks[0])] == ["COMPLETED"]


async def test_failed_and_aborted_jobs_end_a_wait(producer: Producer, consumer: Consumer, own_name: str) -> None:
    """Each is an error that has the job; a wait can time out before the job ends."""
    stage_type = StageType(own_name, task=Picture)
    tree = [NewStage(stage_type, [NewTask(Picture(source="a"), max_attempts=1)])]
    failing = await producer.create_job(gallery, Gallery(title="a"), metadata=Owner(), stages=tree)
    place = f"stage 1 of 1, '{own_name}', is PENDING: 0 of 1 tasks completed, 1 waiting"
    with pytest.raises(errors.WaitTimeoutError, match=f"It is still running: it is PENDING, and {place}."):
        await producer.wait_for_job(failing, gallery, timeout=timedelta(milliseconds=1))
    task = await consumer.claim(stage_type)
    assert task is not None
    await consumer.fail(task)
    with pytest.raises(errors.JobFailedError) as failed:
        await producer.wait_for_job(failing, gallery)
    assert failed.value.job.id == failing.id
    assert failed.value.task is not None
    assert (failed.value.task.id, failed.value.task.data["source"]) == (task.id, "a")
    assert f"has failed: task {task.id} failed" in str(failed.value)
    aborted = await producer.create_job(gallery, Gallery(title="b"), metadata=Owner())
    async with aclosing(producer.watch_job(aborted, gallery)) as changes:
        assert (await anext(changes)).status is JobStatus.PENDING
        await producer.abort_job(aborted)
        assert (await anext(changes)).status is JobStatus.ABORTED
    with pytest.raises(errors.JobAbortedError):
        await producer.wait_for_job(aborted, gallery)


async def test_stages_are_listed_in_their_order(producer: Producer, own_name: str) -> None:
    """`list_stages` returns them in order even if there are many, and if the first ones were changed last."""
    stage_type = StageType(own_name, task=Picture)
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    stages = [await producer.create_stage(job, stage_type) for _ in range(25)]
    await producer.create_tasks(stages[0], stage_type, [Picture(source="a")])
    assert [stage.id async for stage in producer.list_stages(job, stage_type)] == [stage.id for stage in stages]


async def test_tasks_of_any_number_are_read(producer: Producer, own_name: str) -> None:
    """`get_tasks` returns each task once, also from a manager that returns ten at a time."""
    stage_type = StageType(own_name, task=Picture)
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner())
    stage = await producer.create_stage(job, stage_type)
    created = await producer.create_tasks(stage, stage_type, [Picture(source=str(number)) for number in range(123)])
    assert [int(task.data.source) for task in created] == list(range(123))
    read = await producer.get_tasks(stage, stage_type)
    assert sorted(int(task.data.source) for task in read) == list(range(123))


async def test_jobs_of_a_type_are_listed(producer: Producer) -> None:
    """Typed, newest first; a list can also be reversed."""
    mine = JobType(f"sdk-{uuid4()}", data=Gallery)
    created = [(await producer.create_job(mine, Gallery(title=title))).id for title in "abc"]
    assert [job.id async for job in producer.list_jobs(mine)] == created[::-1]
    assert [job.id async for job in producer.list_jobs(mine, oldest_first=True)] == created
    assert [job.id async for job in producer.list_jobs(mine, limit=2)] == created[:0:-1]
    assert [job.id async for job in producer.list_jobs(mine, status=[])] == []
    plain = [job.data async for job in producer.list_jobs(mine.name)]
    assert plain == [{"title": "c"}, {"title": "b"}, {"title": "a"}]


async def test_jobs_are_filtered(producer: Producer) -> None:
    """All filters must match, also if the manager has none of them."""
    mine = JobType(f"sdk-{uuid4()}", data=Gallery, metadata=Owner)
    titles = {
        (await producer.create_job(mine, Gallery(title=title), metadata=Owner(owner=owner))).id: title
        for title, owner in (("a", "me"), ("b", "you"), ("c", "me"), ("d", "me"))
    }
    jobs = {titles[job.id]: job async for job in producer.list_jobs(mine)}
    await producer.pause_job(jobs["c"])
    await producer.abort_job(jobs["d"])

    async def titles_of(**filters: Any) -> str:  # noqa: ANN401 passed on
        return "".join([job.data.title async for job in producer.list_jobs(mine, **filters)])

    assert await titles_of(status=JobStatus.PENDING) == "ba"
    assert await titles_of(status=[JobStatus.PAUSED, JobStatus.ABORTED], oldest_first=True) == "cd"
    assert await titles_of(metadata={"owner": "me"}) == "dca"
    assert await titles_of(metadata={"owner": "me"}, status={JobStatus.PENDING}) == "a"
    assert await titles_of(metadata={"owner": "them"}) == ""
    now, hour = datetime.now(UTC), timedelta(hours=1)
    assert await titles_of(created_since=now - hour, created_until=now + hour) == "dcba"
    assert await titles_of(created_since=now + hour) == await titles_of(created_until=now - hour) == ""


async def test_progress_of_jobs_is_read(client: JobnikClient, producer: Producer, own_name: str) -> None:
    """A job that is read has its progress, and so has each job of a list if it is asked for."""
    mine = JobType(f"sdk-{uuid4()}")
    stage_type = StageType(own_name, task=Picture)
    job = await producer.create_job(mine, stages=[NewStage(stage_type, [Picture(source="a")])])
    read = await producer.get_job(job)
    (listed,) = [job async for job in producer.list_jobs(mine, progress=True)]
    (plain,) = [job async for job in producer.list_jobs(mine)]
    assert plain.progress is None
    if "weighted-progress" in await client.capabilities():
        assert read.progress is not None
        assert (read.progress.fraction, listed) == (0, read)
    else:
        assert (read.progress, listed.progress) == (None, None)


async def test_entities_know_their_types(producer: Producer, own_name: str) -> None:
    """The type is needed only with an id; what is returned is typed either way."""
    stage_type = StageType(own_name, task=Picture, result=Size, data=Gallery)
    tree = [NewStage(stage_type, [Picture(source="a")], data=Gallery(title="all"), waiting=True)]
    job = await producer.create_job(gallery, Gallery(title="Rome"), metadata=Owner(), stages=tree)
    assert (await producer.get_job(job)).data == Gallery(title="Rome")
    assert [job.data async for job in producer.watch_job(await _aborted(producer))] == [Gallery(title="gone")]
    stage = job.stages[0]
    assert stage.data == Gallery(title="all")
    assert (await producer.get_stage(stage)).data == Gallery(title="all")
    (task,) = await producer.create_tasks(stage, [Picture(source="b")])
    assert await producer.stream_tasks(stage, [Picture(source="c")]) == 1
    assert (await producer.get_task(task)).data == Picture(source="b")
    tasks = [Picture(source=source) for source in "abc"]
    assert [task.data for task in await producer.get_tasks(stage)] == tasks
    (found,) = [stage async for stage in producer.list_stages(job, stage_type)]
    assert [task.data async for task in producer.list_tasks(found)] == tasks
    assert [task.data async for task in producer.list_tasks(found, status=TaskStatus.COMPLETED)] == []
    (plain,) = [stage async for stage in producer.list_stages(job)]
    assert (plain.data, (await producer.get_tasks(plain))[0].data["source"]) == ({"title": "all"}, "a")
    with pytest.raises(TypeError, match="Pass stage_type: this stage was read without its type"):
        await producer.create_tasks(plain, [Picture(source="d")])
    with pytest.raises(TypeError, match="Pass stage_type: only a stage itself has a type"):
        await producer.get_tasks(stage.id)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]


async def _aborted(producer: Producer) -> Job[Gallery, Owner]:
    job = await producer.create_job(gallery, Gallery(title="gone"), metadata=Owner())
    await producer.abort_job(job)
    return job


@pytest.mark.parametrize("lost", ["/jobs", "/stage", "/tasks"])
async def test_a_creation_is_repeated_after_a_lost_answer(
    manager: Manager, own_name: str, lost: str, *, part_b: bool
) -> None:
    """With idempotency keys, nothing is created twice, and the SDK returns what was created."""
    transport = LossyTransport(manager.transport, "POST", lost)
    stage_type = StageType(own_name, task=Picture)
    async with JobnikClient(manager.url, transport=transport) as client:
        producer = Producer(client)

        async def create() -> None:
            job = await producer.create_job(JobType(own_name))
            stage = await producer.create_stage(job, stage_type)
            tasks = await producer.create_tasks(stage, stage_type, [Picture(source=name) for name in "abc"])
            assert await producer.get_tasks(stage, stage_type) == tasks
            assert [one.id async for one in producer.list_stages(job, stage_type)] == [stage.id]

        if not part_b:
            with pytest.raises(errors.LostAnswerError):
                await create()
            return
        await create()
        assert transport.lost == 1
        assert len([job async for job in producer.list_jobs(JobType(own_name))]) == 1


async def test_a_job_with_an_idempotency_key_is_created_once(
    producer: Producer, own_name: str, *, part_b: bool
) -> None:
    """A second process gets the job as it was created, and an error for another job with the key."""
    stage_type, job_type = StageType(own_name, task=Picture), JobType(own_name)

    async def create(source: str) -> Job[Empty, Empty]:
        stages = [NewStage(stage_type, [Picture(source=source)])]
        return await producer.create_job(job_type, stages=stages, idempotency_key=own_name)

    if not part_b:
        with pytest.raises(errors.UnsupportedError):
            await create("a")
        return
    first = await create("a")
    await producer.abort_job(first)
    assert await create("a") == first
    with pytest.raises(errors.IdempotencyKeyReusedError):
        await create("b")
    assert [job.id async for job in producer.list_jobs(job_type)] == [first.id]
    await producer.delete_job(first)
    with pytest.raises(errors.JobNotFoundError):
        await create("a")
