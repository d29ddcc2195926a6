"""One handler at work, as its probes see it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from jobnik_sdk import Empty, Handler, StageType, TaskContext
from jobnik_sdk.execution.access import WorkerAccess
from jobnik_sdk.worker import poller as station_module
from jobnik_sdk.worker.part_a_source import PartATaskSource
from jobnik_sdk.worker.poller import Poller, PollerDependencies

from tests.unit.sdk.script import Script


class Clock:
    """What a station goes by."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """The clock's word."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a test moves."""
    clock = Clock()
    monkeypatch.setattr(station_module, "time", clock)
    return clock


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    """The other end of the desk."""
    script = Script()
    yield script
    await script.client.aclose()


def _station(script: Script) -> Poller:
    async def nothing(_task: Empty, _context: TaskContext) -> None:
        pass

    delays = (timedelta(seconds=1), timedelta(seconds=1))
    handler = Handler(StageType("pictures", task=Empty), nothing)
    surroundings = PollerDependencies(
        PartATaskSource(script.client), delays, lambda: False, lambda: None, (), None, WorkerAccess(script.client)
    )
    return Poller(handler, surroundings)


async def test_station_that_stands_still_is_not_polling(script: Script, clock: Clock) -> None:
    """Whose last claim is longer ago than its longest wait, and a minute, does not do its work."""
    station = _station(script)
    assert station.polling
    clock.now += 62
    assert not station.polling


async def test_station_that_may_not_claim_is_polling(script: Script, clock: Clock) -> None:
    """While the manager is away nothing is claimed, and that is no reason to restart a worker."""
    station = _station(script)
    clock.now += 62
    working = asyncio.create_task(station.work())
    async with asyncio.timeout(1):
        while not station.polling:  # noqa: ASYNC110 it is read by another thread, which nothing tells
            await asyncio.sleep(0)
    station.stop()
    await working
