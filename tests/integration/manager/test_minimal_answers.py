"""Tasks whose creator does not want them back."""

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
async def test_the_answer_is_as_short_as_preferred(
    client: Client, stage_type: str, prefer: list[str], *, minimal: bool
) -> None:
    """The tasks are there either way, in their order."""
    stage = await client.stage(await client.job(), stage_type)
    body = [{"data": {"number": number}} for number in range(3)]
    headers = [("Prefer", value) for value in prefer]
    response = await client.http.post(f"/v1/stages/{stage['id']}/tasks", json=body, headers=headers)
    tasks = (await client.read(stage))["tasks"]
    assert [task["data"]["number"] for task in tasks] == [0, 1, 2]
    assert (response.status_code, response.json()) == (201, {"created": 3} if minimal else tasks)
    assert response.headers.get("Preference-Applied") == ("return=minimal" if minimal else None)


async def test_a_claim_tells_what_the_worker_needs(client: Client, stage_type: str) -> None:
    """It is the same as in full, with stages and jobs once for all tasks; who claims at once gets it in his own way."""
    for name in ("a job", "another"):
        job = await client.job(name=name, data={"of": name})
        stage = await client.stage(job, stage_type, userMetadata={"of": name})
        await client.tasks(stage, 4, userMetadata={"a": "note"}, timeoutSeconds=7, maxAttempts=2)
    path, wish = f"/v1/stages/{stage_type}/tasks/claim", {"workerId": "worker", "limit": 4}
    claims = (client.http.post(path, json=wish, headers=headers) for headers in ({}, {"Prefer": "return=minimal"}))
    full, brief = await asyncio.gather(*claims)
    assert [answer.headers.get("Preference-Applied") for answer in (full, brief)] == [None, "return=minimal"]
    assert brief.json().keys() == {"tasks", "stages"}
    told, around = brief.json()["tasks"], brief.json()["stages"]
    assert {task["id"] for task in told}.isdisjoint(task["id"] for task in full.json()["tasks"])
    for task in told:
        assert (task.pop("leaseId") > 0, task.pop("waitedSeconds") >= 0) == (True, True)
        assert task.items() <= (await client.read(task)).items()
    needed = {"id", "stageId", "data", "userMetadata", "attempts", "maxAttempts", "traceparent", "timeoutSeconds"}
    assert all(task.keys() == needed for task in told)
    stages = {task["stageId"]: {"stage": task["stage"], "job": task["job"]} for task in full.json()["tasks"]}
    assert {len(told), len(around), len(stages)} == {4, 1}
    assert {one["job"]["name"] for one in (*around, *stages.values())} == {"a job", "another"}
    assert {name: one.keys() for name, one in around[0].items()} == {
        name: one.keys() for stage in stages.values() for name, one in stage.items()
    }


async def test_reports_are_answered_by_those_refused(client: Client, stage_type: str) -> None:
    """Each stands there as it would among all, with its place."""
    await client.tasks(await client.stage(await client.job(), stage_type), 2)
    path, wish = f"/v1/stages/{stage_type}/tasks/claim", {"workerId": "worker", "limit": 2}
    tasks = (await client.http.post(path, json=wish)).json()["tasks"]
    reports = [{"taskId": task["id"], "leaseId": task["leaseId"], "outcome": "COMPLETED"} for task in tasks]
    wrong = [{**reports[0], "leaseId": 1_000_000}, {**reports[0], "outcome": "NEVER"}]
    body = {"workerId": "worker", "results": [reports[0], wrong[0], reports[1], wrong[1]]}
    _, full, brief = [
        (await client.http.post("/v1/tasks/settle", json=body, headers=headers)).json()
        for headers in ({}, {}, {"Prefer": "return=minimal"})
    ]
    assert brief == {"accepted": 2, "refused": [full["results"][place] | {"index": place} for place in (1, 3)]}


async def test_a_refusal_is_the_same(client: Client, stage_type: str) -> None:
    """None are created as well as any; what has ended takes none."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    path, headers = f"/v1/stages/{stage['id']}/tasks", {"Prefer": "return=minimal"}
    assert (await client.http.post(path, json=[], headers=headers)).json() == {"created": 0}
    await client.move(job, "ABORTED")
    refused(await client.http.post(path, json=[], headers=headers), 400, "STAGE_IN_FINITE_STATE")
