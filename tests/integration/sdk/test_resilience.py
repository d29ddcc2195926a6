"""Worker processes in trouble: nothing is lost, nothing is completed twice, and they recover by themselves."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.sdk.resilience_site import STYLES, Site, eventually, is_alive
from tests.support.sdk_worker import Event
from tools.manager import ManagerProcess
from tools.proxy import Cut, Proxy, RequestFault

ALL = len(STYLES)
LONG = {"LEASE_SECONDS": "30", "PATIENCE_SECONDS": "2"}
"""A lease that outlives the trouble."""
SHORT = {"LEASE_SECONDS": "1.5", "PATIENCE_SECONDS": "2"}
"""A lease that does not."""


@pytest.fixture
async def site(tmp_path: Path, own_name: str, manager_url: str) -> AsyncIterator[Site]:
    """Tasks and workers on the manager that all tests share."""
    site = Site(tmp_path, own_name, manager_url)
    yield site
    await site.close()


@pytest.fixture
def proxy(manager_url: str) -> Iterator[Proxy]:
    """The way to the manager."""
    with Proxy(manager_url) as proxy:
        yield proxy


async def _expired(site: Site) -> None:
    """Wait until the leases of the first attempts at all tasks are over."""

    async def over() -> bool:
        return all(outcomes[:1] == ["EXPIRED"] for outcomes in await site.outcomes())

    await eventually("all leases run out", over)


async def test_a_killed_worker_is_replaced_by_others(site: Site) -> None:
    """Its tasks are done by another once their leases are over; its handlers' processes end with it."""
    await site.fill("go")
    killed = site.worker(**SHORT)
    begun = await killed.noted(Event.BEGUN, ALL)
    killed.kill()
    other = site.worker(**SHORT)
    await other.noted(Event.BEGUN, ALL)
    site.go("go")
    for first, last in await site.completed():
        assert first["outcome"] == "EXPIRED"
        assert first["workerId"] != last["workerId"]
    await eventually("no process is left", lambda: not any(is_alive(entry["pid"]) for entry in begun))


async def test_a_worker_that_stood_still_is_fenced(site: Site) -> None:
    """What it holds is another's when it goes on: its handlers are cancelled, and know why; its reports are refused."""
    await site.fill("go")
    await site.fill("while it stands", process=1)
    still = site.worker(**SHORT, SLOTS='{"async": 1, "thread": 1, "process": 2}')
    await still.noted(Event.BEGUN, ALL + 1)
    still.send(signal.SIGSTOP)
    site.go("while it stands")  # a handler in a process goes on, and ends
    await still.noted(Event.ENDED, 1)
    await _expired(site)
    other = site.worker(**LONG, SLOTS='{"async": 1, "thread": 1, "process": 2}')
    await other.noted(Event.BEGUN, ALL + 1)
    still.send(signal.SIGCONT)
    cancelled = await still.noted(Event.CANCELLED, ALL)
    assert {entry["reason"] for entry in cancelled} == {"lease lost"}
    refused = await still.said("report refused", ALL + 1)
    assert {line["code"] for line in refused} == {"LEASE_LOST"}
    site.go("go")
    holder = {last["workerId"] for _, last in await site.completed()}
    assert len(holder) == 1
    assert len(other.of(Event.ENDED)) == ALL + 1
    await still.is_ready()


@pytest.mark.parametrize("how", Cut)
async def test_reports_wait_for_the_network(site: Site, proxy: Proxy, how: Cut) -> None:
    """While nothing gets through handlers go on; what they did is accepted afterwards, at the first attempt."""
    await site.fill("go")
    worker = site.worker(proxy.url, **LONG)
    await worker.noted(Event.BEGUN, ALL)
    proxy.cut(how)
    site.go("go")
    await worker.noted(Event.ENDED, ALL)
    await worker.said("reports not delivered yet")
    proxy.mend()
    await site.completed()
    assert await site.outcomes() == [["COMPLETED"]] * ALL
    await site.fill("go")
    await site.completed()


@pytest.mark.parametrize("how", Cut)
async def test_a_worker_comes_back_from_a_long_cut(site: Site, proxy: Proxy, how: Cut) -> None:
    """Without heartbeats it claims no more, and its handlers go on; tasks whose leases are lost are done anew."""
    await site.fill("during", **{"async": 1, "thread": 1})
    await site.fill("after", process=1)
    worker = site.worker(proxy.url, **SHORT)
    await worker.noted(Event.BEGUN, ALL)
    proxy.cut(how)
    await worker.is_ready(ready=False)
    await _expired(site)
    assert not worker.of(Event.CANCELLED)
    site.go("during")
    await worker.noted(Event.ENDED, 2)
    assert len(worker.of(Event.BEGUN)) == ALL
    proxy.mend()
    (cancelled,) = await worker.noted(Event.CANCELLED, 1)
    assert cancelled["reason"] == "lease lost"
    refused = await worker.said("report refused", ALL)
    assert {line["code"] for line in refused} == {"LEASE_LOST"}
    site.go("after")
    await site.completed()
    await worker.is_ready()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_worker_outlives_its_manager(
    tmp_path: Path, own_name: str, start_manager: Callable[..., ManagerProcess], number: signal.Signals
) -> None:
    """What ends while there is no manager is told to the next one."""
    manager = start_manager()
    site = Site(tmp_path, own_name, manager.url)
    with Proxy(manager.url) as proxy:
        try:
            await site.fill("go")
            worker = site.worker(proxy.url, **LONG)
            await worker.noted(Event.BEGUN, ALL)
            manager.process.send_signal(number)
            manager.process.wait()
            site.go("go")
            await worker.said("reports not delivered yet")
            site.manager = proxy.target = start_manager().url
            await site.completed()
            assert await site.outcomes() == [["COMPLETED"]] * ALL
            await site.fill("go")
            await site.completed()
        finally:
            await site.close()


@pytest.mark.timeout(60)  # three managers and two workers take their time to start where others are at work
async def test_a_busy_worker_does_not_notice_a_rolling_restart(
    tmp_path: Path, own_name: str, start_manager: Callable[..., ManagerProcess]
) -> None:
    """Of two managers behind one address one after the other is replaced: all is completed at the first attempt."""
    first, second = await asyncio.gather(*(asyncio.to_thread(start_manager) for _ in range(2)))
    site = Site(tmp_path, own_name, first.url)
    with Proxy(first.url) as proxy:
        try:
            slots = '{"async": 4, "thread": 4}'
            busy, idle = site.worker(proxy.url, **LONG, SLOTS=slots), site.worker(proxy.url, **LONG, SLOTS=slots)
            await busy.is_ready()
            await idle.is_ready()
            await site.fill("go", **{"async": 4, "thread": 4})
            await eventually("all begin", lambda: len([*busy.of(Event.BEGUN), *idle.of(Event.BEGUN)]) == 8)
            site.go("now")
            for old in (first, second):
                new = second if old is first else await asyncio.to_thread(start_manager)
                await site.fill("now", **{"async": 40, "thread": 40})
                site.manager = proxy.target = new.url
                assert await asyncio.to_thread(old.stop) == 0
            site.go("go")
            await site.completed()
            assert {*map(tuple, await site.outcomes())} == {("COMPLETED",)}
        finally:
            await site.close()


@pytest.mark.parametrize("path", ["/claim", "/settle", "/heartbeat"])
async def test_an_answer_that_is_lost_does_no_harm(site: Site, proxy: Proxy, path: str) -> None:
    """The manager has acted, and its worker does not know: a claim comes back by its lease, all else is said again."""
    lost = 0

    def choose(request: str) -> RequestFault | None:
        nonlocal lost
        if path not in request or lost == ALL:
            return None
        lost += 1
        return RequestFault.SWALLOWED

    proxy.choose = choose
    await site.fill("go")
    worker = site.worker(proxy.url, **SHORT)
    if path != "/settle":
        await eventually("all of them are lost", lambda: lost == ALL)
    site.go("go")
    attempts = await site.completed()
    assert lost
    if path != "/claim":
        assert [len(of_task) for of_task in attempts] == [1] * ALL
        assert len(worker.of(Event.BEGUN)) == ALL


async def test_a_wall_clock_may_jump(site: Site) -> None:
    """Leases, waits and limits go by a clock that does not: a wall clock that jumps by days changes nothing."""
    await site.fill("go")
    worker = site.worker(**SHORT, CLOCK_JUMPS="true")
    await worker.noted(Event.BEGUN, ALL)
    await asyncio.sleep(2 * float(SHORT["LEASE_SECONDS"]))
    site.go("go")
    await site.completed()
    while {entry["wall"] > time.time() for entry in worker.of(Event.BEGUN)} != {True, False}:
        await site.fill("go")
        await site.completed()
    assert {*map(tuple, await site.outcomes())} == {("COMPLETED",)}
