"""The pace of statements: small batches wait only while other managers claim tasks, and never for long."""

import asyncio

import pytest
from reference_manager.engine.dispatch import pacing
from reference_manager.engine.dispatch.pacing import SMALL, Pacing


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Pacing:
    """The pacing of a manager that claimed a tenth of the tasks."""
    monkeypatch.setattr(pacing, "WINDOW", 0)
    monkeypatch.setattr(pacing, "LONGEST_WAIT", 60)
    shared = Pacing()
    shared.count(100, 10)
    shared.count(200, 10)
    return shared


@pytest.mark.parametrize("newest", [110, 115])
async def test_a_manager_alone_sends_statements_at_the_same_time(monkeypatch: pytest.MonkeyPatch, newest: int) -> None:
    """A few leases that are not its own are those of claims under way."""
    monkeypatch.setattr(pacing, "WINDOW", 0)
    alone = Pacing()
    alone.count(100, 3)
    alone.count(newest, 10)
    await alone.begin(lambda: 1)
    await alone.begin(lambda: 1)


async def test_a_small_batch_waits_for_the_statement_under_way(shared: Pacing) -> None:
    """It starts when the other statement ends; of several batches that wait, only one starts."""
    await shared.begin(lambda: 1)
    waiting = [asyncio.create_task(shared.begin(lambda: 1)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    shared.end(0)
    await waiting[0]
    assert not waiting[1].done()
    shared.end(0)
    await waiting[1]


async def test_a_large_batch_does_not_wait(shared: Pacing) -> None:
    """It would not become much cheaper."""
    await shared.begin(lambda: 1)
    await shared.begin(lambda: SMALL)


async def test_a_batch_that_grows_starts_with_the_next_statement_that_ends(shared: Pacing) -> None:
    """Although another statement still runs."""
    size = 1
    await shared.begin(lambda: 1)
    await shared.begin(lambda: SMALL)
    grows = asyncio.create_task(shared.begin(lambda: size))
    await asyncio.sleep(0)
    size = SMALL
    shared.end(0)
    await grows


async def test_a_statement_that_hangs_delays_others_for_a_short_time(
    monkeypatch: pytest.MonkeyPatch, shared: Pacing
) -> None:
    """Such as one whose connection is silent."""
    monkeypatch.setattr(pacing, "LONGEST_WAIT", 0.001)
    await shared.begin(lambda: 1)
    await shared.begin(lambda: 1)


async def test_a_small_batch_waits_for_the_clients_that_were_just_answered(
    monkeypatch: pytest.MonkeyPatch, shared: Pacing
) -> None:
    """It starts with the last request that is expected, and the next batch has nothing to wait for."""
    monkeypatch.setattr(pacing, "RETURN_TIME", 60)
    await shared.begin(lambda: 1)
    shared.end(3)
    shared.arrive()
    waiting = asyncio.create_task(shared.begin(lambda: 1))
    await asyncio.sleep(0)
    shared.arrive()
    await asyncio.sleep(0)
    assert not waiting.done()
    shared.arrive()
    await waiting
    shared.arrive()
    shared.end(0)
    await shared.begin(lambda: 1)


async def test_a_client_that_does_not_return_is_not_expected_for_long(
    monkeypatch: pytest.MonkeyPatch, shared: Pacing
) -> None:
    """It may be busy with its task. Later, only the clients that were answered since are expected."""
    monkeypatch.setattr(pacing, "RETURN_TIME", 0.001)
    await shared.begin(lambda: 1)
    shared.end(1)
    await shared.begin(lambda: 1)
    shared.end(1)
    monkeypatch.setattr(pacing, "RETURN_TIME", 60)
    shared.arrive()
    await shared.begin(lambda: 1)


async def test_a_manager_that_is_alone_again_stops_waiting(shared: Pacing) -> None:
    """The next count shows it."""
    await shared.begin(lambda: 1)
    shared.count(210, 10)
    await shared.begin(lambda: 1)
