"""Failures of workers, managers and networks: no task is lost or completed twice, and workers recover."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.sdk.resilience_site import STYLES, Site, eventually
from tests.support.outputs import Output, broken_output
from tests.support.processes import is_running
from tests.support.sdk_worker import Event
from tools.manager import ManagerProcess
from tools.proxy import Cut, Proxy, RequestFault

ALL = len(STYLES)
LONG_LEASE = {"LEASE_SECONDS": "30", "CLIENT_TIMEOUT_SECONDS": "2"}
"""A lease that lasts longer than the failure."""
SHORT_LEASE = {"LEASE_SECONDS": "1.5", "CLIENT_TIMEOUT_SECONDS": "2"}
"""A lease that expires during the failure."""


@pytest.fixture
async def site(tmp_path: Path, own_name: str, manager_url: str) -> AsyncIterator[Site]:
    """Tasks and workers of a test, on the manager that all tests share."""
    site = Site(tmp_path, own_name, manager_url)
    yield site
    await site.close()


@pytest.fixture
def proxy(manager_url: str) -> Iterator[Proxy]:
    """A proxy in front of the manager."""
    with Proxy(manager_url) as proxy:
        yield proxy


async def _wait_until_expired(site: Site) -> None:
    """Wait until the leases of the first attempts at all tasks have expired."""

    async def all_expired() -> bool:
        return all(outcomes[:1] == ["EXPIRED"] for outcomes in await site.outcomes())

    await eventually("all leases have expired", all_expired)


async def test_another_worker_takes_over_from_a_killed_one(site: Site) -> None:
    """The other worker runs the tasks when their leases have expired. The killed worker's processes end with it."""
    await site.create_tasks("go")
    killed = site.worker(**SHORT_LEASE)
    begun = await killed.wait_for_entries(Event.BEGUN, ALL)
    killed.kill()
    other = site.worker(**SHORT_LEASE)
    await other.wait_for_entries(Event.BEGUN, ALL)
    site.go("go")
    for first, last in await site.wait_until_completed():
        assert first["outcome"] == "EXPIRED"
        assert first["workerId"] != last["workerId"]
    await eventually("no process is left", lambda: not any(is_running(entry["pid"]) for entry in begun))


async def test_a_suspended_worker_is_fenced(site: Site) -> None:
    """When it resumes, another worker has its tasks: its handlers are cancelled, and its reports are refused."""
    await site.create_tasks("go")
    await site.create_tasks("while suspended", process=1)
    suspended = site.worker(**SHORT_LEASE, SLOTS='{"async": 1, "thread": 1, "process": 2}')
    await suspended.wait_for_entries(Event.BEGUN, ALL + 1)
    suspended.send(signal.SIGSTOP)
    site.go("while suspended")  # a handler in a process continues, and ends
    await suspended.wait_for_entries(Event.ENDED, 1)
    await _wait_until_expired(site)
    other = site.worker(**LONG_LEASE, SLOTS='{"async": 1, "thread": 1, "process": 2}')
    await other.wait_for_entries(Event.BEGUN, ALL + 1)
    suspended.send(signal.SIGCONT)
    cancelled = await suspended.wait_for_entries(Event.CANCELLED, ALL)
    assert {entry["reason"] for entry in cancelled} == {"lease lost"}
    refused = await suspended.wait_for_log("report refused", ALL + 1)
    assert {line["code"] for line in refused} == {"LEASE_LOST"}
    site.go("go")
    holder = {last["workerId"] for _, last in await site.wait_until_completed()}
    assert len(holder) == 1
    assert len(other.entries(Event.ENDED)) == ALL + 1
    await suspended.wait_until_ready()


@pytest.mark.parametrize("how", Cut)
async def test_reports_wait_for_the_network(site: Site, proxy: Proxy, how: Cut) -> None:
    """Handlers continue while the network is down. Their first attempts are accepted afterwards."""
    await site.create_tasks("go")
    worker = site.worker(proxy.url, **LONG_LEASE)
    await worker.wait_for_entries(Event.BEGUN, ALL)
    proxy.cut(how)
    site.go("go")
    await worker.wait_for_entries(Event.ENDED, ALL)
    await worker.wait_for_log("report not delivered, retrying")
    proxy.mend()
    await site.wait_until_completed()
    assert await site.outcomes() == [["COMPLETED"]] * ALL
    await site.create_tasks("go")
    await site.wait_until_completed()


@pytest.mark.parametrize("how", Cut)
async def test_a_worker_recovers_from_a_long_network_failure(site: Site, proxy: Proxy, how: Cut) -> None:
    """Without heartbeats, it claims no more and its handlers continue; tasks whose leases were lost are run again."""
    await site.create_tasks("during", **{"async": 1, "thread": 1})
    await site.create_tasks("after", process=1)
    worker = site.worker(proxy.url, **SHORT_LEASE)
    await worker.wait_for_entries(Event.BEGUN, ALL)
    proxy.cut(how)
    await worker.wait_until_ready(ready=False)
    await _wait_until_expired(site)
    assert not worker.entries(Event.CANCELLED)
    site.go("during")
    await worker.wait_for_entries(Event.ENDED, 2)
    assert len(worker.entries(Event.BEGUN)) == ALL
    proxy.mend()
    (cancelled,) = await worker.wait_for_entries(Event.CANCELLED, 1)
    assert cancelled["reason"] == "lease lost"
    refused = await worker.wait_for_log("report refused", ALL)
    assert {line["code"] for line in refused} == {"LEASE_LOST"}
    site.go("after")
    await site.wait_until_completed()
    await worker.wait_until_ready()


@pytest.mark.timeout(180)  # if the next manager starts slowly, the worker pauses its claims for a while
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_reports_wait_for_the_next_manager(
    tmp_path: Path, own_name: str, start_manager: Callable[..., ManagerProcess], number: signal.Signals
) -> None:
    """Outcomes while there is no manager are reported to the next one."""
    manager = start_manager()
    site = Site(tmp_path, own_name, manager.url)
    with Proxy(manager.url) as proxy:
        try:
            await site.create_tasks("go")
            worker = site.worker(proxy.url, **LONG_LEASE)
            await worker.wait_for_entries(Event.BEGUN, ALL)
            manager.process.send_signal(number)
            manager.process.wait()
            site.go("go")
            await worker.wait_for_log("report not delivered, retrying")
            site.manager = proxy.target = start_manager().url
            await site.wait_until_completed()
            assert await site.outcomes() == [["COMPLETED"]] * ALL
            await site.create_tasks("go")
            await site.wait_until_completed()
        finally:
            await site.close()


@pytest.mark.timeout(180)  # three managers and two workers start slowly on a busy machine
async def test_a_rolling_restart_costs_no_attempts(
    tmp_path: Path, own_name: str, start_manager: Callable[..., ManagerProcess]
) -> None:
    """Two managers behind one address are replaced one by one, and every task completes at its first attempt."""
    first, second = await asyncio.gather(*(asyncio.to_thread(start_manager) for _ in range(2)))
    site = Site(tmp_path, own_name, first.url)
    with Proxy(first.url) as proxy:
        try:
            slots = '{"async": 4, "thread": 4}'
            busy, idle = (
                site.worker(proxy.url, **LONG_LEASE, SLOTS=slots),
                site.worker(proxy.url, **LONG_LEASE, SLOTS=slots),
            )
            await busy.wait_until_ready()
            await idle.wait_until_ready()
            await site.create_tasks("go", **{"async": 4, "thread": 4})
            await eventually("all begin", lambda: len([*busy.entries(Event.BEGUN), *idle.entries(Event.BEGUN)]) == 8)
            site.go("now")
            for old in (first, second):
                new = second if old is first else await asyncio.to_thread(start_manager)
                await site.create_tasks("now", **{"async": 40, "thread": 40})
                site.manager = proxy.target = new.url
                assert await asyncio.to_thread(old.stop) == 0
            site.go("go")
            await site.wait_until_completed()
            assert {*map(tuple, await site.outcomes())} == {("COMPLETED",)}
        finally:
            await site.close()


@pytest.mark.parametrize("path", ["/claim", "/settle", "/heartbeat"])
async def test_a_lost_response_does_no_harm(site: Site, proxy: Proxy, path: str) -> None:
    """The manager has processed the request: claimed tasks return by their leases, other requests are repeated."""
    lost = 0

    def choose(request: str) -> RequestFault | None:
        nonlocal lost
        if path not in request or lost == ALL:
            return None
        lost += 1
        return RequestFault.SWALLOWED

    proxy.choose = choose
    await site.create_tasks("go")
    worker = site.worker(proxy.url, **SHORT_LEASE)
    if path != "/settle":
        await eventually("all responses are lost", lambda: lost == ALL)
    site.go("go")
    attempts = await site.wait_until_completed()
    assert lost
    if path != "/claim":
        assert [len(of_task) for of_task in attempts] == [1] * ALL
        assert len(worker.entries(Event.BEGUN)) == ALL


async def test_a_wall_clock_that_jumps_changes_nothing(site: Site) -> None:
    """Leases, delays and limits use the monotonic clock, also while handlers of every style run C code all the time.

    In the worker's own process, each call of this code is much shorter than a lease; in a process, it is longer.
    """
    lease = 2.0
    await site.create_tasks("go")
    bursts = json.dumps({"async": lease / 100, "thread": lease / 100, "process": 1.5 * lease})
    worker = site.worker(LEASE_SECONDS=str(lease), CLOCK_JUMPS="true", BURST_SECONDS=bursts)
    await worker.wait_for_entries(Event.BEGUN, ALL)
    await asyncio.sleep(2 * lease)
    site.go("go")
    await site.wait_until_completed()
    while {entry["wall"] > time.time() for entry in worker.entries(Event.BEGUN)} != {True, False}:
        await site.create_tasks("go")
        await site.wait_until_completed()
    assert {*map(tuple, await site.outcomes())} == {("COMPLETED",)}


@pytest.mark.skipif(sys.platform == "darwin", reason="needs /dev/full")
@pytest.mark.timeout(180)  # a process that cannot flush what it has printed is killed after five seconds
@pytest.mark.parametrize("output", Output)
async def test_a_worker_whose_output_accepts_nothing_works_and_stops(site: Site, output: Output) -> None:
    """Even if handlers print, tasks of every style complete, and the exit code is 0."""
    with broken_output(output) as descriptor:
        # Text that is printed stays in Python's buffer, unless this variable is set.
        printing = {"PRINTED": "begun\n", "PYTHONUNBUFFERED": ""}
        worker = site.worker("", descriptor, LOG_LEVEL="DEBUG", **LONG_LEASE, **printing)
        for go in ("first", "second"):
            await site.create_tasks(go)
            site.go(go)
            await site.wait_until_completed()
        worker.send(signal.SIGTERM)
        assert await worker.wait_for_exit(within=30) == 0
    assert {*map(tuple, await site.outcomes())} == {("COMPLETED",)}


@pytest.mark.parametrize("path", ["capabilities", "claim", "settle", "heartbeat"])
async def test_an_answer_that_arrives_byte_by_byte_is_given_up(site: Site, manager_url: str, path: str) -> None:
    """No request takes longer than the client's timeout and a lease together; a heartbeat, a third of a lease."""
    with Proxy(manager_url, delay=0.5) as proxy:
        proxy.choose = lambda request: (
            RequestFault.DRIPPING if f"/{path} " in request and not proxy.fault_counts[RequestFault.DRIPPING] else None
        )
        await site.create_tasks("go")
        worker = site.worker(proxy.url, LEASE_SECONDS="6", CLIENT_TIMEOUT_SECONDS="2")
        await worker.wait_for_entries(Event.BEGUN, ALL, within=40)
        if path == "heartbeat":
            await worker.wait_for_log("heartbeat failed")
        site.go("go")
        await site.wait_until_completed()
        assert proxy.fault_counts == {RequestFault.DRIPPING: 1}
        if path != "claim":  # the leases of the tasks in the response have ended
            assert await site.outcomes() == [["COMPLETED"]] * ALL
