"""Handlers that make trouble, in a real worker at the real manager: each hurts only itself."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from jobnik_sdk import HandlerStyle, JobnikClient, JobType, Producer

from tests.integration.sdk.handler_troubles import stage_type

_ROOT = Path(__file__).parents[3]
_FINAL = {"COMPLETED", "FAILED", "ABORTED"}


class Site:
    """A worker process with a handler of each style, and the manager that it works for."""

    def __init__(self, client: JobnikClient, name: str, log: Path) -> None:
        self.client = client
        self._producer = Producer(client)
        self._name = name
        self._log = log

    def start(self) -> subprocess.Popen[bytes]:
        """Start the worker."""
        program = [sys.executable, "-m", "tests.integration.sdk.handler_troubles", self.client.base_url, self._name]
        with self._log.open("wb") as log:
            return subprocess.Popen(program, cwd=_ROOT, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": "."})  # noqa: S603 our own program

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of an event."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    async def written(self, event: str) -> list[dict[str, Any]]:
        """The log lines of an event, as soon as there are some."""
        async with asyncio.timeout(15):
            while not (lines := self.logged(event)):  # noqa: ASYNC110 another process writes them
                await asyncio.sleep(0.05)
        return lines

    async def create(self, style: HandlerStyle, *tasks: dict[str, Any]) -> str:
        """Create tasks in a stage of their own, each with one attempt if it does not say more; the stage's id."""
        kind = stage_type(self._name, style)
        stage = await self._producer.create_stage(await self._producer.create_job(JobType("troubles")), kind)
        body: list[dict[str, Any]] = [{"userMetadata": {}, "maxAttempts": 1} | task for task in tasks]
        await self.client.request("POST", f"/v1/stages/{stage.id}/tasks", json=body)
        return str(stage.id)

    async def create_siblings(self) -> Sequence[str]:
        """Create tasks without trouble for each handler, more of them than have room at the same time."""
        return [await self.create(style, *({"data": {"do": "work"}} for _ in range(4))) for style in HandlerStyle]

    async def ended(self, stage: str) -> list[Any]:
        """Wait for the end of all tasks of a stage, and return them."""
        return await self.reached(stage, *_FINAL)

    async def reached(self, stage: str, *statuses: str) -> list[Any]:
        """Wait until all tasks of a stage have one of these statuses, and return them."""
        async with asyncio.timeout(18):
            while True:
                tasks: list[Any] = (await self.client.request("GET", f"/v1/stages/{stage}/tasks")).json()
                if all(task["status"] in statuses for task in tasks):
                    return tasks
                await asyncio.sleep(0.05)

    async def attempts(self, task: dict[str, Any]) -> list[Any]:
        """The attempts at a task."""
        return (await self.client.request("GET", f"/v1/tasks/{task['id']}/attempts")).json()


@pytest.fixture(scope="module")
async def shared_site(manager_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A site for tests whose troubles leave the worker as it was."""
    async with JobnikClient(manager_url) as client:
        site = Site(client, f"sdk-{uuid4()}", tmp_path_factory.mktemp("shared") / "log")
        worker = site.start()
        yield site
        worker.kill()
        worker.wait()


@pytest.fixture
def site(client: JobnikClient, own_name: str, tmp_path: Path) -> Iterator[Site]:
    """A site whose worker has started."""
    site = Site(client, own_name, tmp_path / "log")
    worker = site.start()
    yield site
    worker.kill()
    worker.wait()


async def _hurts_only_itself(site: Site, style: HandlerStyle, do: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401 JSON
    """Let a task make trouble beside others, which complete at their first attempt; return what became of it."""
    troubled = await site.create(style, {"data": {"do": do}, **options})
    siblings = await site.create_siblings()
    (task,) = await site.ended(troubled)
    for stage in siblings:
        for sibling in await site.ended(stage):
            assert (sibling["status"], sibling["attempts"]) == ("COMPLETED", 0)
            assert len(await site.attempts(sibling)) == 1
    return task


async def test_blocked_event_loop_loses_no_lease(site: Site) -> None:
    """A handler that blocks the event loop for longer than a lease loses none, and the log says where it stands."""
    beside = await site.create(HandlerStyle.THREAD, {"data": {"do": "block"}})
    await site.reached(beside, "IN_PROGRESS")
    blocking = await site.create(HandlerStyle.ASYNC, {"data": {"do": "block"}})
    for stage in (blocking, beside):
        (task,) = await site.ended(stage)
        assert task["status"] == "COMPLETED"
        assert len(await site.attempts(task)) == 1
    (line, *_) = site.logged("the event loop is blocked: blocking work belongs in a handler of style thread or process")
    assert "in _block" in line["stack"]


async def test_leaking_process_is_replaced(site: Site) -> None:
    """A process that has grown too large ends after its task."""
    task = await _hurts_only_itself(site, HandlerStyle.PROCESS, "leak")
    assert task["status"] == "COMPLETED"
    (line,) = site.logged("handler process replaced")
    assert "bytes of memory" in line["reason"]


async def test_crash_fails_its_task(site: Site) -> None:
    """A process that dies by SIGSEGV fails its task, with how it died."""
    task = await _hurts_only_itself(site, HandlerStyle.PROCESS, "crash")
    assert (task["status"], task["error"]["type"]) == ("FAILED", "ProcessDiedError")
    assert "SIGSEGV" in task["error"]["message"]


@pytest.mark.parametrize("style", HandlerStyle)
async def test_ignored_timeout_fails_its_task(site: Site, style: HandlerStyle) -> None:
    """A handler that ignores its time limit does not keep its task, and the log says where it stands."""
    # A process that still starts when the time is up would be interrupted before its handler can ignore that.
    await site.ended(await site.create(style, {"data": {"do": "work"}}))
    task = await _hurts_only_itself(site, style, "ignore", timeoutSeconds=3)
    assert (task["status"], task["error"]["type"]) == ("FAILED", "TimedOut")
    (line,) = await site.written("handler ignored cancellation, abandoned")
    assert "in _ignore" in line["stack"]


async def test_many_large_checkpoints_lose_no_lease(site: Site) -> None:
    """Checkpoints that are too much for one heartbeat together are brought apart, and leases are kept."""
    stages = [
        await site.create(style, *({"data": {"do": "save_much"}} for _ in range(3)))
        for style in (HandlerStyle.THREAD, HandlerStyle.PROCESS)
    ]
    for stage in stages:
        for task in await site.ended(stage):
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
        ("return_too_much", "PayloadTooLargeError", "The manager does not take the result: "),
        ("return_no_json", "InvalidPayloadError", "result"),
    ],
)
async def test_what_cannot_be_said_fails_its_task(
    shared_site: Site, style: HandlerStyle, do: str, error_type: str, message: str
) -> None:
    """A checkpoint or a result that no manager takes is the error of its task."""
    task = await _hurts_only_itself(shared_site, style, do)
    assert (task["status"], task["error"]["type"]) == ("FAILED", error_type)
    assert task["error"]["message"].startswith(message)
