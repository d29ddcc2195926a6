"""Producers and workers of a manager that requires tokens: each works with its own scope."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jobnik_sdk import (
    Empty,
    ForbiddenError,
    Handler,
    HandlerStyle,
    JobnikClient,
    JobType,
    NewStage,
    NewTask,
    Producer,
    StageType,
    SyncProducer,
    TaskContext,
    UnauthorizedError,
    Worker,
)
from jobnik_sdk.http.retries import backoff
from jobnik_sdk.observability import logging as sdk_logging
from jobnik_sdk.worker import poller, refusals
from structlog.testing import capture_logs

from tests.support.access import run_token_command
from tools.manager import ManagerProcess

FIRST = StageType("first", task=Empty)
SECOND = StageType("second", task=Empty)
JOB = JobType("a job")


async def secret_of(database_url: str, scope: str, *arguments: str) -> str:
    """Create a token with the name of its scope."""
    return (await run_token_command(database_url, "create", "--name", scope, "--scope", scope, *arguments))["token"]


async def add_second(_task: Empty, context: TaskContext[Any]) -> None:
    """Add a task to the next stage, and change metadata, as handlers may."""
    await context.add_tasks(SECOND, [NewTask(Empty())])
    await context.set_task_metadata(Empty())


def work_second(_task: Empty, context: TaskContext[Any]) -> None:
    """Use the connection of a handler's process, which has the token too."""
    context.wait(context.set_task_metadata(Empty()))


async def test_each_program_works_with_its_own_scope(
    database_url: str, start_manager: Callable[..., ManagerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer creates and watches a job, a worker completes it, a viewer reads it; none may do more."""
    secrets = {scope: await secret_of(database_url, scope) for scope in ("producer", "worker", "viewer")}
    url = start_manager().url
    async with (
        Producer(url, token=secrets["producer"]) as producer,
        JobnikClient(url, token=secrets["worker"]) as worker_client,
        Producer(url, token=secrets["viewer"]) as viewer,
    ):
        job = await producer.create_job(JOB, stages=[NewStage(FIRST, [NewTask(Empty())]), NewStage(SECOND)])
        handlers = [Handler(FIRST, add_second), Handler(SECOND, work_second, style=HandlerStyle.PROCESS)]
        worker = Worker(worker_client, handlers)
        running = asyncio.create_task(worker.run())
        await producer.wait_for_job(job, timeout=timedelta(seconds=40))
        worker.stop()
        await running
        assert (await viewer.get_job(job)).status == "COMPLETED"
        with pytest.raises(ForbiddenError, match="needs the scope producer or admin; it has viewer"):
            await viewer.create_job(JOB)
    async with JobnikClient(url, token=secrets["producer"]) as client:
        with pytest.raises(ForbiddenError, match="needs the scope worker or admin; it has producer"):
            await client.request("PATCH", "/v1/stages/first/tasks/dequeue")
    monkeypatch.setenv("JOBNIK_TOKEN", secrets["producer"])

    def create() -> None:
        with SyncProducer(url) as blocking:
            assert blocking.create_job(JOB).status == "PENDING"

    await asyncio.to_thread(create)
    monkeypatch.delenv("JOBNIK_TOKEN")
    async with Producer(url) as stranger:
        with pytest.raises(UnauthorizedError, match="needs a token"):
            await stranger.create_job(JOB)


async def test_a_worker_outlives_the_refusal_of_its_token(
    database_url: str, start_manager: Callable[..., ManagerProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It logs one line that says what to do, and continues once its file has a valid token. No attempt is spent."""
    producer_secret = await secret_of(database_url, "producer")
    revoked = await secret_of(database_url, "worker")
    await run_token_command(database_url, "revoke", "worker")
    url = start_manager().url
    file = tmp_path / "token"
    file.write_text(revoked)
    short = timedelta(seconds=0.1)

    def at_once(_initial: timedelta, _maximum: timedelta) -> Iterator[float]:
        return backoff(short, short)

    monkeypatch.setattr(poller, "backoff", at_once)
    monkeypatch.setattr(
        refusals,
        "_refused",
        sdk_logging.LimitedWarning(sdk_logging.RuntimeLogger(refusals.__name__), "token refused, retrying", 60.0),
    )
    done = asyncio.Event()

    async def finish(_task: Empty, context: TaskContext[Any]) -> None:
        assert context.attempt == 1
        done.set()

    async with Producer(url, token=producer_secret) as producer, JobnikClient(url, token=file) as client:
        job = await producer.create_job(JOB, stages=[NewStage(FIRST, [NewTask(Empty())])])
        worker = Worker(client, [Handler(FIRST, finish)])
        with capture_logs() as logged:
            running = asyncio.create_task(worker.run())
            while not any(line["event"] == "token refused, retrying" for line in logged):  # noqa: ASYNC110 - a log line
                await asyncio.sleep(0.02)
            file.write_text(await secret_of(database_url, "worker"))
            await done.wait()
            await producer.wait_for_job(job, timeout=timedelta(seconds=40))
            worker.stop()
            await running
    warnings = [line for line in logged if line["log_level"] in {"warning", "error"}]
    assert [line["event"] for line in warnings] == ["token refused, retrying"]
    assert "JOBNIK_TOKEN_FILE" in warnings[0]["advice"]
    assert revoked not in f"{logged}"
