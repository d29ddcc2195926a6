"""Jobs that are created with their stages and tasks in one request, completely or not at all."""

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.support.protocol import Client, branch, refused
from tests.support.worker import LeasedWorker

TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
ROWS = """
    SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM stages) + (SELECT count(*) FROM tasks)
        + (SELECT count(*) FROM waiting_tasks) + (SELECT count(*) FROM history) + (SELECT count(*) FROM job_totals)
        + (SELECT count(*) FROM stage_totals) + (SELECT count(*) FROM job_keys)
"""
OTHER_TRACE = "00-fedcba9876543210fedcba9876543210-fedcba9876543210-00"


async def job_with_stages(client: Client, *stages: dict[str, Any], **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Create a job with its stages."""
    return await client.job(stages=stages, **fields)


async def test_a_tree_equals_the_same_job_created_in_parts(client: Client, stage_type: str) -> None:
    """One request creates the same job, stages and tasks as separate requests, apart from ids and times."""
    options: list[dict[str, Any]] = [
        {"data": {"\0": "\0"}, "userMetadata": {"a": 1}, "maxAttempts": 1, "timeoutSeconds": 0.5},
        {"data": {}},
        {"data": {}, "retry": {"strategy": "fixed"}, "delaySeconds": 3600},
        {"data": {}, "availableAt": "2020-01-31T12:00:00+02:00", "traceparent": OTHER_TRACE, "tracestate": "a=b"},
    ]
    defaults = {"taskDefaults": {"maxAttempts": 7, "retry": {"delaySeconds": 2}, "timeoutSeconds": 60}, "weight": 2.5}
    stages: tuple[dict[str, Any], ...] = (
        {"type": stage_type, "data": {"ü": [1.0, 1e5]}, "userMetadata": {"b": None}, "tasks": options, **defaults},
        {"type": stage_type, "data": {}, "tasks": options},
        {"type": stage_type, "data": {}, "tasks": [], "startAsWaiting": True},
        {"type": stage_type, "data": {}},
    )
    whole = await job_with_stages(client, *stages, priority="HIGH", traceparent=TRACE, tracestate="c=d")
    job = await client.job(priority="HIGH", traceparent=TRACE, tracestate="c=d")
    for fields in stages:
        trace = {"traceparent": TRACE, "tracestate": "c=d"}
        without_tasks = {name: value for name, value in fields.items() if name != "tasks"}
        added = await client.stage(job, **{"stage_type": stage_type} | without_tasks | trace)
        tasks = [trace | task for task in fields.get("tasks", ())]
        assert (await client.http.post(f"/v1/stages/{added['id']}/tasks", json=tasks)).status_code == 201

    async def stored(entity: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        read = await client.read(entity)
        read["stages"] = (await client.http.get(f"/v1/jobs/{entity['id']}/stages?should_return_tasks=true")).json()
        return _comparable(read)

    assert await stored(whole) == await stored(job)
    assert whole["stages"] == (await client.read(whole))["stages"]
    assert [one["status"] for one in whole["stages"]] == ["PENDING", "CREATED", "WAITING", "CREATED"]
    assert [one["order"] for one in whole["stages"]] == [1, 2, 3, 4]


def _comparable(entity: Any) -> Any:  # noqa: ANN401 - any JSON
    """Remove the fields that differ between equal entities."""
    if isinstance(entity, list):
        return [_comparable(item) for item in entity]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(entity, dict):
        return {
            name: _comparable(value)
            for name, value in entity.items()  # pyright: ignore[reportUnknownVariableType]
            if name not in {"id", "jobId", "stageId", "createdAt", "creationTime", "updatedAt", "updateTime"}
        }
    return entity


async def test_the_stages_of_a_tree_open_in_order(client: Client, stage_type: str) -> None:
    """The stages open one after the other, and the job is completed with the last one."""
    job = await job_with_stages(client, branch(stage_type, 2), branch(stage_type, 1))
    assert "tasks" not in job["stages"][0]
    for number in (0, 1, 0):
        task = await client.claimed(stage_type)
        assert task["data"] == {"number": number}
        await client.settle(task)
    assert await client.claim(stage_type) is None
    assert await client.status(job) == "COMPLETED"


async def test_a_tree_wakes_waiting_claims(client: Client, stage_type: str) -> None:
    """A waiting claim gets the tasks of the first stage at once, and none of a later stage."""
    later = f"{stage_type}-later"
    first, second = (LeasedWorker(client.http) for _ in range(2))
    waiting = [asyncio.create_task(first.claim(stage_type, 5, waitSeconds=10))]
    waiting += [asyncio.create_task(second.claim(later, 5, waitSeconds=1))]
    await job_with_stages(client, branch(stage_type, 3), branch(later, 3))
    assert [len(claimed) for claimed in await asyncio.gather(*waiting)] == [3, 0]


async def test_a_tree_may_have_no_stages(client: Client) -> None:
    """An empty list of stages is valid, 100 are the maximum, and without the field the response has no stages."""
    assert (await job_with_stages(client))["stages"] == []
    assert "stages" not in await client.job()
    at_most = [branch("many", 0)] * 100
    assert len((await job_with_stages(client, *at_most))["stages"]) == 100
    body = dict[str, Any](name="a job", data={}, stages=[*at_most, at_most[0]])
    response = await client.http.post("/v1/jobs", json=body)
    refused(response, 400, "VALIDATION_ERROR")
    assert response.json()["message"].startswith("body.stages: ")


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"data": 5}, "tasks.1.data"),
        ({"data": {}, "maxAttempts": 0}, "tasks.1.maxAttempts"),
        ({"data": {}, "unknown": 0}, "tasks.1.unknown"),
        ({"data": {}, "delaySeconds": 1, "availableAt": "2026-01-31"}, "tasks.1"),
    ],
)
async def test_an_invalid_task_causes_refusal_of_the_whole_tree(
    client: Client, stage_type: str, wrong: dict[str, Any], path: str
) -> None:
    """Nothing is created, and the refusal names the location of the invalid value."""
    stages = [branch(stage_type, 1), branch(stage_type, 2)]
    stages[1]["tasks"][1] = wrong
    body = dict[str, Any](name=stage_type, data={}, stages=stages)
    response = await client.http.post("/v1/jobs", json=body)
    refused(response, 400, "VALIDATION_ERROR")
    assert response.json()["message"].startswith(f"body.stages.1.{path}: ")
    assert (await client.http.get(f"/v1/jobs?job_name={stage_type}")).json() == []


async def test_a_tree_that_fails_halfway_leaves_no_rows(
    http_of_own: httpx2.AsyncClient, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """A failure after the first rows rolls back everything: no job, no stage, no key and no count remains."""
    await connection.execute("ALTER TABLE tasks ADD CHECK (data ->> 'number' IS DISTINCT FROM '2')")
    body = dict[str, Any](name="a job", data={}, uniqueKey="a key", stages=[branch("a", 2), branch("a", 3)])
    refused(await http_of_own.post("/v1/jobs", json=body), 500, "DATABASE_RELATED_ERROR")
    assert await connection.fetchval(ROWS) == 0
    body["stages"] = [branch("a", 2), branch("a", 2)]
    assert (await http_of_own.post("/v1/jobs", json=body)).status_code == 201
