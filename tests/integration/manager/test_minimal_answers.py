"""Minimal responses, for clients that do not need the full representation."""

import asyncio

import pytest

from tests.support.protocol import Client, refused


@pytest.mark.parametrize(
    ("prefer", "minimal"),
    [
        ([], False),
        (["return=minimal"], True),
        (['respond-async, RETURN="minimal"; foo=bar'], True),
        (["wait=10", "return = minimal"], True),
        (["return=representation, return=minimal"], False),
        (["minimal", "return", ""], False),
    ],
)
async def test_a_response_is_minimal_if_preferred(
    client: Client, stage_type: str, prefer: list[str], *, minimal: bool
) -> None:
    """The tasks are created in order either way."""
    stage = await client.stage(await client.job(), stage_type)
    body = [{"data": {"number": number}} for number in range(3)]
    headers = [("Prefer", value) for value in prefer]
    response = await client.http.post(f"/v1/stages/{stage['id']}/tasks", json=body, headers=headers)
    tasks = (await client.read(stage))["tasks"]
    assert [task["data"]["number"] for task in tasks] == [0, 1, 2]
    assert (response.status_code, response.json()) == (201, {"created": 3} if minimal else tasks)
    assert response.headers.get("Preference-Applied") == ("return=minimal" if minimal else None)


async def test_a_minimal_claim_contains_what_a_worker_needs(client: Client, stage_type: str) -> None:
    """A minimal claim has the same values with each stage once, and a concurrent claim keeps its own format."""
    for name in ("a job", "another"):
        job = await client.job(name=name, data={"of": name})
        stage = await client.stage(job, stage_type, userMetadata={"of": name})
        retry = {"strategy": "fixed", "delaySeconds": 20}
        await client.tasks(stage, 4, userMetadata={"a": "note"}, timeoutSeconds=7, maxAttempts=2, retry=retry)
    path, request = f"/v1/stages/{stage_type}/tasks/claim", {"workerId": "worker", "limit": 4}
    claims = (client.http.post(path, json=request, headers=headers) for headers in ({}, {"Prefer": "return=minimal"}))
    full, minimal = await asyncio.gather(*claims)
    assert [answer.headers.get("Preference-Applied") for answer in (full, minimal)] == [None, "return=minimal"]
    assert minimal.json().keys() == {"tasks", "stages"}
    tasks, stages_of_tasks = minimal.json()["tasks"], minimal.json()["stages"]
    assert {task["id"] for task in tasks}.isdisjoint(task["id"] for task in full.json()["tasks"])
    for task in tasks:
        assert (task.pop("leaseId") > 0, task.pop("waitedSeconds") >= 0) == (True, True)
        assert task.items() <= (await client.read(task)).items()
    needed = {"id", "stageId", "data", "userMetadata", "attempts", "maxAttempts", "traceparent", "timeoutSeconds"}
    assert all(task.keys() == needed | {"retry"} for task in tasks)
    stages = {task["stageId"]: {"stage": task["stage"], "job": task["job"]} for task in full.json()["tasks"]}
    assert {len(tasks), len(stages_of_tasks), len(stages)} == {4, 1}
    assert {one["job"]["name"] for one in (*stages_of_tasks, *stages.values())} == {"a job", "another"}
    assert {name: one.keys() for name, one in stages_of_tasks[0].items()} == {
        name: one.keys() for stage in stages.values() for name, one in stage.items()
    }


async def test_a_minimal_report_response_lists_refused_reports(client: Client, stage_type: str) -> None:
    """Each refused report appears as in the full response, with its index."""
    await client.tasks(await client.stage(await client.job(), stage_type), 2)
    path, request = f"/v1/stages/{stage_type}/tasks/claim", {"workerId": "worker", "limit": 2}
    tasks = (await client.http.post(path, json=request)).json()["tasks"]
    reports = [{"taskId": task["id"], "leaseId": task["leaseId"], "outcome": "COMPLETED"} for task in tasks]
    wrong = [{**reports[0], "leaseId": 1_000_000}, {**reports[0], "outcome": "NEVER"}]
    body = {"workerId": "worker", "results": [reports[0], wrong[0], reports[1], wrong[1]]}
    _, full, minimal = [
        (await client.http.post("/v1/tasks/settle", json=body, headers=headers)).json()
        for headers in ({}, {}, {"Prefer": "return=minimal"})
    ]
    assert minimal == {"accepted": 2, "refused": [full["results"][index] | {"index": index} for index in (1, 3)]}


async def test_a_refusal_is_the_same_with_a_minimal_response(client: Client, stage_type: str) -> None:
    """An empty list creates no tasks, and a stage that has ended refuses tasks as usual."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    path, headers = f"/v1/stages/{stage['id']}/tasks", {"Prefer": "return=minimal"}
    assert (await client.http.post(path, json=[], headers=headers)).json() == {"created": 0}
    await client.move(job, "ABORTED")
    refused(await client.http.post(path, json=[], headers=headers), 400, "STAGE_IN_FINITE_STATE")
