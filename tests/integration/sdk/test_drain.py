"""Drains of worker processes with many tasks in progress."""

import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from tests.integration.sdk.resilience_site import Site, WorkerProcess, eventually
from tests.support.processes import is_running
from tests.support.sdk_worker import Event
from tools.proxy import Cut, Proxy

SLOTS = {"async": 25, "thread": 20, "process": 5}
"""Slots of each style; few processes, because each imports the whole program."""
FINISHING = {"async": 10, "thread": 8, "process": 2}
"""How many of these tasks finish in time."""
DRAIN_SECONDS = 10.0


@pytest.fixture
async def site(tmp_path: Path, own_name: str, manager_url: str) -> AsyncIterator[Site]:
    """Tasks and workers of a test, on the manager that all tests share."""
    site = Site(tmp_path, own_name, manager_url)
    yield site
    await site.close()


async def _busy_worker(site: Site) -> WorkerProcess:
    """Start a worker with fifty tasks in progress."""
    await site.create_tasks("go", **FINISHING)
    await site.create_tasks("never", **{style: slots - FINISHING[style] for style, slots in SLOTS.items()})
    worker = site.worker(SLOTS=json.dumps(SLOTS), WORKER_DRAIN_SECONDS=str(DRAIN_SECONDS), LEASE_SECONDS="6")
    await worker.wait_for_entries(Event.BEGUN, sum(SLOTS.values()), within=40)
    await worker.wait_until_ready()
    return worker


async def _check_drain(site: Site, worker: WorkerProcess) -> None:
    """Check the course and the result of a drain that has been requested."""
    await worker.wait_for_log("worker draining")
    started = time.monotonic()
    await worker.wait_until_ready(ready=False)
    assert not worker.entries(Event.CANCELLED)
    site.go("go")
    assert await worker.wait_for_exit() == 0
    assert time.monotonic() < started + DRAIN_SECONDS
    tasks = await site.tasks()
    assert Counter(task["status"] for task in tasks) == {"COMPLETED": 20, "PENDING": 30}
    assert {task["attempts"] for task in tasks} == {0}
    assert Counter(outcome for outcomes in await site.outcomes() for outcome in outcomes) == {
        "COMPLETED": 20,
        "RELEASED": 30,
    }
    assert {entry["reason"] for entry in worker.entries(Event.CANCELLED)} == {"drain"}
    assert not any(is_running(entry["pid"]) for entry in worker.entries(Event.BEGUN))


def _sigterm(worker: WorkerProcess) -> None:
    worker.send(signal.SIGTERM)


def _drain_at_manager(worker: WorkerProcess) -> None:
    (line,) = (line for line in worker.log if line["event"] == "worker started")
    answer = httpx2.put(f"{line['manager']}/v1/workers/{line['worker']}", json={"drain": True})
    assert answer.is_success, answer.text


@pytest.mark.timeout(180)  # processes start slowly on a busy machine
@pytest.mark.parametrize("request_drain", [_sigterm, _drain_at_manager], ids=["SIGTERM", "manager"])
async def test_a_drain_completes_or_releases_all_tasks(
    site: Site, request_drain: Callable[[WorkerProcess], None]
) -> None:
    """Tasks that end in time complete, the others are released without using up an attempt; no process is left."""
    worker = await _busy_worker(site)
    request_drain(worker)
    await _check_drain(site, worker)


@pytest.mark.timeout(180)
async def test_a_second_signal_ends_the_worker_at_once(site: Site) -> None:
    """No process is left. The tasks return when their leases expire."""
    worker = await _busy_worker(site)
    worker.send(signal.SIGTERM)
    await worker.wait_for_log("worker draining")
    worker.send(signal.SIGTERM)
    assert await worker.wait_for_exit(within=2) == 128 + signal.SIGTERM
    await eventually(
        "no process is left",
        lambda: not any(is_running(entry["pid"]) for entry in worker.entries(Event.BEGUN)),
        within=2,
    )
    assert {task["status"] for task in await site.tasks()} == {"IN_PROGRESS"}


async def test_a_drain_without_a_manager_ends_in_time(site: Site, manager_url: str) -> None:
    """Nothing can be reported or released, so the tasks return when their leases expire."""
    with Proxy(manager_url) as proxy:
        await site.create_tasks("go")
        worker = site.worker(proxy.url, WORKER_DRAIN_SECONDS="4", LEASE_SECONDS="3")
        await worker.wait_for_entries(Event.BEGUN, 3)
        proxy.cut(Cut.SILENT)
        site.go("go")
        await worker.wait_for_entries(Event.ENDED, 3)
        started = time.monotonic()
        worker.send(signal.SIGTERM)
        assert await worker.wait_for_exit() == 0
        assert time.monotonic() < started + 5  # including the exit of the process
    site.worker()
    assert {len(attempts) for attempts in await site.wait_until_completed()} == {2}


async def test_a_worker_that_has_not_reached_its_manager_can_be_stopped(site: Site, manager_url: str) -> None:
    """It stops before the manager has answered."""
    with Proxy(manager_url) as proxy:
        proxy.cut(Cut.SILENT)
        worker = site.worker(proxy.url)
        await worker.wait_for_log("worker started")
        worker.send(signal.SIGTERM)
        assert await worker.wait_for_exit(within=2) == 0
