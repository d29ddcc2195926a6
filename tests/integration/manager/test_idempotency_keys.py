"""Idempotency keys: a creation that is repeated creates nothing, and gets the response of the first request."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from random import Random
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from jobnik_sdk import JobnikClient, JobType, NewStage, Producer, StageType
from pydantic import BaseModel
from reference_manager.engine.maintenance.idempotency_keys import BATCH_SIZE, IdempotencyKeys
from reference_manager.store.pool import Database

from tests.support.invariants import violations
from tests.support.lying_proxy import Fate, LyingProxy
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.protocol import Client, branch, refused
from tests.support.sessions import Session, wait_for_lock_waiters
from tests.support.silent_network import SilentNetwork
from tests.support.statistics import touched
from tests.support.worker import LeasedWorker, report
from tools.manager import ManagerProcess

MINIMAL = {"Prefer": "return=minimal"}
ODD: dict[str, Any] = {"c": 'é\0"\\', "": [1.0, 1e300, -0.0, 2**64, None, True, {}]}
TREE = {"name": "a job", "data": {"a": [1, 2.5]}, "userMetadata": ODD, "priority": "LOW"}
STAGE = {"data": ODD, "userMetadata": ODD, "taskDefaults": {"maxAttempts": 7}, "weight": 2}
TASKS: list[dict[str, Any]] = [
    {"data": ODD | {"number": number}} | ({"userMetadata": ODD, "maxAttempts": 1} if number % 2 else {})
    for number in range(5)
]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEYS = "SELECT count(*) FROM idempotency_keys"
UNFINISHED = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND state <> 'idle' AND strpos(query, '_once(') > 0 AND pid <> pg_backend_pid()
"""
"""Sessions that have taken a key, or wait for it."""

Responses = dict[str, httpx2.Response]


class Number(BaseModel):
    """The data of a task."""

    value: int


class Creator:
    """Sends creations with idempotency keys.

    Args:
        https: Clients of one or more managers, which are used in turn.
    """

    def __init__(self, *https: httpx2.AsyncClient) -> None:
        self._https = https
        self._count = 0

    async def create(self, key: str | bytes, path: str, body: object, **headers: str) -> httpx2.Response:
        """Send a creation with a key."""
        self._count += 1
        http = self._https[self._count % len(self._https)]
        sent = {name.encode(): value.encode() for name, value in headers.items()}
        given = key if isinstance(key, bytes) else key.encode()
        return await http.post(path, json=body, headers={**sent, b"Idempotency-Key": given})

    async def everything(self, key: str, stage_type: str, earlier: Responses | None = None) -> Responses:
        """Send each kind of creation; `earlier` are the responses of the first time."""
        stages = [branch(stage_type, 3) | {"userMetadata": {"d": 4}}, branch("waiting", 2) | {"startAsWaiting": True}]
        answers = {
            "job": await self.create(f"{key} job", "/v1/jobs", TREE),
            "tree": await self.create(f"{key} tree", "/v1/jobs", TREE | {"stages": stages}),
        }
        job = (earlier or answers)["job"].json()["id"]
        for name in ("first stage", "second stage"):
            answers[name] = await self.create(f"{key} {name}", f"/v1/jobs/{job}/stage", STAGE | {"type": stage_type})
        stage = (earlier or answers)["first stage"].json()["id"]
        answers["tasks"] = await self.create(f"{key} tasks", f"/v1/stages/{stage}/tasks", TASKS)
        answers["no tasks"] = await self.create(f"{key} none", f"/v1/stages/{stage}/tasks", [])
        answers["minimal"] = await self.create(f"{key} minimal", f"/v1/stages/{stage}/tasks", TASKS, **MINIMAL)
        return answers


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return uuid4().hex


@pytest.fixture
def creator(http: httpx2.AsyncClient) -> Creator:
    """Sends creations to the shared manager."""
    return Creator(http)


@pytest.fixture
async def both(two_urls: tuple[str, str]) -> AsyncGenerator[Creator]:
    """Sends creations to two managers in turn."""
    async with AsyncExitStack() as stack:
        https = [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=15, verify=NO_CERTIFICATES))
            for url in two_urls
        ]
        yield Creator(*https)


def contents(answers: Responses) -> dict[str, tuple[int, bytes, str | None]]:
    """Return what must be the same each time."""
    return {
        name: (answer.status_code, answer.content, answer.headers.get("Preference-Applied"))
        for name, answer in answers.items()
    }


async def test_a_repeated_creation_gets_the_first_response(
    creator: Creator, client: Client, key: str, stage_type: str
) -> None:
    """Whatever happened to the created entities, the response is the first one, byte for byte."""
    first = await creator.everything(key, stage_type)
    assert {answer.status_code for answer in first.values()} == {201}
    assert contents(await creator.everything(key, stage_type, first)) == contents(first)

    job, tree = first["job"].json(), first["tree"].json()
    await client.stage(tree, "later")
    for created in (job, tree):
        await client.http.patch(f"/v1/jobs/{created['id']}/user-metadata", json={"changed": True})
        await client.http.patch(f"/v1/jobs/{created['id']}/priority", json={"priority": "VERY_HIGH"})
        for stage in (await client.read(created))["stages"]:
            await client.http.patch(f"/v1/stages/{stage['id']}/user-metadata", json={"changed": True})
    for task in first["tasks"].json():
        await client.http.patch(f"/v1/tasks/{task['id']}/user-metadata", json={"changed": True})
    worker = LeasedWorker(client.http)
    tasks = await worker.claim(stage_type, limit=100)
    assert len(tasks) == 13
    await worker.heartbeat(*(task | {"progress": {"fraction": 0.5}, "checkpoint": [1]} for task in tasks))
    await worker.settle(*(report(task, "COMPLETED", result={"done": True}) for task in tasks[1:]))
    await worker.settle(report(tasks[0], "FAILED", error={"type": "E"}, retryable=False))
    for created in (job, tree):
        if await client.status(created) == "IN_PROGRESS":
            await client.move(created, "ABORTED")
    assert contents(await creator.everything(key, stage_type, first)) == contents(first)
    assert len((await client.read(tree))["stages"]) == 3
    assert (await client.read(first["first stage"].json()))["summary"]["total"] == 10


async def test_the_preference_is_not_part_of_the_request(creator: Creator, client: Client, stage_type: str) -> None:
    """A repeated request may ask for the tasks, or for their number only."""
    path = f"/v1/stages/{(await client.stage(await client.job(), stage_type))['id']}/tasks"
    for first, second in ((MINIMAL, {}), ({}, MINIMAL)):
        key = uuid4().hex
        answers = [await creator.create(key, path, TASKS, **headers) for headers in (first, second, first)]
        full, minimal = answers[:2] if second else answers[1::-1]
        assert minimal.json() == {"created": 5}
        assert [task["data"] for task in full.json()] == [task["data"] for task in TASKS]
        assert answers[2].content == answers[0].content
    assert len((await client.http.get(path)).json()) == 10


async def test_another_request_with_the_key_is_refused(
    creator: Creator, client: Client, key: str, stage_type: str
) -> None:
    """The key belongs to what is created and where. Trace contexts, spaces and defaults do not matter."""
    answers = await creator.everything(key, stage_type)
    other_job, other_stage = await client.job(), answers["second stage"].json()
    at_tasks = f"/v1/stages/{answers['first stage'].json()['id']}/tasks"
    others: list[tuple[str, str, object]] = [
        ("job", "/v1/jobs", TREE | {"name": "another"}),
        ("job", "/v1/jobs", TREE | {"priority": "HIGH"}),
        ("job", "/v1/jobs", TREE | {"userMetadata": {}}),
        ("job", "/v1/jobs", TREE | {"uniqueKey": key}),
        ("job", "/v1/jobs", TREE | {"stages": []}),
        ("job", f"/v1/jobs/{other_job['id']}/stage", STAGE | {"type": stage_type}),
        ("tree", "/v1/jobs", TREE | {"stages": [branch(stage_type, 3), branch("waiting", 2)]}),
        ("first stage", f"/v1/jobs/{other_job['id']}/stage", STAGE | {"type": stage_type}),
        ("tasks", f"/v1/stages/{other_stage['id']}/tasks", TASKS),
        ("tasks", f"/v1/stages/{uuid4()}/tasks", TASKS),
        ("tasks", at_tasks, TASKS[:4]),
        ("tasks", at_tasks, [*TASKS[:4], TASKS[4] | {"maxAttempts": 2}]),
        ("tasks", at_tasks, TASKS[::-1]),
    ]
    for name, path, body in others:
        refused(await creator.create(f"{key} {name}", path, body), 422, "IDEMPOTENCY_KEY_REUSED")

    traced = [task | {"traceparent": TRACE} for task in TASKS]
    same: list[tuple[str, str, object]] = [
        ("job", "/v1/jobs", dict(reversed(TREE.items())) | {"traceparent": TRACE, "uniqueFor": "running"}),
        ("tasks", at_tasks, traced),
    ]
    for name, path, body in same:
        repeated = await creator.create(f"{key} {name}", path, body, traceparent=TRACE)
        assert repeated.content == answers[name].content


@pytest.mark.parametrize("invalid", [b"", b"x" * 256, "é".encode(), b"a\tb"])
async def test_an_invalid_key_is_refused(creator: Creator, invalid: bytes) -> None:
    """A key has 1 to 255 printable ASCII characters. Both the hot path and the framework refuse others."""
    for body in (TREE, TREE | {"data": {"large": "x" * 100_000}}):
        answer = await creator.create(invalid, "/v1/jobs", body)
        refused(answer, 400, "VALIDATION_ERROR")
        assert answer.json()["message"].startswith("header.Idempotency-Key: ")


async def test_a_request_has_one_key(http: httpx2.AsyncClient, key: str) -> None:
    """Two keys are refused; a key with spaces, quotes and the maximum length is taken as it is."""
    twice = [("Idempotency-Key", key), ("Idempotency-Key", key)]
    refused(await http.post("/v1/jobs", json=TREE, headers=twice), 400, "VALIDATION_ERROR")
    ids = set[str]()
    for one in (key, f'"{key}"', f"{key} and more", key.ljust(255, "~")):
        answers = [await http.post("/v1/jobs", json=TREE, headers={"Idempotency-Key": one}) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        ids.add(answers[0].json()["id"])
    assert len(ids) == 4


async def test_what_was_created_by_a_deleted_job_is_not_created_again(
    creator: Creator, client: Client, key: str, stage_type: str
) -> None:
    """The response is 404, as for any other request about the deleted job."""
    first = await creator.everything(key, stage_type)
    for name in ("job", "tree"):
        job = first[name].json()
        await client.move(job, "ABORTED")
        assert (await client.http.delete(f"/v1/jobs/{job['id']}")).status_code == 200
    codes = {name: answer.json()["code"] for name, answer in (await creator.everything(key, stage_type, first)).items()}
    stages = {"first stage": "JOB_NOT_FOUND", "second stage": "JOB_NOT_FOUND"}
    tasks = dict.fromkeys(("tasks", "no tasks", "minimal"), "STAGE_NOT_FOUND")
    assert codes == {"job": "JOB_NOT_FOUND", "tree": "JOB_NOT_FOUND", **stages, **tasks}


async def test_a_refused_creation_leaves_no_key(http_of_own: httpx2.AsyncClient, connection: Session, key: str) -> None:
    """The same request with the same key succeeds once its reason is gone."""
    client, creator = Client(http_of_own), Creator(http_of_own)
    ended = await client.job(stages=[branch("a", 1)])
    await client.move(ended, "ABORTED")
    at_job, at_stage = f"/v1/jobs/{ended['id']}/stage", f"/v1/stages/{ended['stages'][0]['id']}/tasks"
    refused(await creator.create(key, at_job, STAGE | {"type": "a"}), 400, "JOB_IN_FINITE_STATE")
    refused(await creator.create(key, at_stage, TASKS), 400, "STAGE_IN_FINITE_STATE")
    refused(await creator.create(key, f"/v1/jobs/{uuid4()}/stage", STAGE | {"type": "a"}), 404, "JOB_NOT_FOUND")
    refused(await creator.create(key, f"/v1/stages/{uuid4()}/tasks", TASKS), 404, "STAGE_NOT_FOUND")
    refused(await creator.create(key, "/v1/jobs", {"name": "x"}), 400, "VALIDATION_ERROR")
    assert await connection.fetchval(KEYS) == 0
    assert (await creator.create(key, "/v1/jobs", TREE)).status_code == 201
    assert await connection.fetchval(KEYS) == 1


async def test_a_unique_job_that_was_found_is_found_again(creator: Creator, client: Client, key: str) -> None:
    """The repeated request gets the same job, as it is now, even if a new one could be created by then."""
    holder = await client.job(uniqueKey=key)
    found = await creator.create(key, "/v1/jobs", TREE | {"uniqueKey": key})
    assert (found.status_code, found.json()) == (200, holder)
    await client.move(holder, "ABORTED")
    again = await creator.create(key, "/v1/jobs", TREE | {"uniqueKey": key})
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (200, holder["id"], "ABORTED")
    created = [await creator.create(f"{key} new", "/v1/jobs", TREE | {"uniqueKey": key}) for _ in range(2)]
    assert [answer.status_code for answer in created] == [201, 201]
    assert created[0].content == created[1].content
    assert (await client.http.delete(f"/v1/jobs/{holder['id']}")).status_code == 200
    refused(await creator.create(key, "/v1/jobs", TREE | {"uniqueKey": key}), 404, "JOB_NOT_FOUND")


async def test_of_many_concurrent_requests_one_creates(
    both: Creator, client: Client, key: str, stage_type: str
) -> None:
    """Through two managers at the same moment, every creation happens once, and all responses are the same."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    creations: list[tuple[str, str, object]] = [
        ("tree", "/v1/jobs", TREE | {"stages": [branch("tree", 20)]}),
        ("stage", f"/v1/jobs/{job['id']}/stage", STAGE | {"type": "another"}),
        ("tasks", f"/v1/stages/{stage['id']}/tasks", TASKS),
    ]
    for name, path, body in creations:
        answers = await asyncio.gather(*(both.create(f"{key} {name}", path, body) for _ in range(30)))
        assert Counter(answer.status_code for answer in answers) == {201: 30}
        assert len({answer.content for answer in answers}) == 1
    different = [TASKS[: 1 + number % 2] for number in range(20)]
    path = f"/v1/stages/{stage['id']}/tasks"
    answers = await asyncio.gather(*(both.create(f"{key} others", path, body) for body in different))
    assert Counter(answer.status_code for answer in answers) == {201: 10, 422: 10}
    added = {len(answer.json()) for answer in answers if answer.status_code == 201}.pop()
    assert (await client.read(stage))["summary"]["total"] == 5 + added
    assert [one["type"] for one in (await client.read(job))["stages"]] == [stage_type, "another"]


async def test_a_request_waits_for_a_concurrent_one_that_fails(
    http_of_own: httpx2.AsyncClient, connection: Session, other: Session
) -> None:
    """If the request that has taken the key is rolled back, the waiting request creates."""
    creator = Creator(http_of_own)
    stage = await Client(http_of_own).stage(await Client(http_of_own).job(), "a")
    for path, body in (("/v1/jobs", TREE), (f"/v1/stages/{stage['id']}/tasks", TASKS)):
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO idempotency_keys (key, digest, entity) VALUES ($1, $2, $2)", path, UUID(int=1)
        )
        waiting = asyncio.create_task(creator.create(path, path, body))
        await wait_for_lock_waiters(other)
        await transaction.rollback()
        assert (await waiting).status_code == 201
    assert await connection.fetchval(KEYS) == 2


@pytest.mark.timeout(180)  # starts two managers
@pytest.mark.parametrize("moment", ["committed", "running", "rolled back"])
async def test_a_manager_that_is_killed_creates_once(
    start_manager: Callable[..., ManagerProcess], database_url: str, connection: Session, other: Session, moment: str
) -> None:
    """It gets no answer from PostgreSQL, which has committed, is still running the statement, or rolls it back."""
    with SilentNetwork(database_url) as network:
        doomed, survivor = start_manager("--database-url", network.url), start_manager()
        async with (
            httpx2.AsyncClient(base_url=doomed.url, timeout=15, verify=NO_CERTIFICATES) as http,
            httpx2.AsyncClient(base_url=survivor.url, timeout=15, verify=NO_CERTIFICATES) as other_http,
        ):
            client = Client(other_http)
            job = await client.job()
            stage = await client.stage(job, "a")
            creations: dict[str, tuple[str, object]] = {
                "the job": ("/v1/jobs", TREE),
                "the tasks": (f"/v1/stages/{stage['id']}/tasks", TASKS),
                "the stage": (f"/v1/jobs/{job['id']}/stage", STAGE | {"type": "b"}),
            }
            lost = {key: key.encode() for key in creations}
            if moment == "committed":
                lost["the stage"] = b"COMMIT"  # the other creations are one statement each
            elif moment == "running":
                del creations["the stage"], lost["the stage"]  # the manager sends its statements one by one

            def send(http: httpx2.AsyncClient) -> list[asyncio.Task[httpx2.Response]]:
                return [asyncio.create_task(Creator(http).create(key, *one)) for key, one in creations.items()]

            lock = connection.transaction()
            await lock.start()
            if moment != "committed":
                await connection.execute("LOCK jobs, tasks IN SHARE MODE")
            sent = [network.lose_answer(part) for part in lost.values()]
            requests = send(http)
            await asyncio.gather(*sent)
            if moment != "committed":
                await wait_for_lock_waiters(other, 2)
                while len(await other.fetch(UNFINISHED)) < len(creations):
                    pass
            holders = [row["pid"] for row in await other.fetch(UNFINISHED)]
            doomed.process.kill()
            await asyncio.gather(*requests, return_exceptions=True)
            repeated = send(other_http)
            if moment != "committed":
                await wait_for_lock_waiters(other, 3)
            if moment == "rolled back":
                await other.execute(
                    "SELECT pg_terminate_backend(pid) FROM unnest($1::integer[]) AS ended (pid)", holders
                )
            await lock.rollback()
            assert [answer.status_code for answer in await asyncio.gather(*repeated)] == [201] * len(creations)
            types = [one["type"] for one in (await client.read(job))["stages"]]
            assert types == (["a"] if moment == "running" else ["a", "b"])
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 2
    assert await connection.fetchval("SELECT count(*) FROM tasks") == 5
    assert await connection.fetchval(KEYS) == len(creations)
    assert await violations(connection) == []


@pytest.mark.timeout(180)  # hundreds of requests, some of which wait before they are repeated
@pytest.mark.parametrize("seed", range(2))
async def test_the_sdk_creates_once_whatever_happens_to_requests_and_responses(
    two_urls: tuple[str, str], client: Client, stage_type: str, seed: int
) -> None:
    """Requests and responses are lost, replaced and repeated between the SDK and two managers."""
    random = Random(seed)  # noqa: S311 - repeatable
    proxy = LyingProxy(two_urls, lambda: random.choice(list(Fate)))
    name, numbers = f"lies {uuid4().hex}", StageType(stage_type, task=Number)

    async def create_a_job(producer: Producer) -> None:
        tree = [NewStage(numbers, [Number(value=value) for value in range(3)], waiting=True)]
        job = await producer.create_job(JobType(name), stages=tree)
        stage = await producer.create_stage(job, numbers, waiting=True)
        assert stage.order == 2
        tasks = await producer.create_tasks(stage, numbers, [Number(value=value) for value in range(4)])
        assert len({task.id for task in tasks}) == 4
        stream = (Number(value=value) for value in range(20))
        assert await producer.stream_tasks(stage, numbers, stream, batch=5) == 20

    async with proxy.listen(), JobnikClient(proxy.url) as sdk:
        producer = Producer(sdk)
        await asyncio.gather(*(create_a_job(producer) for _ in range(10)))
    jobs = (await client.http.get("/v1/jobs", params={"job_name": name, "should_return_stages": "true"})).json()
    assert [[stage["summary"]["total"] for stage in job["stages"]] for job in jobs] == [[3, 24]] * 10
    assert proxy.fates.keys() == set(Fate)


async def test_keys_are_deleted_after_a_day(
    http_of_own: httpx2.AsyncClient, connection: Session, other: Session, database: Database
) -> None:
    """Older keys are deleted in batches, except one that is in use; then the key is free again."""
    creator = Creator(http_of_own)
    first = [await creator.create(name, "/v1/jobs", TREE) for name in ("old", "busy", "young")]
    await connection.execute(
        """
        INSERT INTO idempotency_keys (key, digest, entity)
        SELECT number::text, gen_random_uuid(), gen_random_uuid() FROM generate_series(1, $1) AS number
        """,
        2 * BATCH_SIZE,
    )
    await connection.execute("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'")
    await connection.execute(
        "UPDATE idempotency_keys SET created_at = now() - interval '23 hours 59 minutes' WHERE key = 'young'"
    )
    maintenance = IdempotencyKeys()
    async with other.transaction():
        await other.execute("SELECT FROM idempotency_keys WHERE key = 'busy' FOR UPDATE")
        async with database.maintenance_connection() as maintained:
            await maintenance.round(maintained)
        assert [row["key"] for row in await connection.fetch("SELECT key FROM idempotency_keys ORDER BY key")] == [
            "busy",
            "young",
        ]
    second = [await creator.create(name, "/v1/jobs", TREE) for name in ("old", "busy", "young")]
    assert [one.content == two.content for one, two in zip(first, second, strict=True)] == [False, True, True]


async def test_the_cost_of_a_key_does_not_depend_on_the_number_of_keys(database: Database) -> None:
    """Taking a key, finding it, and looking for old ones read a few rows, even with plans made for an empty table."""
    take: tuple[str, Any, Any] = ("SELECT take_key($1, $2, $2, '1 s')", "a key", UUID(int=1))
    async with database.connection() as connection:
        for _ in range(2):
            await connection.fetch(*take)
        await connection.fetch("SELECT forget_keys(1000)")
        await connection.execute(
            """
            INSERT INTO idempotency_keys (key, digest, entity)
            SELECT number::text, gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 20000) AS number
            """
        )
        assert await touched(connection, *take) <= 2
        assert await touched(connection, "SELECT take_key('another', $1, $1, '1 s')", UUID(int=2)) <= 2
        assert await touched(connection, "SELECT forget_keys(1000)") == 0
        await connection.execute("UPDATE idempotency_keys SET created_at = '2000-01-01' WHERE key LIKE '1_'")
        assert await touched(connection, "SELECT forget_keys(1000)") <= 2 * 10
