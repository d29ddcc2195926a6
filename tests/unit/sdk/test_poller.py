"""Whether a poller counts as polling, which the liveness probe checks."""

import asyncio
from datetime import timedelta

import pytest
from jobnik_sdk import Empty, Handler, StageType, TaskContext
from jobnik_sdk.execution.access import WorkerAccess
from jobnik_sdk.worker import poller as poller_module
from jobnik_sdk.worker.part_a_source import PartATaskSource
from jobnik_sdk.worker.poller import Poller, PollerDependencies

from tests.unit.sdk.script import ScriptedManager


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Return the current time in seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the poller."""
    clock = Clock()
    monkeypatch.setattr(poller_module, "time", clock)
    return clock


def _poller_that_may_not_claim(manager: ScriptedManager) -> Poller:
    async def do_nothing(_task: Empty, _context: TaskContext) -> None:
        pass

    handler = Handler(StageType("pictures", task=Empty), do_nothing)
    dependencies = PollerDependencies(
        source=PartATaskSource(manager.client),
        poll_delays=(timedelta(seconds=1), timedelta(seconds=1)),
        may_claim=lambda: False,
        on_contact=lambda: None,
        middleware=(),
        emit=None,
        access=WorkerAccess(manager.client),
    )
    return Poller(handler, dependencies)


async def test_a_poller_without_claims_is_not_polling(manager: ScriptedManager, clock: Clock) -> None:
    """A poller is stuck if its last claim is longer ago than its longest delay plus a minute."""
    poller = _poller_that_may_not_claim(manager)
    assert poller.polling
    clock.now += 62
    assert not poller.polling


async def test_a_poller_that_may_not_claim_is_polling(manager: ScriptedManager, clock: Clock) -> None:
    """A worker that claims nothing because its manager is away must not be restarted."""
    poller = _poller_that_may_not_claim(manager)
    clock.now += 62
    running = asyncio.create_task(poller.run())
    async with asyncio.timeout(1):
        while not poller.polling:  # noqa: ASYNC110 another thread reads it, so there is no signal to wait for
            await asyncio.sleep(0)
    poller.stop()
    await running
