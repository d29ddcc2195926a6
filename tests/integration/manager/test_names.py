"""Names that are part of a path: stage types and worker ids."""

from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.support.protocol import Client, refused
from tests.support.worker import report

UNREACHABLE = (".", "..")
"""Clients and proxies remove these segments from a path, even if they are percent-encoded."""

REACHABLE = (
    *("...", ".a", "a.", "a/../b", "/", "//", "../..", "./", "%2E", "%2e%2e", "%", "%2F", "%zz", "?", "a?b=c", "#"),
    *(
        " ",
        " . ",
        "\t",
        "\n",
        "+",
        "&",
        ";",
        "\\",
        '"',
        "'",
        "tasks",
        "claim",
        "é",
        "日本",
        "\N{PILE OF POO}",
        "\u202e",
    ),
)


@pytest.mark.parametrize("name", UNREACHABLE)
async def test_unreachable_stage_types_are_refused_at_creation(client: Client, name: str) -> None:
    """A stage that no worker could claim from is not created, neither alone nor with its job."""
    job = await client.job()
    stage: dict[str, Any] = {"type": name, "data": {}}
    tree: dict[str, Any] = {"name": "a job", "data": {}, "stages": [{"type": "a", "data": {}}, stage]}
    message = "must not be . or .., which cannot be part of a URL"
    for path, body, where in (
        (f"/v1/jobs/{job['id']}/stage", stage, "body.type"),
        ("/v1/jobs", tree, "body.stages.1.type"),
    ):
        refused(await client.http.post(path, json=body), 400, "VALIDATION_ERROR", f"{where}: {message}")
    assert (await client.read(job))["stages"] == []


@pytest.mark.parametrize("name", UNREACHABLE)
async def test_unreachable_workers_are_refused(client: Client, stage_type: str, name: str) -> None:
    """A worker that could not send a heartbeat gets no tasks."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    response = await client.http.post(f"/v1/stages/{stage_type}/tasks/claim", json={"workerId": name})
    refused(response, 400, "VALIDATION_ERROR", "body.workerId: must not be . or .., which cannot be part of a URL")
    assert (await client.claimed(stage_type))["status"] == "IN_PROGRESS"


@pytest.mark.parametrize("name", UNREACHABLE)
async def test_existing_stages_stay_readable(http_of_own: httpx2.AsyncClient, connection: Any, name: str) -> None:  # noqa: ANN401 - asyncpg's
    """A stage of an earlier version is listed, filtered and described."""
    client = Client(http_of_own)
    job = await client.job()
    stage = await client.stage(job, "renamed")
    await client.tasks(stage, 2)
    await connection.execute("UPDATE stages SET type = $1", name)
    assert (await client.read(stage))["type"] == name
    assert [one["type"] for one in (await client.read(job))["stages"]] == [name]
    for path in (f"/v1/stages?stage_type={name}", f"/v1/stages?job_id={job['id']}", f"/v1/jobs/{job['id']}/stages"):
        assert [one["type"] for one in (await http_of_own.get(path)).json()] == [name]
    assert len((await http_of_own.get(f"/v1/tasks?stage_type={name}")).json()) == 2
    assert (await http_of_own.get(f"/v1/stages/{stage['id']}/summary")).json()["pending"] == 2
    await client.move(job, "ABORTED")
    assert (await http_of_own.delete(f"/v1/jobs/{job['id']}")).status_code == 200


@pytest.mark.parametrize("name", REACHABLE)
async def test_every_other_name_works_everywhere(client: Client, stage_type: str, name: str) -> None:
    """Stage types and worker ids with any characters reach every endpoint, and are answered unchanged."""
    job = await client.job(name=f"{name}{stage_type}"[:50])
    stage = await client.stage(job, name, userMetadata={"test": stage_type})
    await client.tasks(stage, 3)
    segment, worker = quote(name, safe=""), quote(f"{name}{stage_type}", safe="")
    post, get = client.http.post, client.http.get

    listed = (
        await get("/v1/stages", params={"stage_type": name, "metadata": f"test:{stage_type}", "limit": "500"})
    ).json()
    assert [(one["id"], one["type"]) for one in listed] == [(stage["id"], name)]
    tasks = (await get("/v1/tasks", params={"stage_type": name, "stage_id": stage["id"], "limit": "2"})).json()
    assert len(tasks) == 2
    assert [one["id"] for one in (await get("/v1/jobs", params={"job_name": job["name"]})).json()] == [job["id"]]
    assert (await get(f"/v1/queues/{segment}/depth")).json()["waiting"] == 3

    assert (await client.claimed(segment))["stageId"] == stage["id"]
    claim = {"workerId": f"{name}{stage_type}", "limit": 2}
    first, second = (await post(f"/v1/stages/{segment}/tasks/claim", json=claim)).json()["tasks"]
    assert first["stage"]["type"] == name
    running = [{"taskId": first["id"], "leaseId": first["leaseId"]}]
    heartbeat = {"stageTypes": [name], "running": running}
    orders = await post(f"/v1/workers/{worker}/heartbeat", json=heartbeat)
    assert orders.json() == {"lost": [], "cancel": [], "drain": False}
    drained = (await client.http.put(f"/v1/workers/{worker}", json={"drain": True})).json()
    assert (drained["id"], drained["stageTypes"]) == (claim["workerId"], [name])
    settled = {"workerId": claim["workerId"], "results": [report(first, "COMPLETED")]}
    assert (await post("/v1/tasks/settle", json=settled)).json()["results"][0]["accepted"]
    assert (await client.http.delete(f"/v1/workers/{worker}")).status_code == 200
    assert (await client.read(second))["status"] == "PENDING"
    await client.move(job, "ABORTED")
