"""What type checkers say about code that uses the SDK."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_MYPY_CACHE = Path(__file__).parents[3] / ".mypy_cache"
"""The cache of `make check`, which has read the SDK already."""

_CODE = """
from collections.abc import AsyncIterator, Awaitable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pydantic import BaseModel
from typing_extensions import Self, assert_type

from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk import (
    ClaimedTask, Consumer, CreatedJob, Empty, Handler, HandlerStyle, Job, JobnikClient, JobType, NewStage, NewTask,
    JobStatus, Priority, Producer, RetryPolicy, Stage, StageType, StreamProgress, SyncProducer, Task, TaskContext,
    TaskDefaults, TaskStatus, Worker, run,
)
from jobnik_sdk import WorkerSettings


class Gallery(BaseModel):
    title: str


class Picture(BaseModel):
    source: str


class Size(BaseModel):
    width: int


class Owner(BaseModel):
    owner: str


gallery = JobType("gallery", data=Gallery)
plain = JobType("plain")
owned = JobType("owned", metadata=Owner)
both = JobType("both", data=Gallery, metadata=Owner)
pictures = StageType("pictures", task=Picture, result=Size)
silent = StageType("silent", task=Picture, task_metadata=Owner)
described = StageType("described", task=Picture, data=Gallery, metadata=Owner)
second = timedelta(seconds=1)


async def right(producer: Producer, consumer: Consumer, job_id: UUID) -> None:
    new_job = await producer.create_job(gallery, Gallery(title="a"), priority=Priority.LOW)
    assert_type(new_job, CreatedJob[Gallery, Empty])
    job: Job[Empty, Empty] = await producer.create_job(plain)
    assert_type((await producer.create_job(owned, metadata=Owner(owner="a"))).metadata.owner, str)
    assert_type(await producer.create_stage(job, pictures), Stage[Picture, Size, Empty, Empty, Empty])
    await producer.create_stage(job_id, described, Gallery(title="a"), metadata=Owner(owner="a"))
    assert_type(await producer.create_tasks(job_id, pictures, [Picture(source="a")]), list[Task[Picture, Size, Empty]])
    await producer.create_tasks(job_id, pictures, [Picture(source="a"), NewTask(Picture(source="a"), max_attempts=1)])
    await producer.create_tasks(job_id, silent, [NewTask(Picture(source="a"), metadata=Owner(owner="a"))])
    new = NewTask(Picture(source="a"))
    await producer.create_tasks(job_id, pictures, [new])
    await producer.create_stage(job, pictures, waiting=True, weight=2, task_defaults=TaskDefaults(timeout=second))
    await producer.create_job(
        both,
        Gallery(title="a"),
        metadata=Owner(owner="a"),
        stages=[
            NewStage(pictures, [Picture(source="a"), new]),
            NewStage(silent, [NewTask(Picture(source="a"), metadata=Owner(owner="a"), timeout=second)], waiting=True),
            NewStage(described, data=Gallery(title="a"), metadata=Owner(owner="a"), weight=0.5),
        ],
        unique_key="a",
        unique_for=second,
    )
    task = await consumer.claim(silent)
    assert_type(task, ClaimedTask[Picture, Owner] | None)
    if task is not None:
        assert_type(task.data.source, str)
        await consumer.complete(task)


async def sources() -> AsyncIterator[Picture]:
    yield Picture(source="a")


def tell_rate(progress: StreamProgress) -> None:
    print(progress.rate)


def tell_title(job: Job[Gallery, Empty]) -> None:
    print(job.data.title)


async def follow(producer: Producer, job_id: UUID) -> None:
    retry = RetryPolicy.exponential(second, factor=3, max_delay=10 * second, jitter=0.5)
    NewTask(Picture(source="a"), retry=retry, delay=second)
    NewTask(Picture(source="a"), retry=RetryPolicy.fixed(second), available_at=datetime.now(UTC))
    assert_type(await producer.stream_tasks(job_id, pictures, sources(), on_progress=tell_rate), int)
    await producer.stream_tasks(job_id, pictures, (Picture(source=str(number)) for number in range(3)), in_flight=1)
    await producer.stream_tasks(job_id, silent, [NewTask(Picture(source="a"), metadata=Owner(owner="a"))])
    assert_type(await producer.wait_for_job(job_id, gallery, on_progress=tell_title), Job[Gallery, Empty])
    async for job in producer.watch_job(job_id, gallery):
        assert_type(job.data.title, str)
    async for task in producer.list_tasks(job_id, pictures, TaskStatus.COMPLETED):
        assert_type(task.result, Size | None)
    async for stage in producer.list_stages(job_id, described):
        assert_type(stage.data.title, str)
    async for other in producer.list_jobs(gallery):
        assert_type(other, Job[Gallery, Empty])
    assert_type(await producer.get_task(job_id, pictures), Task[Picture, Size, Empty])
    assert_type((await producer.get_task(job_id, silent)).result, None)
    assert_type((await producer.get_attempts(job_id))[0].number, int)


async def know_their_types(producer: Producer, job_id: UUID) -> None:
    async with Producer("http://127.0.0.1:8080", timeout=second) as own:
        assert_type(own.with_timeout(second), Producer)
    job = await producer.create_job(both, Gallery(title="a"), metadata=Owner(owner="a"))
    assert_type(await producer.wait_for_job(job, timeout=second), Job[Gallery, Owner])
    assert_type(await producer.get_job(job), Job[Gallery, Owner])
    async for change in producer.watch_job(job):
        assert_type(change, Job[Gallery, Owner])
    stage = await producer.create_stage(job, silent)
    assert_type(stage, Stage[Picture, None, Owner, Empty, Empty])
    new = NewTask(Picture(source="a"), metadata=Owner(owner="a"))
    created = await producer.create_tasks(stage, [new])
    assert_type(created, list[Task[Picture, None, Owner]])
    assert_type(await producer.get_task(created[0]), Task[Picture, None, Owner])
    assert_type(await producer.get_tasks(stage), list[Task[Picture, None, Owner]])
    assert_type(await producer.get_stage(stage), Stage[Picture, None, Owner, Empty, Empty])
    assert_type(await producer.stream_tasks(stage, [new], batch=5, on_progress=tell_rate), int)
    async for task in producer.list_tasks(stage, status=TaskStatus.FAILED):
        assert_type(task, Task[Picture, None, Owner])
    async for listed in producer.list_stages(job, pictures):
        assert_type(await producer.get_tasks(listed), list[Task[Picture, Size, Empty]])
    async for found in producer.list_jobs(both, status=[JobStatus.FAILED], metadata={"owner": "a"}, progress=True):
        assert_type(found, Job[Gallery, Owner])
    await producer.get_job(job_id)  # wrong
    await producer.get_tasks(job_id)  # wrong
    await producer.wait_for_job(job_id)  # wrong
    await producer.get_tasks(job)  # wrong
    await producer.create_tasks(stage, [Picture(source="a"), Size(width=1)])  # wrong
    await producer.create_tasks(stage, pictures, [Size(width=1)])  # wrong
    producer.list_jobs(both, status="FAILED")  # wrong
    producer.list_jobs(both, created_since="2026-01-01")  # wrong
    Producer("http://127.0.0.1:8080", timeout=5)  # wrong


def block(producer: SyncProducer, job_id: UUID) -> None:
    with SyncProducer("http://127.0.0.1:8080", timeout=second) as own:
        assert_type(own.with_timeout(second), SyncProducer)
    job = producer.create_job(gallery, Gallery(title="a"), stages=[NewStage(pictures, [Picture(source="a")])])
    assert_type(job, CreatedJob[Gallery, Empty])
    assert_type(producer.create_job(plain), CreatedJob[Empty, Empty])
    assert_type(producer.create_job(owned, metadata=Owner(owner="a")), CreatedJob[Empty, Owner])
    assert_type(producer.wait_for_job(job, timeout=second, on_progress=tell_title), Job[Gallery, Empty])
    assert_type(producer.wait_for_job(job_id, gallery), Job[Gallery, Empty])
    for change in producer.watch_job(job):
        assert_type(change, Job[Gallery, Empty])
    stage = producer.create_stage(job_id, described, Gallery(title="a"), metadata=Owner(owner="a"))
    assert_type(stage, Stage[Picture, None, Empty, Gallery, Owner])
    assert_type(producer.create_tasks(job_id, pictures, [Picture(source="a")]), list[Task[Picture, Size, Empty]])
    assert_type(producer.create_tasks(stage, [Picture(source="a")]), list[Task[Picture, None, Empty]])
    assert_type(producer.stream_tasks(stage, (Picture(source="a") for _ in "ab"), on_progress=tell_rate), int)
    for task in producer.list_tasks(job_id, pictures, TaskStatus.COMPLETED):
        assert_type(task.result, Size | None)
    for listed in producer.list_stages(job, pictures):
        assert_type(producer.get_tasks(listed), list[Task[Picture, Size, Empty]])
    for found in producer.list_jobs(gallery, oldest_first=True):
        assert_type(found, Job[Gallery, Empty])
    assert_type(producer.get_attempts(job_id)[0].number, int)
    assert_type(producer.get_summary(stage).total, int)
    producer.create_job(gallery)  # wrong
    producer.create_job(gallery, Picture(source="a"))  # wrong
    producer.create_job(plain, priority="HIGH")  # wrong
    producer.create_stage(job_id, described, Gallery(title="a"))  # wrong
    producer.create_tasks(stage, [Size(width=1)])  # wrong
    producer.stream_tasks(stage, sources())  # wrong
    producer.get_job(job_id)  # wrong
    producer.wait_for_job(job, timeout=5)  # wrong
    producer.wait_for_job(job_id, plain, on_progress=tell_title)  # wrong


async def make(task: Picture, context: TaskContext) -> Size:
    return Size(width=context.attempt)


def make_plainly(task: Picture, context: TaskContext) -> Size:
    return Size(width=len(task.source))


async def tell(task: Picture, context: TaskContext[Owner]) -> None:
    print(context.metadata.owner)


async def take_other(task: Size, context: TaskContext) -> Size:
    return task


async def return_other(task: Picture, context: TaskContext) -> Picture:
    return task


async def return_nothing(task: Picture, context: TaskContext) -> None:
    pass


async def take_one(task: Picture) -> Size:
    return Size(width=1)


async def see_all(task: Picture, context: TaskContext[Empty, Gallery, Owner]) -> None:
    assert_type(context.stage.data.title, str)
    assert_type(context.stage.metadata.owner, str)


async def see_other(task: Picture, context: TaskContext[Empty, Owner]) -> None:
    pass


async def see_nothing(task: Picture, context: TaskContext) -> None:
    assert_type(context.metadata, Empty)
    context.save_checkpoint({"row": [1, None]})
    context.progress(0.5, "half", timedelta(seconds=1))
    with context.phase("rest", 2, of=3) as phase:
        phase.progress(0.5)
    context.save_checkpoint(task)  # wrong
    context.progress("half")  # wrong
    context.attempt = 2  # wrong


class Pool:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


@contextmanager
def open_model() -> Generator[bytes]:
    yield b""


async def with_pool(task: Picture, context: TaskContext, pool: Pool) -> Size:
    return Size(width=1)


def with_model(task: Picture, context: TaskContext, model: bytes) -> Size:
    return Size(width=len(model))


def with_text(task: Picture, context: TaskContext, model: str) -> Size:
    return Size(width=len(model))


def lifespans(worker: Worker) -> None:
    assert_type(Handler(pictures, with_pool, lifespan=Pool), Handler[Picture, Size, Empty, Empty, Empty])
    Handler(pictures, with_model, style=HandlerStyle.THREAD, lifespan=open_model)
    Handler(pictures, with_model, style=HandlerStyle.PROCESS, lifespan=open_model, concurrency=2, recycle_after=100)
    Handler(pictures, with_text, style=HandlerStyle.THREAD, lifespan=open_model)  # wrong
    Handler(pictures, with_pool, lifespan=open_model)  # wrong
    Handler(pictures, with_pool)  # wrong
    Handler(pictures, make, lifespan=Pool)  # wrong
    assert_type(worker.handler(pictures, concurrency=4)(make)(Picture(source=""), context_of()), Awaitable[Size])
    worker.handler(pictures, style=HandlerStyle.PROCESS, recycle_after=100)(make_plainly)
    worker.handler(pictures, style=HandlerStyle.THREAD, lifespan=open_model)(with_model)
    worker.handler(pictures, lifespan=Pool)(with_pool)
    worker.handler(pictures, style=HandlerStyle.THREAD)(make)  # wrong
    worker.handler(pictures)(take_other)  # wrong
    worker.handler(pictures)(return_nothing)  # wrong
    worker.handler(pictures, lifespan=Pool)(make)  # wrong
    worker.handler(pictures, recycle_after=100)(make)  # wrong
    Worker.from_settings(WorkerSettings(), [Handler(pictures, make)], lease=second)
    Worker.from_settings([Handler(pictures, make)])  # wrong


def context_of() -> TaskContext:
    raise NotImplementedError


def handlers() -> list[AnyHandler]:
    assert_type(Handler(pictures, make), Handler[Picture, Size, Empty, Empty, Empty])
    Handler(pictures, make, style=HandlerStyle.ASYNC, concurrency=4, timeout=second)
    Handler(pictures, make_plainly, style=HandlerStyle.THREAD, timeout=second)
    Handler(pictures, make_plainly, style=HandlerStyle.PROCESS, recycle_after=100, memory_limit=10**9)
    Handler(pictures, make_plainly)  # wrong
    Handler(pictures, make, style=HandlerStyle.THREAD)  # wrong
    Handler(pictures, make, style=HandlerStyle.PROCESS)  # wrong
    Handler(pictures, make, style="async")  # wrong
    Handler(pictures, make, timeout=5)  # wrong
    Handler(pictures, make, recycle_after=100)  # wrong
    Handler(pictures, make_plainly, style=HandlerStyle.THREAD, memory_limit=10**9)  # wrong
    Handler(pictures, take_other)  # wrong
    Handler(pictures, return_other)  # wrong
    Handler(pictures, return_nothing)  # wrong
    Handler(pictures, take_one)  # wrong
    Handler(silent, return_nothing)  # wrong
    Handler(described, see_all)
    Handler(described, see_nothing)
    Handler(described, see_other)  # wrong
    Handler(pictures, make).concurrency = 2  # wrong
    return [Handler(pictures, make), Handler(silent, tell), Handler(described, see_all)]


class Parts:
    def settings(self) -> WorkerSettings:
        return WorkerSettings()

    def worker(self) -> Worker:
        client = JobnikClient(self.settings().jobnik_base_url)
        return Worker(client, [Handler(pictures, make), Handler(silent, tell)])


def workers(client: JobnikClient) -> None:
    assert_type(run(Parts()), int)
    run(Worker(client, [Handler(pictures, make)]))  # wrong
    Worker(client, Handler(pictures, make))  # wrong
    Worker(client, [make])  # wrong
    Worker(client, [Handler(pictures, return_other)])  # wrong
    Worker(client, pictures, make)  # wrong


async def wrong(producer: Producer, consumer: Consumer, task: Task[Picture, Size], job_id: UUID) -> None:
    await producer.create_job(gallery)  # wrong
    await producer.create_job(gallery, Picture(source="a"))  # wrong
    await producer.create_job(gallery, {"title": "a"})  # wrong
    await producer.create_job(owned)  # wrong
    await producer.create_job(plain, priority="HIGH")  # wrong
    await producer.create_stage(job_id, described, Gallery(title="a"))  # wrong
    await producer.create_tasks(job_id, pictures, [Size(width=1)])  # wrong
    await producer.create_tasks(job_id, pictures, [NewTask(Size(width=1))])  # wrong
    await producer.create_tasks(job_id, pictures, [{"source": "a"}])  # wrong
    await producer.create_tasks(job_id, pictures, Picture(source="a"))  # wrong
    await producer.create_tasks(job_id, silent, [NewTask(Picture(source="a"), metadata=Size(width=1))])  # wrong
    await producer.create_tasks(job_id, silent, [NewTask(Picture(source="a"))])  # wrong
    await consumer.complete(task)  # wrong
    print((await producer.get_job(job_id, gallery)).data.name)  # wrong
    StageType("dicts", task=dict)  # wrong
    await producer.create_job(both, Gallery(title="a"))  # wrong
    await producer.create_job(both, metadata=Owner(owner="a"))  # wrong
    await producer.create_job(plain, stages=[pictures])  # wrong
    await producer.create_job(plain, stages=[NewStage(pictures, [Size(width=1)])])  # wrong
    await producer.create_job(plain, stages=[NewStage(silent, [NewTask(Picture(source="a"))])])  # wrong
    await producer.create_job(plain, unique_for=3)  # wrong
    NewStage(described)  # wrong
    NewStage(described, data=Gallery(title="a"))  # wrong
    NewStage(described, metadata=Owner(owner="a"))  # wrong
    NewStage(pictures, data=Gallery(title="a"))  # wrong
    NewStage(pictures, wait=True)  # wrong
    NewTask(Picture(source="a"), timeout=5)  # wrong
    NewTask(Picture(source="a"), retry=second)  # wrong
    RetryPolicy.fixed(second, factor=2)  # wrong
    TaskDefaults(delay=second)  # wrong
    await producer.stream_tasks(job_id, pictures, [Size(width=1)])  # wrong
    await producer.stream_tasks(job_id, described, ["a"])  # wrong
    await producer.stream_tasks(job_id, pictures, sources)  # wrong
    await producer.stream_tasks(job_id, pictures, sources(), on_progress=tell_title)  # wrong
    await producer.wait_for_job(job_id, plain, on_progress=tell_title)  # wrong
    await producer.wait_for_job(job_id, gallery, timeout=5)  # wrong
    await producer.get_task(job_id, gallery)  # wrong
    producer.list_tasks(job_id, pictures, "COMPLETED")  # wrong
    print((await producer.get_task(job_id, pictures)).result.width)  # wrong
"""


def _pyright(folder: Path) -> dict[int, str]:
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "pythonVersion": "3.11"}')
    command = [Path(sys.executable).parent / "pyright", "--outputjson", "--pythonpath", sys.executable]
    report: dict[str, Any] = json.loads(_output([*command, "--project", folder]))
    return {fault["range"]["start"]["line"]: fault["message"] for fault in report["generalDiagnostics"]}


def _mypy(folder: Path) -> dict[int, str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--output=json", "--cache-dir", _MYPY_CACHE]
    faults = map(json.loads, _output([*command, folder / "code.py"]).splitlines())
    return {fault["line"] - 1: fault["message"] for fault in faults if fault["severity"] == "error"}


def _output(command: list[str | Path]) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout  # noqa: S603 our own tools


@pytest.mark.timeout(120)  # a type checker is a program of its own, and reads all that the SDK stands on
@pytest.mark.parametrize("checker", [_pyright, _mypy])
def test_wrong_code_does_not_type_check(checker: Callable[[Path], dict[int, str]], tmp_path: Path) -> None:
    """Under pyright strict and mypy strict each line marked wrong has an error, and no other line has one."""
    (tmp_path / "code.py").write_text(_CODE)
    lines = _CODE.splitlines()
    wrong = {line for line in lines if line.endswith("# wrong")}
    blamed = {lines[number]: message for number, message in checker(tmp_path).items()}
    assert {line: blamed[line] for line in blamed.keys() - wrong} == {}
    assert wrong - blamed.keys() == set()
