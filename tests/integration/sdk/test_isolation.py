"""A problem with one task, job or proxy does not affect other tasks, on a real manager."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import count, cycle
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobnik_sdk import (
    CreatedJob,
    Handler,
    JobnikClient,
    JobnikError,
    JobType,
    NewStage,
    NewTask,
    Producer,
    StageType,
    TaskContext,
    Worker,
)
from pydantic import BaseModel
from typing_extensions import override

from tests.integration.sdk.resilience_site import eventually
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.sessions import ROW_LOCKS, session

LEASE = timedelta(seconds=2)
LIMIT = timedelta(seconds=40)
LOCKS = {"job": "SELECT pg_advisory_xact_lock(job_key($1))", "stage row": ROW_LOCKS["stage"]}

AnyJob = CreatedJob[Any, Any]
plain = JobType("plain")


class Number(BaseModel):
    """A task's data."""

    value: int = 0


async def _create(
    producer: Producer, stage_type: StageType[Number], values: Sequence[int], attempts: int = 3
) -> AnyJob:
    tasks = [NewTask(Number(value=value), max_attempts=attempts) for value in values]
    return await producer.create_job(plain, stages=[NewStage(stage_type, tasks)])


@asynccontextmanager
async def _running(worker: Worker) -> AsyncGenerator[None]:
    """Run a worker meanwhile."""
    working = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await working


async def _attempts(client: JobnikClient, job: AnyJob) -> list[dict[str, Any]]:
    """Return all attempts at the tasks of a job."""
    stages = (await client.request("GET", f"/v1/jobs/{job.id}/stages?should_return_tasks=true")).json()
    paths = [f"/v1/tasks/{task['id']}/attempts" for stage in stages for task in stage["tasks"]]
    return [attempt for path in paths for attempt in (await client.request("GET", path)).json()]


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
async def test_locked_jobs_delay_only_their_own_reports(
    lock: str, client: JobnikClient, producer: Producer, shared_database_url: str, own_name: str
) -> None:
    """While as many jobs are locked as a worker may have reports, it completes the tasks of other jobs."""
    stage_type = StageType(own_name, task=Number)
    begun, locked = asyncio.Semaphore(0), asyncio.Event()

    async def handle(task: Number, _context: TaskContext) -> None:
        if task.value == 0:
            begun.release()
            await locked.wait()

    worker = Worker(client, [Handler(stage_type, handle, concurrency=2)], lease=LEASE)
    async with session(shared_database_url) as locker, _running(worker):
        async with locker.transaction():
            jobs: list[AnyJob] = []
            for _ in range(2):  # twice as many as slots
                locked.clear()
                pair = [await _create(producer, stage_type, [0]) for _ in range(2)]
                for _ in pair:
                    await begun.acquire()
                for job in pair:
                    await locker.execute(lock, job.id)
                jobs += pair
                locked.set()
            other = await _create(producer, stage_type, range(1, 200))
            await producer.wait_for_job(other, plain, timeout=LIMIT)
        for job in jobs:
            await producer.wait_for_job(job, plain, timeout=LIMIT)
    for job in (*jobs, other):
        assert {attempt["outcome"] for attempt in await _attempts(client, job)} == {"COMPLETED"}


async def test_a_locked_task_delays_its_progress_but_not_the_renewal_of_its_lease(
    client: JobnikClient, producer: Producer, shared_database_url: str, own_name: str
) -> None:
    """A manager that cannot store the progress of a task renews the leases of all tasks, including this one."""
    stage_type = StageType(own_name, task=Number)
    begun, unlocked = asyncio.Semaphore(0), asyncio.Event()

    async def handle(_task: Number, context: TaskContext) -> None:
        begun.release()
        for number in count():
            context.progress(number % 100 / 100)
            with suppress(TimeoutError):
                await asyncio.wait_for(unlocked.wait(), 0.1)
                break

    worker = Worker(client, [Handler(stage_type, handle, concurrency=2)], lease=LEASE)
    async with session(shared_database_url) as locker, _running(worker):
        async with locker.transaction():
            locked, other = [await _create(producer, stage_type, [0], attempts=1) for _ in range(2)]
            for _ in range(2):
                await begun.acquire()
            await locker.execute(ROW_LOCKS["task"], locked.id)
            await asyncio.sleep(1.5 * LEASE.total_seconds())
        unlocked.set()
        for job in (locked, other):
            await producer.wait_for_job(job, plain, timeout=LIMIT)


async def test_odd_progress_fails_its_own_attempt_at_most(
    client: JobnikClient, producer: Producer, own_name: str
) -> None:
    """Other tasks keep their leases, and numbers of other libraries are accepted."""
    stage_type = StageType(own_name, task=Number)
    accepted: list[Any] = [Fraction(1, 3), Decimal("0.5"), True, 10**400, float("nan")]
    refused: list[Any] = ["half", None, 1j, [0.5], Decimal("sNaN")]
    values = [*accepted, *refused]

    async def handle(task: Number, context: TaskContext) -> None:
        if task.value < len(values):
            context.progress(values[task.value], eta=timedelta())
        await asyncio.sleep(1.5 * LEASE.total_seconds())

    worker = Worker(client, [Handler(stage_type, handle, concurrency=15)], lease=LEASE)
    job = await _create(producer, stage_type, range(15), attempts=1)

    async def have_ended() -> bool:
        attempts = await _attempts(client, job)
        return len(attempts) == 15 and all(attempt["endTime"] for attempt in attempts)

    async with _running(worker):
        await eventually("all attempts have ended", have_ended)
    attempts = await _attempts(client, job)
    assert Counter(attempt["outcome"] for attempt in attempts) == {"COMPLETED": 10, "FAILED": 5}
    assert {attempt["error"]["type"] for attempt in attempts if attempt["outcome"] == "FAILED"} == {
        "InvalidPayloadError"
    }


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None))),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters(codec=None)), inner)),
    max_leaves=20,
)
anything = st.one_of(
    json_values,
    st.decimals(),
    st.fractions(),
    st.timedeltas(),
    st.binary(),
    st.tuples(st.integers()),
    st.dictionaries(st.integers(), st.integers()),
    st.sampled_from(["x" * 600_000, 10**5_000]),
)


def _nested(depth: int) -> Any:  # noqa: ANN401 any JSON
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
@given(values=st.lists(st.tuples(anything, anything, anything, anything, anything), min_size=40, max_size=40))
async def test_whatever_a_handler_records_neighbours_keep_their_leases(
    values: list[Any], client: JobnikClient, producer: Producer, own_name: str
) -> None:
    """Each value is recorded, or refused in the handler; the manager never refuses a heartbeat because of it."""
    stage_type = StageType(own_name, task=Number)
    values = [*values, *((0, "", None, _nested(depth), {}) for depth in (100, 150, 190, 200, 250, 500, 900, 5_000))]

    async def handle(task: Number, context: TaskContext) -> None:
        if task.value < len(values):
            fraction, message, eta, checkpoint, metadata = values[task.value]
            for record in (
                lambda: context.progress(fraction),
                lambda: context.progress(0, message),
                lambda: context.progress(0, "", eta),
                lambda: context.save_checkpoint(checkpoint),
            ):
                with suppress(JobnikError):
                    record()
            with suppress(JobnikError):
                await context.set_job_metadata(metadata)
        await asyncio.sleep(1.2 * LEASE.total_seconds())

    worker = Worker(client, [Handler(stage_type, handle, concurrency=60)], lease=LEASE)
    async with _running(worker):
        job = await _create(producer, stage_type, range(60), attempts=1)
        await producer.wait_for_job(job, plain, timeout=LIMIT)
    assert Counter(attempt["outcome"] for attempt in await _attempts(client, job)) == {"COMPLETED": 60}


async def test_reports_do_not_wait_for_the_claims_of_a_hundred_idle_stage_types(
    client: JobnikClient, producer: Producer, own_name: str
) -> None:
    """Each claim waits at the manager on its own connection, and heartbeats are accepted."""

    async def handle(_task: Number, _context: TaskContext) -> None:
        pass

    busy, *idle = [StageType(f"{own_name[:40]}-{number}", task=Number) for number in range(101)]
    handlers = [Handler(busy, handle, concurrency=2), *(Handler(stage_type, handle) for stage_type in idle)]
    worker = Worker(client, handlers, lease=LEASE)
    async with _running(worker):
        await asyncio.sleep(LEASE.total_seconds())
        job = await _create(producer, busy, range(40))
        await producer.wait_for_job(job, plain, timeout=LIMIT)
        assert worker.ready
        (entry,) = [
            listed for listed in (await client.request("GET", "/v1/workers")).json() if listed["id"] == worker.id
        ]
        assert len(entry["stageTypes"]) == 100


class PagesOfProxies(httpx2.AsyncHTTPTransport):
    """Answers every third request as a proxy does while its manager is down."""

    PAGES: Sequence[tuple[int, dict[str, str]]] = (
        (404, {"Content-Type": "text/html"}),
        (502, {"Content-Type": "text/html"}),
        (200, {"Content-Type": "text/html"}),
        (301, {"Location": "https://login.example/"}),
        (404, {"Content-Type": "text/html"}),
        (407, {}),
        (421, {}),
        (511, {}),
        (409, {}),
        (413, {}),
    )

    def __init__(self) -> None:
        super().__init__(verify=NO_CERTIFICATES)
        self._pages = cycle(self.PAGES)
        self._requests = 0

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._requests += 1
        if self._requests % 3 == 1:
            status, headers = next(self._pages)
            return httpx2.Response(status, headers=headers, content=b"<html></html>", request=request)
        return await super().handle_async_request(request)


async def test_pages_of_proxies_are_no_answers(
    client: JobnikClient, producer: Producer, manager_url: str, own_name: str
) -> None:
    """The worker finds out that the manager has leases, and every task is completed once."""

    async def handle(_task: Number, _context: TaskContext) -> None:
        pass

    stage_type = StageType(own_name, task=Number)
    job = await _create(producer, stage_type, range(20))
    async with JobnikClient(manager_url, transport=PagesOfProxies()) as disturbed:
        delay = timedelta(milliseconds=50)
        handler = Handler(stage_type, handle, concurrency=2)
        worker = Worker(disturbed, [handler], lease=LEASE, poll_initial_delay=delay, poll_max_delay=delay)
        async with _running(worker):
            await producer.wait_for_job(job, plain, timeout=LIMIT)
    attempts = await _attempts(client, job)
    assert Counter(attempt["outcome"] for attempt in attempts) == {"COMPLETED": 20}
    assert {attempt["workerId"] for attempt in attempts} == {worker.id}
