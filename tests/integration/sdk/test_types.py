"""What a type checker says about code that uses the SDK."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from typing_extensions import assert_type

from jobnik_sdk import (
    ClaimedTask, Consumer, Empty, Handler, HandlerStyle, Job, JobnikClient, JobType, NewTask, Priority, Producer, Stage,
    StageType, Task, TaskContext, Worker, run,
)
from jobnik_sdk.settings import WorkerSettings


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
pictures = StageType("pictures", task=Picture, result=Size)
silent = StageType("silent", task=Picture, task_metadata=Owner)
described = StageType("described", task=Picture, data=Gallery, metadata=Owner)


async def right(producer: Producer, consumer: Consumer, job_id: UUID) -> None:
    assert_type(await producer.create_job(gallery, Gallery(title="a"), priority=Priority.LOW), Job[Gallery, Empty])
    job = await producer.create_job(plain)
    assert_type(job, Job[Empty, Empty])
    assert_type((await producer.create_job(owned, metadata=Owner(owner="a"))).metadata.owner, str)
    assert_type(await producer.create_stage(job, pictures), Stage[Empty, Empty])
    await producer.create_stage(job_id, described, Gallery(title="a"), metadata=Owner(owner="a"))
    assert_type(await producer.create_tasks(job_id, pictures, [Picture(source="a")]), list[Task[Picture, Empty]])
    await producer.create_tasks(job_id, pictures, [Picture(source="a"), NewTask(Picture(source="a"), max_attempts=1)])
    await producer.create_tasks(job_id, silent, [NewTask(Picture(source="a"), metadata=Owner(owner="a"))])
    new = NewTask(Picture(source="a"))
    await producer.create_tasks(job_id, pictures, [new])
    task = await consumer.claim(silent)
    assert_type(task, ClaimedTask[Picture, Owner] | None)
    if task is not None:
        assert_type(task.data.source, str)
        await consumer.complete(task)


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


second = timedelta(seconds=1)


def handlers() -> list[Handler[Any, Any, Any, Any, Any]]:
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
    Worker(client, pictures, make)  # wrong


async def wrong(producer: Producer, consumer: Consumer, task: Task[Picture, Empty], job_id: UUID) -> None:
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
"""


@pytest.mark.timeout(60)  # pyright is a program of its own, and is started by node
def test_wrong_code_does_not_type_check(tmp_path: Path) -> None:
    """Under pyright strict each line marked wrong has an error, and no other line has one."""
    (tmp_path / "code.py").write_text(_CODE)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "pythonVersion": "3.11"}')
    pyright = shutil.which("pyright", path=Path(sys.executable).parent)
    assert pyright is not None
    command = [pyright, "--outputjson", "--pythonpath", sys.executable, "--project", tmp_path]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout  # noqa: S603 our own tool
    lines = _CODE.splitlines()
    wrong = {line for line in lines if line.endswith("# wrong")}
    blamed: dict[str, str] = {}
    for fault in json.loads(said)["generalDiagnostics"]:
        blamed[lines[fault["range"]["start"]["line"]]] = fault["message"]
    assert {line: blamed[line] for line in blamed.keys() - wrong} == {}
    assert wrong - blamed.keys() == set()
