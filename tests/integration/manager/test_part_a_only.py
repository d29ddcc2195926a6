"""A manager that serves part A alone is one that has never heard of part B."""

from collections.abc import AsyncGenerator, Generator
from typing import Any, NamedTuple

import httpx2
import pytest
from reference_manager.embedded import EmbeddedPostgres

from tests.support.protocol import Client, refused
from tests.support.worker import LeasedWorker, report
from tools.manager import ManagerProcess

COMMON = {
    "id",
    "status",
    "data",
    "userMetadata",
    "createdAt",
    "updatedAt",
    "creationTime",
    "updateTime",
    "traceparent",
}
JOB = COMMON | {"name", "priority", "percentage"}
STAGE = COMMON | {"jobId", "type", "order", "summary", "percentage", "startTime", "endTime"}
TASK = COMMON | {"stageId", "attempts", "maxAttempts", "startTime", "endTime"}

PATHS = (
    ("GET", "/v1/capabilities", 404),
    ("POST", "/v1/stages/x/tasks/claim", 404),
    ("POST", "/v1/tasks/settle", 405),  # the path of a task has GET
    ("POST", "/v1/workers/me/heartbeat", 404),
    ("GET", "/v1/workers", 404),
    ("DELETE", "/v1/workers/me", 404),
    ("GET", "/v1/queues/x/depth", 404),
    ("GET", "/v1/tasks/{id}/attempts", 404),
    ("GET", "/v1/jobs/{id}/history", 404),
)
PARAMETERS = (
    "/v1/jobs?limit=5",
    "/v1/stages?cursor=x",
    "/v1/tasks?limit=5",
    "/v1/jobs/{id}/stages?limit=5",
    "/v1/jobs/{id}?should_return_progress=true",
    "/v1/stages/{id}?should_return_progress=true",
)
ANY = "00000000-0000-7000-8000-000000000000"


class Managers(NamedTuple):
    """Two on one database."""

    alone: Client
    """Serves part A alone."""
    whole: Client


@pytest.fixture(scope="module")
def alone_url(postgres: EmbeddedPostgres, manager_url: str) -> Generator[str]:  # noqa: ARG001 - it made the database
    """The address of a manager that serves part A alone, beside the one that the session's tests share."""
    with ManagerProcess("--database-url", f"{postgres.url.rpartition('/')[0]}/shared", "--part-a-only") as manager:
        yield manager.url


@pytest.fixture
async def managers(alone_url: str, client: Client) -> AsyncGenerator[Managers]:
    """One that serves part A alone, and one that does not, on one database."""
    async with httpx2.AsyncClient(base_url=alone_url, timeout=15) as http:
        yield Managers(Client(http), client)


async def test_what_part_b_adds_is_unknown(managers: Managers) -> None:
    """Its paths are not there, its parameters and fields are refused, and the document has none of them."""
    http = managers.alone.http
    for method, path, status in PATHS:
        response = await http.request(method, path.format(id=ANY))
        refused(response, status, "NOT_FOUND" if status == 404 else "METHOD_NOT_ALLOWED")
    for path in PARAMETERS:
        response = await http.get(path.format(id=ANY))
        name = path.partition("?")[2].partition("=")[0]
        refused(response, 400, "VALIDATION_ERROR", f"query.{name}: Unknown parameter")

    job = await managers.alone.job()
    stage = await managers.alone.stage(job, "a")
    of_stage: dict[str, Any] = {"weight": 2, "taskDefaults": None}
    of_task: dict[str, Any] = {"timeoutSeconds": 5, "availableAt": "2026-01-31", "delaySeconds": 5, "retry": None}
    added: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
        (f"/v1/jobs/{job['id']}/stage", {"type": "b", "data": {}}, of_stage),
        (f"/v1/stages/{stage['id']}/tasks", {"data": {}}, of_task),
    )
    for path, body, fields in added:
        many = path.endswith("/tasks")
        for name, value in fields.items():
            wrong = body | {name: value}
            response = await http.post(path, json=[body, wrong] if many else wrong)
            place = f"body.1.{name}" if many else f"body.{name}"
            refused(response, 400, "VALIDATION_ERROR", f"{place}: Extra inputs are not permitted")
        no_json = await http.post(path, content=b"{", headers={"Content-Type": "application/json"})
        refused(no_json, 400, "VALIDATION_ERROR")
        assert (await http.post(path, json=[body] if many else body)).status_code == 201
    document = await http.get("/openapi.json")
    assert not [word for word in ('"/v1/capabilities"', '"x-part"') if word in document.text]


async def test_a_preference_is_ignored(managers: Managers, stage_type: str) -> None:
    """Whatever answer a client would prefer, it gets that of part A."""
    stage = await managers.alone.stage(await managers.alone.job(), stage_type)
    path, prefer = f"/v1/stages/{stage['id']}/tasks", {"Prefer": "return=minimal"}
    response = await managers.alone.http.post(path, json=[{"data": {}}], headers=prefer)
    assert "Preference-Applied" not in response.headers
    assert [set(task) for task in response.json()] == [TASK]


async def test_a_job_is_done_by_part_a(managers: Managers, stage_type: str) -> None:
    """From its creation to its end there is no difference."""
    client = managers.alone
    job = await client.job()
    stage = await client.stage(job, stage_type)
    await client.tasks(stage, 2)
    for _ in range(2):
        await client.settle(await client.claimed(stage_type))
    assert (await client.status(stage), await client.status(job)) == ("COMPLETED", "COMPLETED")


async def test_answers_have_nothing_of_part_b(managers: Managers, stage_type: str) -> None:
    """What another manager on the same database has set or heard is left out of every answer."""
    alone, whole = managers
    job = await whole.job()
    stage = await whole.stage(job, stage_type, weight=2, taskDefaults={"maxAttempts": 5})
    tasks = await whole.tasks(stage, 3, timeoutSeconds=600, retry={"strategy": "fixed", "delaySeconds": 0})
    worker = LeasedWorker(whole.http)
    first, second, third = await worker.claim(stage_type, 3)
    await worker.complete(first, result={"pages": 3})
    await worker.settle(report(second, "FAILED", error={"type": "Unreadable"}, checkpoint={"page": 2}))
    await worker.heartbeat(third | {"progress": {"fraction": 0.5}})
    assert set(await whole.read(stage)) == STAGE | {"tasks", "weight", "taskDefaults"}

    read = await alone.read(stage)
    assert (set(read), {"order", *read["summary"]}) == (STAGE | {"tasks"}, {"order", *stage["summary"]})
    (listed,) = (await alone.http.get(f"/v1/jobs/{job['id']}/stages")).json()
    assert set(listed) == STAGE
    shown = [*read["tasks"], *[await alone.read(task) for task in tasks], await alone.claimed(stage_type)]
    assert [set(task) for task in shown] == [TASK] * 7
    assert set(await alone.read(job)) == JOB | {"stages"}
