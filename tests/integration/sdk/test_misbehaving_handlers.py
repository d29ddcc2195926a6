"""Misbehaving handlers, in a worker process with the real manager: each affects only its own task."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from jobnik_sdk import HandlerStyle, JobnikClient, JobType, Producer

from tests.integration.sdk.misbehaving_handlers import stage_type
from tests.support.forked_programs import start_worker
from tools.manager import Process

_FINAL = {"COMPLETED", "FAILED", "ABORTED"}


class Site:
    """A worker process with a handler of each style, and its manager."""

    def __init__(self, client: JobnikClient, name: str, log: Path) -> None:
        self.client = client
        self._producer = Producer(client)
        self._name = name
        self._log = log

    def start(self) -> Process:
        """Start the worker."""
        arguments = (self.client.base_url, self._name)
        with self._log.open("wb") as log:
            return start_worker("tests.integration.sdk.misbehaving_handlers", arguments, os.environ, log.fileno())

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines with this event."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    async def wait_for_log(self, event: str) -> list[dict[str, Any]]:
        """Wait until there are log lines with this event, and return them."""
        async with asyncio.timeout(15):
            while not (lines := self.logged(event)):  # noqa: ASYNC110 another process writes them
                await asyncio.sleep(0.05)
        return lines

    async def create(self, style: HandlerStyle, *tasks: dict[str, Any]) -> str:
        """Create a stage with these tasks, by default with one attempt each, and return its id."""
        kind = stage_type(self._name, style)
        stage = await self._producer.create_stage(await self._producer.create_job(JobType("misbehaving")), kind)
        body: list[dict[str, Any]] = [{"userMetadata": {}, "maxAttempts": 1} | task for task in tasks]
        await self.client.request("POST", f"/v1/stages/{stage.id}/tasks", json=body)
        return str(stage.id)

    async def create_siblings(self) -> Sequence[str]:
        """Create ordinary tasks for each handler, more than it has slots."""
        return [await self.create(style, *({"data": {"do": "work"}} for _ in range(4))) for style in HandlerStyle]

    async def wait_until_ended(self, stage: str) -> list[Any]:
        """Wait until all tasks of a stage have ended, and return them."""
        return await self.wait_for_statuses(stage, *_FINAL)

    async def wait_for_statuses(self, stage: str, *statuses: str) -> list[Any]:
        """Wait until all tasks of a stage have one of these statuses, and return them."""
        async with asyncio.timeout(18):
            while True:
                tasks: list[Any] = (await self.client.request("GET", f"/v1/stages/{stage}/tasks")).json()
                if all(task["status"] in statuses for task in tasks):
                    return tasks
                await asyncio.sleep(0.05)

    async def attempts(self, task: dict[str, Any]) -> list[Any]:
        """Return the attempts at a task."""
        return (await self.client.request("GET", f"/v1/tasks/{task['id']}/attempts")).json()


@pytest.fixture(scope="module")
async def shared_site(manager_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A site for handlers that leave the worker as it was."""
    async with JobnikClient(manager_url) as client:
        site = Site(client, f"sdk-{uuid4()}", tmp_path_factory.mktemp("shared") / "log")
        worker = site.start()
        yield site
        worker.kill()
        worker.wait()


@pytest.fixture
def site(client: JobnikClient, own_name: str, tmp_path: Path) -> Iterator[Site]:
    """A site of its own for each test."""
    site = Site(client, own_name, tmp_path / "log")
    worker = site.start()
    yield site
    worker.kill()
    worker.wait()


async def _run_beside_others(site: Site, style: HandlerStyle, do: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401 JSON
    """Run a misbehaving task, check that others complete at their first attempt, and return the task."""
    misbehaving = await site.create(style, {"data": {"do": do}, **options})
    siblings = await site.create_siblings()
    (task,) = await site.wait_until_ended(misbehaving)
    for stage in siblings:
        for sibling in await site.wait_until_ended(stage):
            assert (sibling["status"], sibling["attempts"]) == ("COMPLETED", 0)
            assert len(await site.attempts(sibling)) == 1
    return task


async def test_a_blocked_event_loop_loses_no_lease(site: Site) -> None:
    """A handler blocks the event loop for longer than a lease; the log line has its stack."""
    beside = await site.create(HandlerStyle.THREAD, {"data": {"do": "block"}})
    await site.wait_for_statuses(beside, "IN_PROGRESS")
    blocking = await site.create(HandlerStyle.ASYNC, {"data": {"do": "block"}})
    for stage in (blocking, beside):
        (task,) = await site.wait_until_ended(stage)
        assert task["status"] == "COMPLETED"
        assert len(await site.attempts(task)) == 1
    (line, *_) = site.logged("event loop blocked")
    assert "in _block" in line["stack"]


async def test_a_process_that_leaks_memory_is_replaced(site: Site) -> None:
    """A process over its memory limit ends after its task."""
    task = await _run_beside_others(site, HandlerStyle.PROCESS, "leak")
    assert task["status"] == "COMPLETED"
    (line,) = site.logged("handler process replaced")
    assert "bytes of memory" in line["reason"]


async def test_a_crash_fails_its_task(site: Site) -> None:
    """The error names the signal."""
    task = await _run_beside_others(site, HandlerStyle.PROCESS, "crash")
    assert (task["status"], task["error"]["type"]) == ("FAILED", "ProcessDiedError")
    assert "SIGSEGV" in task["error"]["message"]


@pytest.mark.parametrize("style", HandlerStyle)
async def test_a_handler_that_ignores_its_timeout_fails_its_task(site: Site, style: HandlerStyle) -> None:
    """The handler is abandoned, and the log line has its stack."""
    # A process that is still starting when the time is up would be interrupted before the handler could ignore it.
    await site.wait_until_ended(await site.create(style, {"data": {"do": "work"}}))
    task = await _run_beside_others(site, style, "ignore", timeoutSeconds=3)
    assert (task["status"], task["error"]["type"]) == ("FAILED", "TimedOut")
    (line,) = await site.wait_for_log("handler ignored cancellation, abandoned")
    assert "in _ignore" in line["stack"]


async def test_many_large_checkpoints_lose_no_lease(site: Site) -> None:
    """Checkpoints that do not fit in one heartbeat are sent with several, and the leases are renewed."""
    stages = [
        await site.create(style, *({"data": {"do": "save_much"}} for _ in range(3)))
        for style in (HandlerStyle.THREAD, HandlerStyle.PROCESS)
    ]
    for stage in stages:
        for task in await site.wait_until_ended(stage):
            assert (task["status"], task["error"]["type"]) == ("FAILED", "ValueError")
            assert len(task["checkpoint"]) == 200_000
            (attempt,) = await site.attempts(task)
            assert attempt["outcome"] == "FAILED"
    assert not site.logged("heartbeat failed")


@pytest.mark.parametrize("style", HandlerStyle)
@pytest.mark.parametrize(
    ("do", "error_type", "message"),
    [
        ("save_too_much", "InvalidPayloadError", "checkpoint: "),
        ("return_too_much", "PayloadTooLargeError", "The manager does not accept the result: "),
        ("return_no_json", "InvalidPayloadError", "result"),
    ],
)
async def test_an_invalid_result_or_checkpoint_fails_its_task(
    shared_site: Site, style: HandlerStyle, do: str, error_type: str, message: str
) -> None:
    """The attempt fails with the reason why the manager cannot accept it."""
    task = await _run_beside_others(shared_site, style, do)
    assert (task["status"], task["error"]["type"]) == ("FAILED", error_type)
    assert task["error"]["message"].startswith(message)
