"""Retry policies: the delay after a failed attempt, and the precedence of policies."""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import httpx2
import pytest

from tests.support.invariants import violations
from tests.support.protocol import Client, refused
from tests.support.sessions import Session
from tests.support.worker import LeasedWorker, report
from tools.manager import ManagerProcess

YEAR = 365 * 86_400.0
MOST = 2**31 - 1
"""The largest number of attempts."""

DELAYED = """
    SELECT attempt.outcome::text, attempt.error->>'type' AS error, due - attempt.end_time AS delay
    FROM delayed_tasks JOIN attempts AS attempt USING (task_id)
    WHERE attempt.lease_id = (SELECT max(lease_id) FROM attempts WHERE task_id = attempt.task_id)
    ORDER BY attempt.outcome::text, error
"""
"""How the last attempt of each delayed task ended, and the delay until the task is due."""


def fixed(seconds: float, **fields: float) -> dict[str, Any]:
    """Return a policy with a constant delay."""
    return {"strategy": "fixed", "delaySeconds": seconds} | fields


def exponential(first: float, factor: float, longest: float, jitter: float = 0) -> dict[str, Any]:
    """Return a policy with growing delays and all fields set."""
    growth = {"factor": factor, "maxDelaySeconds": longest, "jitter": jitter}
    return {"strategy": "exponential", "delaySeconds": first} | growth


@pytest.fixture
def worker(http: httpx2.AsyncClient) -> LeasedWorker:
    """A worker of the shared manager."""
    return LeasedWorker(http)


@pytest.mark.parametrize(
    ("policy", "failed", "delay"),
    [
        (fixed(30, jitter=0), 1, 30),
        (fixed(30, jitter=0), MOST, 30),
        (exponential(5, 2, 60), 1, 5),
        (exponential(5, 2, 60), 4, 40),
        (exponential(5, 2, 60), 5, 60),
        (exponential(5, 1, 60), MOST, 5),
        (exponential(5, 1.0000000000000002, 60), MOST, 5.000002),
        (exponential(5, 1.5, 60), 3, 11.25),
        (exponential(5, 100, YEAR), MOST, YEAR),
        (exponential(0, 100, YEAR), MOST, 0),
        (exponential(0.000001, 100, YEAR), 8, YEAR),
        (exponential(0.000001, 1.0001, YEAR), MOST, YEAR),
        (exponential(5e-324, 100, YEAR), 1, 0),
        (exponential(5, 2, 0), 1, 0),
        (exponential(YEAR, 2, 7), 1, 7),
    ],
)
async def test_a_delay_is_exact_and_bounded(
    connection: Session, policy: dict[str, Any], failed: int, delay: float
) -> None:
    """The delay is exact to the microsecond and never overflows, whatever the numbers."""
    found = await connection.fetchval("SELECT retry_delay($1, $2)", json.dumps(policy), failed)
    assert found == timedelta(seconds=delay)


async def test_delays_follow_the_formula(connection: Session) -> None:
    """Each delay is min(first * factor ^ (failed - 1), longest), for many policies and attempts."""
    numbers = list(product((0, 0.001, 0.3, 1, 7, 3600, YEAR), (1, 1.1, 2, 3, 100), (0, 1, 3600, YEAR), range(1, 40)))
    policies = [json.dumps(exponential(*policy)) for *policy, _ in numbers]
    rows = await connection.fetch(
        "SELECT retry_delay(policy, failed) AS delay FROM unnest($1::json[], $2::integer[]) AS listed (policy, failed)",
        policies,
        [failed for *_, failed in numbers],
    )
    for (first, factor, longest, failed), (delay,) in zip(numbers, rows, strict=True):
        expected = timedelta(seconds=min(first * factor ** (failed - 1), longest))
        assert abs(delay - expected) <= timedelta(microseconds=1), (first, factor, longest, failed)


@pytest.mark.parametrize("policy", [fixed(100, jitter=0.25), exponential(100, 2, 100, jitter=0.25)])
async def test_jitter_stays_within_its_range(connection: Session, policy: dict[str, Any]) -> None:
    """Delays are spread over the whole range that the jitter allows, and not beyond it."""
    rows = await connection.fetch("SELECT retry_delay($1, n) FROM generate_series(1, 1000) AS n", json.dumps(policy))
    delays = [delay.total_seconds() for (delay,) in rows]
    assert 75 <= min(delays) < 80
    assert 120 < max(delays) <= 125


async def test_every_failed_attempt_is_delayed(
    start_manager: Callable[..., ManagerProcess], connection: Session, stage_type: str
) -> None:
    """A task returns after the policy's delay however its attempt failed, and at once if it was handed back."""
    manager = start_manager("--task-stale-after", "PT0.5S")
    async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
        client, worker = Client(http), LeasedWorker(http)
        stage = await client.stage(await client.job(), stage_type)
        await client.tasks(stage, 6, retry=fixed(300))
        await client.tasks(stage, 1, retry=fixed(300), timeoutSeconds=0.5)
        await client.settle(await client.claimed(stage_type), "FAILED")
        await client.claimed(stage_type)
        failed, released, snoozed = await worker.claim(stage_type, 3)
        await worker.claim(stage_type, 2, leaseSeconds=1)
        await worker.settle(report(failed, "FAILED", error={"type": "Oops"}))
        async with asyncio.timeout(10):
            while len(rows := await connection.fetch(DELAYED)) < 5:  # noqa: ASYNC110 - the manager does not call us
                await asyncio.sleep(0.05)
        assert {row["delay"] for row in rows} == {timedelta(seconds=300)}
        assert [(row["outcome"], row["error"]) for row in rows] == [
            ("EXPIRED", "LeaseExpired"), ("EXPIRED", "Stale"), ("FAILED", "Oops"), ("FAILED", None),
            ("TIMED_OUT", "TimedOut"),
        ]  # fmt: skip
        assert {status: count for status, count in (await client.read(stage))["summary"].items() if count} == {
            "inProgress": 2, "retried": 5, "total": 7,
        }  # fmt: skip
        await worker.settle(report(released, "RELEASED"), report(snoozed, "SNOOZED"))
        assert [task["id"] for task in await worker.claim(stage_type, 9)] == [released["id"], snoozed["id"]]
        assert await violations(connection) == []


async def test_delays_grow_across_managers(
    start_manager: Callable[..., ManagerProcess], connection: Session, stage_type: str
) -> None:
    """The policy is stored with the task, so managers that take turns count its failed attempts together."""
    managers = [start_manager(), start_manager()]
    async with httpx2.AsyncClient(base_url=managers[0].url) as one, httpx2.AsyncClient(base_url=managers[1].url) as two:
        client = Client(one)
        stage = await client.stage(await client.job(), stage_type)
        await client.tasks(stage, maxAttempts=9, retry={"delaySeconds": 100, "maxDelaySeconds": 500})
        delays: list[float] = []
        for http in (one, two, one, two, one):
            worker = LeasedWorker(http)
            (task,) = await worker.claim(stage_type, waitSeconds=10)
            await worker.settle(report(task, "FAILED"))
            (row,) = await connection.fetch(DELAYED)
            delays.append(row["delay"].total_seconds())
            await connection.execute("UPDATE delayed_tasks SET due = now()")
    assert delays == [100, 200, 400, 500, 500]


async def test_the_delay_of_a_report_overrides_the_policy(
    client: Client, worker: LeasedWorker, stage_type: str
) -> None:
    """A delay in the report replaces the policy's, and 0 is a valid delay."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, 2, retry=fixed(300))
    soon, later = await worker.claim(stage_type, 2)
    await worker.settle(report(soon, "FAILED", delaySeconds=0), report(later, "FAILED", delaySeconds=0.2))
    assert [task["id"] for task in await worker.claim(stage_type, 2)] == [soon["id"]]
    assert [task["id"] for task in await worker.claim(stage_type, 2, waitSeconds=10)] == [later["id"]]


async def test_a_task_does_not_return_before_its_delay(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """By the database's clock, at least the delay lies between the end of an attempt and the start of the next."""
    await client.tasks(await client.stage(await client.job(), stage_type), retry=fixed(0.5))
    (task,) = await worker.claim(stage_type)
    await worker.settle(report(task, "FAILED"))
    assert await worker.claim(stage_type) == []
    (task,) = await worker.claim(stage_type, waitSeconds=10)
    first, second = await worker.attempts(task)
    ended, began = (datetime.fromisoformat(time) for time in (first["endTime"], second["startTime"]))
    assert began - ended >= timedelta(seconds=0.499)  # times in responses are truncated to milliseconds


async def test_the_last_attempt_is_final(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """A policy adds no attempts: a task without attempts left fails at once."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, maxAttempts=1, retry=fixed(300))
    (task,) = await worker.claim(stage_type)
    assert (await worker.settle(report(task, "FAILED")))[0]["status"] == "FAILED"
    assert await client.status(stage) == "FAILED"


async def test_a_stage_has_defaults_for_its_tasks(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """A task takes each option that it does not set from its stage, field by field."""
    defaults = {"maxAttempts": 7, "timeoutSeconds": 60, "retry": {"delaySeconds": 5}}
    stage = await client.stage(await client.job(), stage_type, taskDefaults=defaults)
    full = exponential(5, 2, 3600)
    assert stage["taskDefaults"] == defaults | {"retry": full}
    added = [
        *await client.tasks(stage),
        *await client.tasks(stage, timeoutSeconds=None, retry=None),
        *await client.tasks(stage, maxAttempts=3),
        *await client.tasks(stage, maxAttempts=3, timeoutSeconds=1.5, retry=fixed(9)),
    ]

    def options(task: dict[str, Any]) -> tuple[Any, ...]:
        return task["maxAttempts"], task["timeoutSeconds"], task["retry"]

    expected = [(7, 60, full), (7, 60, full), (3, 60, full), (3, 1.5, fixed(9, jitter=0))]
    assert [options(task) for task in added] == expected
    assert [options(task) for task in (await client.read(stage))["tasks"]] == expected
    assert [options(task) for task in await worker.claim(stage_type, 4)] == expected


async def test_task_defaults_are_optional(client: Client, stage_type: str) -> None:
    """If neither the stage nor the task sets an option, there are three attempts and the other options are absent."""
    job = await client.job()
    some = await client.stage(job, stage_type, taskDefaults={"timeoutSeconds": 60, "retry": None})
    none = [await client.stage(job, stage_type, taskDefaults=defaults) for defaults in ({}, {"retry": None}, None)]
    assert some["taskDefaults"] == {"timeoutSeconds": 60}
    assert [stage.keys() & {"taskDefaults", "weight"} for stage in none] == [set()] * 3
    (timed,), (plain,) = await client.tasks(some), await client.tasks(none[0])
    assert (timed["maxAttempts"], timed["timeoutSeconds"], plain["maxAttempts"]) == (3, 60, 3)
    assert "retry" not in timed
    assert plain.keys() & {"timeoutSeconds", "retry"} == set()


BAD_POLICIES: list[tuple[dict[str, Any], str]] = [
    ({"strategy": "linear"}, "retry.strategy"),
    ({"strategy": None}, "retry.strategy"),
    ({"delaySeconds": -1}, "retry.delaySeconds"),
    ({"delaySeconds": YEAR + 1}, "retry.delaySeconds"),
    ({"delaySeconds": "1"}, "retry.delaySeconds"),
    ({"factor": 0.99}, "retry.factor"),
    ({"factor": 101}, "retry.factor"),
    ({"maxDelaySeconds": -1}, "retry.maxDelaySeconds"),
    ({"maxDelaySeconds": YEAR + 1}, "retry.maxDelaySeconds"),
    ({"jitter": -0.1}, "retry.jitter"),
    ({"jitter": 1.1}, "retry.jitter"),
    ({"jitter": True}, "retry.jitter"),
    ({"attempts": 3}, "retry.attempts"),
]


@pytest.mark.parametrize(("policy", "field"), BAD_POLICIES)
async def test_a_policy_out_of_bounds_is_refused(
    client: Client, stage_type: str, policy: dict[str, Any], field: str
) -> None:
    """For a task and for a stage, the refusal names the field and nothing is created."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    bodies = [dict[str, Any](data={}), dict[str, Any](data={}, retry=policy)]
    tasks = await client.http.post(f"/v1/stages/{stage['id']}/tasks", json=bodies)
    body = {"type": stage_type, "data": {}, "taskDefaults": {"retry": policy}}
    other = await client.http.post(f"/v1/jobs/{job['id']}/stage", json=body)
    for answer, path in ((tasks, f"body.1.{field}"), (other, f"body.taskDefaults.{field}")):
        refused(answer, 400, "VALIDATION_ERROR")
        assert answer.json()["message"].startswith(f"{path}:")
    assert [stage["summary"]["total"] for stage in (await client.read(job))["stages"]] == [0]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"taskDefaults": {"maxAttempts": 0}}, "taskDefaults.maxAttempts"),
        ({"taskDefaults": {"maxAttempts": MOST + 1}}, "taskDefaults.maxAttempts"),
        ({"taskDefaults": {"timeoutSeconds": 0}}, "taskDefaults.timeoutSeconds"),
        ({"taskDefaults": {"delaySeconds": 1}}, "taskDefaults.delaySeconds"),
        ({"taskDefaults": []}, "taskDefaults"),
        ({"weight": 0}, "weight"),
        ({"weight": -1}, "weight"),
        ({"weight": 1001}, "weight"),
        ({"weight": "1"}, "weight"),
        ({"weight": None}, "weight"),
    ],
)
async def test_a_stage_option_out_of_bounds_is_refused(
    client: Client, stage_type: str, fields: dict[str, Any], path: str
) -> None:
    """The refusal names the field."""
    job = await client.job()
    body = dict[str, Any](type=stage_type, data={}) | fields
    answer = await client.http.post(f"/v1/jobs/{job['id']}/stage", json=body)
    refused(answer, 400, "VALIDATION_ERROR")
    assert answer.json()["message"].startswith(f"body.{path}:")
