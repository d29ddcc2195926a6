"""Background tasks of the manager are restarted when they end, and watched for progress."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from reference_manager.api.service.routes import service_router
from reference_manager.engine import supervision
from reference_manager.engine.supervision import BackgroundTask, stalled


@pytest.fixture(autouse=True)
def short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restart tasks at once."""
    monkeypatch.setattr(supervision, "FIRST_DELAY", timedelta())


async def test_a_task_that_fails_or_ends_is_restarted() -> None:
    """An error or a return does not end the task permanently, and does not affect other tasks."""
    runs = asyncio.Queue[int]()
    count = 0

    async def run(_progress: Callable[[], None]) -> None:
        nonlocal count
        count += 1
        runs.put_nowait(count)
        if count == 1:
            raise ZeroDivisionError
        if count > 2:
            await asyncio.Event().wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        supervised = group.create_task(BackgroundTask("counting", run).supervise())
        assert [await runs.get() for _ in range(3)] == [1, 2, 3]
        supervised.cancel()


async def test_a_task_without_progress_is_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is stalled if it has not made progress for a long time, and no longer once it makes progress."""
    now = 1000.0
    monkeypatch.setattr(supervision, "monotonic", lambda: now)
    proceed, waiting = asyncio.Event(), asyncio.Event()

    async def run(progress: Callable[[], None]) -> None:
        while True:
            waiting.set()
            await proceed.wait()
            proceed.clear()
            progress()

    task = BackgroundTask("waiting", run)
    running = asyncio.create_task(task.supervise())
    await waiting.wait()
    assert stalled([task]) == []
    now += supervision.STALLED_AFTER.total_seconds() + 1
    assert stalled([task]) == ["waiting"]
    waiting.clear()
    proceed.set()
    await waiting.wait()
    assert stalled([task]) == []
    running.cancel()


async def test_liveness_names_the_stalled_tasks() -> None:
    """The response is 503 with a reason, so that the manager is restarted."""
    engine: Any = SimpleNamespace(stalled_tasks=lambda: ["lease sweeper", "delayed tasks"])
    app = FastAPI()
    app.state.part_a_only = False
    app.include_router(service_router(engine, metrics_open=False))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://manager") as client:
        response = await client.get("/liveness")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json() == {
        "code": "BACKGROUND_TASK_STALLED",
        "message": "No progress for a long time: lease sweeper, delayed tasks. Restart the manager.",
    }
