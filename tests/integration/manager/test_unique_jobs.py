"""Jobs with a unique key, of which only one exists at a time."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from tests.support.protocol import Client, branch
from tools.manager import ManagerProcess


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return uuid4().hex


async def create(http: httpx2.AsyncClient, key: str, **fields: Any) -> tuple[int, dict[str, Any]]:  # noqa: ANN401 - any field
    """Create a job with a key; return the status and the job."""
    body = dict[str, Any](name="a job", data={}, uniqueKey=key) | fields
    response = await http.post("/v1/jobs", json=body)
    assert response.is_success, response.text
    return response.status_code, response.json()


async def test_a_duplicate_is_answered_with_the_existing_job(client: Client, key: str) -> None:
    """A duplicate creates nothing, whatever its other fields are; another key creates another job."""
    first = await create(client.http, key, data={"number": 1})
    second = await create(client.http, key, name="another", data={"number": 2}, priority="HIGH")
    assert (first[0], second) == (201, (200, first[1]))
    other = await create(client.http, f"{key}-other")
    assert (other[0], other[1]["id"] != first[1]["id"]) == (201, True)
    assert (await client.job())["id"] != first[1]["id"]


async def test_the_existing_job_includes_its_stages_if_stages_were_sent(
    client: Client, key: str, stage_type: str
) -> None:
    """The stages are those of the existing job in their current state."""
    _, first = await create(client.http, key, stages=[branch(stage_type, 2)])
    await client.settle(await client.claimed(stage_type))
    status, same = await create(client.http, key, stages=[])
    assert (status, same) == (200, await client.read(first))
    assert same["stages"][0]["summary"]["completed"] == 1
    assert "stages" not in (await create(client.http, key))[1]


async def test_a_job_that_ends_frees_its_key(client: Client, key: str) -> None:
    """A paused job keeps its key; a job that has ended frees it, unless it was created within the requested period."""
    _, first = await create(client.http, key)
    await client.move(first, "PAUSED")
    assert (await create(client.http, key))[1]["id"] == first["id"]
    await client.move(first, "ABORTED")
    assert (await create(client.http, key, uniqueFor=3600))[1]["id"] == first["id"]
    status, second = await create(client.http, key, uniqueFor="running")
    assert (status, second["id"] != first["id"]) == (201, True)
    assert (await create(client.http, key))[1]["id"] == second["id"]
    await asyncio.sleep(0.01)  # let the requested period pass
    status, third = await create(client.http, key, uniqueFor=0.01)
    assert (status, third["id"] != second["id"]) == (201, True)


async def test_a_deleted_job_frees_its_key(client: Client, key: str) -> None:
    """Deleting a job frees its key, also for requests with a period."""
    _, first = await create(client.http, key)
    await client.move(first, "ABORTED")
    assert (await client.http.delete(f"/v1/jobs/{first['id']}")).status_code == 200
    assert (await create(client.http, key, uniqueFor=3600))[0] == 201


async def test_one_of_many_concurrent_requests_creates_the_job(
    start_manager: Callable[..., ManagerProcess], connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Of fifty concurrent requests through two managers, one creates the job and all of them return it."""
    async with AsyncExitStack() as stack:
        urls = [start_manager().url for _ in range(2)]
        https = [await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=15)) for url in urls]
        for key in ("first", "second"):
            racing = (create(https[number % 2], key, stages=[branch("a", 20)]) for number in range(50))
            answers = await asyncio.gather(*racing)
            assert Counter(status for status, _ in answers) == {201: 1, 200: 49}
            assert len({job["id"] for _, job in answers}) == 1
            assert {job["stages"][0]["summary"]["total"] for _, job in answers} == {20}
        for job in (await https[0].get("/v1/jobs")).json():
            await Client(https[0]).move(job, "ABORTED")
        answers = await asyncio.gather(*(create(https[number % 2], "first") for number in range(50)))
        assert Counter(status for status, _ in answers) == {201: 1, 200: 49}
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 3
    assert await connection.fetchval("SELECT count(*) FROM tasks") == 40


async def test_two_managers_never_create_the_same_job(
    start_manager: Callable[..., ManagerProcess], connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Two managers are asked at the same moment for keys that are new, free again, or just becoming free."""
    async with AsyncExitStack() as stack:
        urls = [start_manager().url for _ in range(2)]
        https = [await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=15)) for url in urls]
        client, ids = Client(https[0]), set[str]()

        async def create_on_both(key: str) -> tuple[list[int], dict[str, dict[str, Any]]]:
            """Return the statuses in ascending order, and the jobs by id."""
            answers = await asyncio.gather(*(create(http, key, stages=[branch("a", 2)]) for http in https))
            return sorted(status for status, _ in answers), {job["id"]: job for _, job in answers}

        async def create_new_on_both(key: str) -> dict[str, Any]:
            statuses, jobs = await create_on_both(key)
            assert (statuses, len(jobs), jobs.keys() & ids) == ([200, 201], 1, set())
            ids.update(jobs)
            return jobs.popitem()[1]

        for number in range(15):
            key = f"key {number}"
            await client.move(await create_new_on_both(key), "ABORTED")
            last = await create_new_on_both(key)
            (statuses, jobs), _ = await asyncio.gather(create_on_both(key), client.move(last, "ABORTED"))
            assert statuses.count(201) == len(jobs.keys() - {last["id"]}) <= 1
            ids.update(jobs)
    assert await connection.fetchval("SELECT count(*) FROM jobs") == len(ids)


async def test_a_request_waits_for_a_concurrent_one_that_fails(
    http_of_own: httpx2.AsyncClient, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """If the request that holds the key fails, the waiting request creates the job."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO job_keys VALUES ('a key', gen_random_uuid())")
    waiting = asyncio.create_task(create(http_of_own, "a key"))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    await transaction.rollback()
    assert (await waiting)[0] == 201
