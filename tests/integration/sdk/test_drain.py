"""Worker processes that are to stop, with their hands full."""

import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from tests.integration.sdk.resilience_site import Site, WorkerProcess, eventually, is_alive
from tests.support.sdk_worker import Event
from tools.proxy import Cut, Proxy

SLOTS = {"async": 25, "thread": 20, "process": 5}
"""Few processes, since each is a program that imports everything."""
ENDING = {"async": 10, "thread": 8, "process": 2}
"""Of these so many end in time."""
LIMIT = 10.0
"""Seconds for the whole drain."""


@pytest.fixture
async def site(tmp_path: Path, own_name: str, manager_url: str) -> AsyncIterator[Site]:
    """Tasks and workers on the manager that all tests share."""
    site = Site(tmp_path, own_name, manager_url)
    yield site
    await site.close()


async def _full(site: Site) -> WorkerProcess:
    """A worker that works on fifty tasks."""
    await site.fill("go", **ENDING)
    await site.fill("never", **{style: slots - ENDING[style] for style, slots in SLOTS.items()})
    worker = site.worker(SLOTS=json.dumps(SLOTS), WORKER_DRAIN_SECONDS=str(LIMIT), LEASE_SECONDS="6")
    await worker.noted(Event.BEGUN, sum(SLOTS.values()), within=40)
    await worker.is_ready()
    return worker


async def _handed_back(site: Site, worker: WorkerProcess) -> None:
    """Check what a drain that begins now leaves."""
    await worker.said("worker drains")
    started = time.monotonic()
    await worker.is_ready(ready=False)
    assert not worker.of(Event.CANCELLED)
    site.go("go")
    assert await worker.end() == 0
    assert time.monotonic() < started + LIMIT
    tasks = await site.tasks()
    assert Counter(task["status"] for task in tasks) == {"COMPLETED": 20, "PENDING": 30}
    assert {task["attempts"] for task in tasks} == {0}
    assert Counter(outcome for outcomes in await site.outcomes() for outcome in outcomes) == {
        "COMPLETED": 20,
        "RELEASED": 30,
    }
    assert {entry["reason"] for entry in worker.of(Event.CANCELLED)} == {"drain"}
    assert not any(is_alive(entry["pid"]) for entry in worker.of(Event.BEGUN))


def _sigterm(worker: WorkerProcess) -> None:
    worker.send(signal.SIGTERM)


def _order(worker: WorkerProcess) -> None:
    (line,) = (line for line in worker.log if line["event"] == "worker started")
    answer = httpx2.put(f"{line['manager']}/v1/workers/{line['worker']}", json={"drain": True})
    assert answer.is_success, answer.text


@pytest.mark.timeout(60)  # handlers' processes take their time to start where others are at work
@pytest.mark.parametrize("ask", [_sigterm, _order], ids=["SIGTERM", "the manager's order"])
async def test_a_drain_completes_or_hands_back_fifty_tasks(site: Site, ask: Callable[[WorkerProcess], None]) -> None:
    """What ends in time is completed, what does not goes back with no attempt burnt; nothing is left of the worker."""
    worker = await _full(site)
    ask(worker)
    await _handed_back(site, worker)


@pytest.mark.timeout(60)
async def test_a_second_signal_ends_at_once(site: Site) -> None:
    """However much is in hand; nothing is left of the worker, and its tasks come back by their leases."""
    worker = await _full(site)
    worker.send(signal.SIGTERM)
    await worker.said("worker drains")
    worker.send(signal.SIGTERM)
    assert await worker.end(within=2) == 128 + signal.SIGTERM
    await eventually(
        "no process is left", lambda: not any(is_alive(entry["pid"]) for entry in worker.of(Event.BEGUN)), within=2
    )
    assert {task["status"] for task in await site.tasks()} == {"IN_PROGRESS"}


async def test_a_drain_without_a_manager_has_an_end(site: Site, manager_url: str) -> None:
    """Nothing can be reported or handed back: the leases bring it back."""
    with Proxy(manager_url) as proxy:
        await site.fill("go")
        worker = site.worker(proxy.url, WORKER_DRAIN_SECONDS="4", LEASE_SECONDS="3")
        await worker.noted(Event.BEGUN, 3)
        proxy.cut(Cut.SILENT)
        site.go("go")
        await worker.noted(Event.ENDED, 3)
        started = time.monotonic()
        worker.send(signal.SIGTERM)
        assert await worker.end() == 0
        assert time.monotonic() < started + 5  # with the end of the process
    site.worker()
    assert {len(attempts) for attempts in await site.completed()} == {2}


async def test_a_worker_that_waits_for_its_manager_can_be_stopped(site: Site, manager_url: str) -> None:
    """It need not have had an answer yet."""
    with Proxy(manager_url) as proxy:
        proxy.cut(Cut.SILENT)
        worker = site.worker(proxy.url)
        await worker.said("worker started")
        worker.send(signal.SIGTERM)
        assert await worker.end(within=2) == 0
