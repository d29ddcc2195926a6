"""Claims of every kind share one queue: none waits for another, none is skipped, and "no task" is always exact."""

import asyncio
import random
import signal
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from tests.support.protocol import Client, branch
from tests.support.sessions import session
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]

MINIMAL = {"Prefer": "return=minimal"}
WAIT = 20
"""Seconds that a claim waits at most, far longer than any request of a test takes."""


class Claimants:
    """Claims of every kind, spread over several managers.

    Args:
        https: A client for each manager.
        stage_type: The stage type of all claims.
    """

    def __init__(self, https: list[httpx2.AsyncClient], stage_type: str) -> None:
        self.https = https
        self._stage_type = stage_type
        self.in_flight = 0

    async def dequeue(self, manager: int = 0) -> list[str]:
        """Claim one task without a lease. Return its id."""
        response = await self._send(manager, "PATCH", "dequeue")
        return [response.json()["id"]] if response.status_code == 200 else []

    async def claim(self, manager: int = 0, *, minimal: bool = False, **fields: Any) -> list[str]:  # noqa: ANN401 - any field
        """Claim tasks under leases. Return their ids."""
        response = await self._send(manager, "POST", "claim", minimal=minimal, json={"workerId": "worker"} | fields)
        assert response.status_code == 200, response.text
        return [task["id"] for task in response.json()["tasks"]]

    async def any(self, manager: int, chance: random.Random) -> list[str]:
        """Claim in a random way, without waiting."""
        if chance.random() < 0.3:
            return await self.dequeue(manager)
        return await self.claim(manager, minimal=chance.random() < 0.5, limit=chance.choice((1, 2, 5, 70, 200)))

    async def statements(self) -> float:
        """Return the number of claim statements that the first manager has run."""
        return await self._metric('jobnik_manager_statement_duration_seconds_count{statement="claim"}')

    async def arrive(self, claims: int) -> None:
        """Wait until this many claims wait at the first manager."""
        while await self._metric("jobnik_manager_claims_waiting") < claims:
            pass

    async def _metric(self, name: str) -> float:
        lines = (await self.https[0].get("/metrics")).text.splitlines()
        return next(float(line.removeprefix(name)) for line in lines if line.startswith(f"{name} "))

    async def _send(
        self,
        manager: int,
        method: str,
        action: str,
        *,
        minimal: bool = False,
        **body: Any,  # noqa: ANN401 - as above
    ) -> httpx2.Response:
        path = f"/v1/stages/{self._stage_type}/tasks/{action}"
        self.in_flight += 1
        try:
            return await self.https[manager].request(method, path, headers=MINIMAL if minimal else {}, **body)
        finally:
            self.in_flight -= 1


@pytest.fixture
async def two(manager_url: str, second_manager_url: str, stage_type: str) -> AsyncGenerator[Claimants]:
    """Claims on two managers."""
    limits = httpx2.Limits(max_connections=200)
    async with AsyncExitStack() as stack:
        yield Claimants(
            [
                await stack.enter_async_context(httpx2.AsyncClient(base_url=url, limits=limits, timeout=60))
                for url in (manager_url, second_manager_url)
            ],
            stage_type,
        )


@pytest.fixture
def one(http: httpx2.AsyncClient, stage_type: str) -> Claimants:
    """Claims on the shared manager."""
    return Claimants([http], stage_type)


FIRST: dict[str, dict[str, Any]] = {
    "minimal": {"minimal": True},
    "full": {},
    "large": {"limit": 500},
    "large and minimal": {"limit": 500, "minimal": True},
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
async def test_a_claim_does_not_wait_for_the_one_before_it(one: Claimants, first: dict[str, Any]) -> None:
    """Behind claims that wait, claims of every kind that do not wait are answered at once."""
    waiting = [asyncio.create_task(one.claim(waitSeconds=WAIT, **first)) for _ in range(3)]
    start = time.monotonic()
    assert await one.dequeue() == []
    assert await one.claim(minimal=True) == []
    assert await one.claim(limit=500) == []
    assert time.monotonic() - start < WAIT / 2
    assert not any(claim.done() for claim in waiting)
    for claim in waiting:
        claim.cancel()


async def test_waiting_claims_cost_one_statement_a_second(two: Claimants) -> None:
    """However many claims of different kinds wait, and whenever their time is over, the manager polls once a second."""
    waits = [WAIT, WAIT, *(1 + number / 20 for number in range(40))]
    claims = [
        asyncio.create_task(two.claim(waitSeconds=wait, limit=30, minimal=number % 2 == 0))
        for number, wait in enumerate(waits)
    ]
    await two.arrive(len(claims))
    before = await two.statements()
    start = time.monotonic()
    await asyncio.gather(*claims[2:])
    assert await two.statements() - before <= time.monotonic() - start + 2
    assert not any(claim.done() for claim in claims[:2])


async def test_tasks_go_to_the_first_claims(two: Claimants, stage_type: str) -> None:
    """Of claims of different kinds that wait, the first get the tasks, as many as they want."""
    claims: list[asyncio.Task[list[str]]] = []
    for limit, minimal in ((3, False), (2, True), (500, False), (1, True)):
        claims.append(asyncio.create_task(two.claim(waitSeconds=WAIT, limit=limit, minimal=minimal)))
        assert await two.claim() == []  # a later claim is served later, so the one before it has arrived
    client = Client(two.https[0])
    stage = await client.stage(await client.job(), stage_type)
    ids = [task["id"] for task in await client.tasks(stage, 7)]
    assert [await claim for claim in claims[:3]] == [ids[:3], ids[3:5], ids[5:]]
    (last,) = await client.tasks(stage, 1)
    assert await claims[3] == [last["id"]]


@pytest.mark.timeout(90)  # hundreds of jobs on a small machine
async def test_no_claim_comes_back_empty_while_tasks_wait(two: Claimants, stage_type: str) -> None:
    """Two managers empty a queue of one-task jobs: a claim gets nothing only once all tasks are taken."""
    client = Client(two.https[0])
    for _ in range(300):
        await client.job(stages=[branch(stage_type, 1)])
    claimed: list[str] = []

    async def work(manager: int) -> None:
        while task := await two.dequeue(manager):
            claimed.extend(task)
        # The tasks that are not in this list are in answers to the other claims.
        assert 300 - len(claimed) <= two.in_flight

    await asyncio.gather(*(work(number % 2) for number in range(24)))
    assert len(set(claimed)) == len(claimed) == 300


@pytest.mark.timeout(90)  # as above
@pytest.mark.parametrize("seed", range(2))
async def test_claims_of_all_kinds_share_the_work_exactly(two: Claimants, stage_type: str, seed: int) -> None:
    """Random claims on two managers get every task once; none comes back empty before all are taken."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    client = Client(two.https[1])
    total = 0
    for _ in range(40):
        count = chance.choice((1, 1, 2, 30))
        await client.job(stages=[branch(stage_type, count)], priority=chance.choice(("HIGH", "LOW")))
        total += count
    claimed: list[str] = []

    async def work(manager: int) -> None:
        while tasks := await two.any(manager, chance):
            claimed.extend(tasks)
        assert len(claimed) == total or two.in_flight

    async def wait(manager: int, *, minimal: bool) -> None:
        claimed.extend(await two.claim(manager, limit=7, waitSeconds=1, minimal=minimal))

    patient = [wait(manager, minimal=minimal) for manager in (0, 1) for minimal in (True, False)]
    await asyncio.gather(*patient, *(work(number % 2) for number in range(12)))
    assert len(set(claimed)) == len(claimed) == total


async def test_a_locked_job_does_not_make_claims_poll_faster(
    two: Claimants, shared_database_url: str, stage_type: str
) -> None:
    """While only a locked job has tasks, a claim that does not wait gets none; a waiting one polls ever less often."""
    client = Client(two.https[0])
    job = await client.job(stages=[branch(stage_type, 1)])
    async with session(shared_database_url) as other:
        await other.execute("SELECT pg_advisory_lock(job_key($1))", job["id"])
        waiting = asyncio.create_task(two.claim(waitSeconds=WAIT))
        before = await two.statements()
        assert await two.dequeue() == []
        assert await two.statements() - before < 40
    assert len(await waiting) == 1


async def test_a_manager_that_stops_answers_every_waiting_claim(start_manager: Start, stage_type: str) -> None:
    """Fifty claims of a hundred tasks each wait. When the manager stops, each gets its answer: no task."""
    manager = start_manager()
    limits = httpx2.Limits(max_connections=60)
    async with httpx2.AsyncClient(base_url=manager.url, limits=limits, timeout=60) as http:
        claimants = Claimants([http], stage_type)
        claims = [
            asyncio.create_task(claimants.claim(limit=100, waitSeconds=WAIT, minimal=number % 2 == 0))
            for number in range(50)
        ]
        await claimants.arrive(50)
        start = time.monotonic()
        manager.process.send_signal(signal.SIGTERM)
        assert await asyncio.gather(*claims) == [[]] * 50
        assert await asyncio.to_thread(manager.process.wait, 20) == 0
        assert time.monotonic() - start < WAIT / 2


COMPRESSIBLE = "a" * 900_000
INCOMPRESSIBLE = b64encode(random.Random(1).randbytes(675_000)).decode()  # noqa: S311 - repeatable


@pytest.mark.timeout(180)  # tens of megabytes on a small machine
@pytest.mark.parametrize("minimal", [True, False])
@pytest.mark.parametrize("text", [COMPRESSIBLE, INCOMPRESSIBLE], ids=["compressible", "incompressible"])
async def test_a_claim_has_at_most_sixteen_megabytes(two: Claimants, stage_type: str, minimal: bool, text: str) -> None:  # noqa: FBT001 - a parameter
    """Of many large tasks, a claim gets only as many as fit, and further claims get the others."""
    client = Client(two.https[0])
    stage = await client.stage(await client.job(), stage_type)
    for _ in range(20):
        await client.tasks(stage, data={"text": text})
    assert [len(await two.claim(limit=500, minimal=minimal)) for _ in range(2)] == [18, 2]


@pytest.mark.timeout(180)  # as above
async def test_the_shared_context_counts_as_often_as_it_is_sent(two: Claimants, stage_type: str) -> None:
    """Full tasks repeat their stage and job, so fewer fit into an answer; minimal ones have them once."""
    client = Client(two.https[0])
    data = {"text": COMPRESSIBLE}
    stage = await client.stage(await client.job(data=data), stage_type, data=data)
    await client.tasks(stage, 500)
    assert len(await two.claim(limit=500)) == 9
    assert len(await two.claim(limit=500, minimal=True)) == 491


@pytest.mark.timeout(180)  # as above
async def test_the_contexts_of_many_jobs_count(two: Claimants, stage_type: str) -> None:
    """Each job's first task brings the context of its stage with it, in minimal and full responses."""
    client = Client(two.https[0])
    data = {"text": COMPRESSIBLE}
    for _ in range(35):
        await client.tasks(await client.stage(await client.job(data=data), stage_type, data=data), 1)
    assert [len(await two.claim(limit=500, minimal=minimal)) for minimal in (True, False)] == [9, 9]
    claims = [
        asyncio.create_task(two.claim(limit=1, waitSeconds=WAIT, minimal=bool(number % 2))) for number in range(17)
    ]
    assert [len(tasks) for tasks in await asyncio.gather(*claims)] == [1] * 17
    assert await two.claim(limit=500) == []
