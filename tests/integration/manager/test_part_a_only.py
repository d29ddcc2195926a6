"""A manager that serves only part A behaves as the original does: as if part B did not exist."""

from collections.abc import AsyncGenerator, Generator
from typing import Any, NamedTuple

import httpx2
import pytest
from reference_manager.embedded import EmbeddedPostgres

from tests.support.protocol import Client, refused
from tests.support.worker import LeasedWorker, report
from tools.manager import ManagerProcess

COMMON_FIELDS = {
    "id",
    "status",
    "data",
    "userMetadata",
    "traceparent",
}
TIMES = {"creationTime", "updateTime"}
JOB_FIELDS = COMMON_FIELDS | TIMES | {"name", "priority", "percentage"}
STAGE_FIELDS = COMMON_FIELDS | {"jobId", "type", "order", "summary", "percentage"}
TASK_FIELDS = COMMON_FIELDS | TIMES | {"stageId", "attempts", "maxAttempts"}
SUMMARY_FIELDS = {"created", "pending", "inProgress", "completed", "failed", "retried", "total"}

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
    "/v1/jobs?page=1",
    "/v1/jobs?order=desc",
    "/v1/jobs?status=PENDING",
    "/v1/jobs?metadata=a:b",
    "/v1/tasks?page_size=5",
    "/v1/stages?cursor=x",
    "/v1/tasks?limit=5",
    "/v1/jobs/{id}/stages?limit=5",
    "/v1/jobs/{id}?should_return_progress=true",
    "/v1/stages/{id}?should_return_progress=true",
)
UNKNOWN_ID = "00000000-0000-7000-8000-000000000000"


class Managers(NamedTuple):
    """Two managers on one database."""

    part_a: Client
    """Serves only part A."""
    both_parts: Client


@pytest.fixture(scope="module")
def part_a_url(postgres: EmbeddedPostgres, manager_url: str) -> Generator[str]:  # noqa: ARG001 - it made the database
    """The address of a manager that serves only part A, on the database of the shared manager."""
    with ManagerProcess("--database-url", f"{postgres.url.rpartition('/')[0]}/shared", "--part-a-only") as manager:
        yield manager.url


@pytest.fixture
async def managers(part_a_url: str, client: Client) -> AsyncGenerator[Managers]:
    """A manager that serves only part A and one that serves both parts, on one database."""
    async with httpx2.AsyncClient(base_url=part_a_url, timeout=15) as http:
        yield Managers(Client(http), client)


async def test_idempotency_keys_are_ignored(managers: Managers) -> None:
    """As in the original, every request creates a job, whatever its header is."""
    for key in ("a key", "a key", 256 * "x"):
        headers = {"Idempotency-Key": key}
        for length in (1, 100_000):  # the hot path and the framework
            body = {"name": "keyed", "data": {"text": length * "x"}}
            response = await managers.part_a.http.post("/v1/jobs", json=body, headers=headers)
            assert response.status_code == 201
    listed = await managers.part_a.http.get("/v1/jobs", params={"job_name": "keyed"})
    assert len({job["id"] for job in listed.json()}) == 6


async def test_additions_of_part_b_are_unknown(managers: Managers) -> None:
    """The paths of part B do not exist, its parameters and fields are refused, and the document has none of them."""
    http = managers.part_a.http
    for method, path, status in PATHS:
        response = await http.request(method, path.format(id=UNKNOWN_ID))
        refused(response, status, "NOT_FOUND" if status == 404 else "METHOD_NOT_ALLOWED")
    for path in PARAMETERS:
        response = await http.get(path.format(id=UNKNOWN_ID))
        name = path.partition("?")[2].partition("=")[0]
        refused(response, 400, "VALIDATION_ERROR", f"Unknown query parameter '{name}'")
    for path in ("/v1/tasks?status=PENDING,FAILED", "/v1/tasks?status=PENDING&status=FAILED"):
        refused(await http.get(path), 400, "VALIDATION_ERROR")

    job = await managers.part_a.job()
    stage = await managers.part_a.stage(job, "a")
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
            location = f"body.1.{name}" if many else f"body.{name}"
            refused(response, 400, "VALIDATION_ERROR", f"{location}: Extra inputs are not permitted")
        no_json = await http.post(path, content=b"{", headers={"Content-Type": "application/json"})
        refused(no_json, 400, "VALIDATION_ERROR")
        assert (await http.post(path, json=[body] if many else body)).status_code == 201
    document = await http.get("/openapi.json")
    words = ('"/v1/capabilities"', '"x-part"', '"createdAt"', "JobPage", "Idempotency-Key", '"422"')
    assert not [word for word in words if word in document.text]


async def test_a_preference_is_ignored(managers: Managers, stage_type: str) -> None:
    """Whatever response a client prefers, it gets the one of part A."""
    stage = await managers.part_a.stage(await managers.part_a.job(), stage_type)
    path, prefer = f"/v1/stages/{stage['id']}/tasks", {"Prefer": "return=minimal"}
    response = await managers.part_a.http.post(path, json=[{"data": {}}], headers=prefer)
    assert "Preference-Applied" not in response.headers
    assert [set(task) for task in response.json()] == [TASK_FIELDS]


async def test_a_job_can_be_completed_with_part_a(managers: Managers, stage_type: str) -> None:
    """A job takes the same course from its creation to its end."""
    client = managers.part_a
    job = await client.job()
    stage = await client.stage(job, stage_type)
    await client.tasks(stage, 2)
    for _ in range(2):
        await client.settle(await client.claimed(stage_type))
    assert (await client.status(stage), await client.status(job)) == ("COMPLETED", "COMPLETED")


async def test_responses_contain_nothing_of_part_b(managers: Managers, stage_type: str) -> None:
    """Values that another manager on the same database has stored are left out of every response."""
    part_a, both_parts = managers
    job = await both_parts.job()
    stage = await both_parts.stage(job, stage_type, weight=2, taskDefaults={"maxAttempts": 5})
    tasks = await both_parts.tasks(stage, 3, timeoutSeconds=600, retry={"strategy": "fixed", "delaySeconds": 0})
    worker = LeasedWorker(both_parts.http)
    first, second, third = await worker.claim(stage_type, 3)
    await worker.complete(first, result={"pages": 3})
    await worker.settle(report(second, "FAILED", error={"type": "Unreadable"}, checkpoint={"page": 2}))
    await worker.heartbeat(third | {"progress": {"fraction": 0.5}})
    more = {"createdAt", "updatedAt", "startTime", "endTime", "weight", "taskDefaults"}
    assert set(await both_parts.read(stage)) == STAGE_FIELDS | TIMES | {"tasks"} | more

    read = await part_a.read(stage)
    assert (set(read), set(read["summary"])) == (STAGE_FIELDS | {"tasks"}, SUMMARY_FIELDS)
    assert set((await part_a.http.get(f"/v1/stages/{stage['id']}/summary")).json()) == SUMMARY_FIELDS
    (listed,) = (await part_a.http.get(f"/v1/jobs/{job['id']}/stages")).json()
    assert set(listed) == STAGE_FIELDS
    shown = [*read["tasks"], *[await part_a.read(task) for task in tasks], await part_a.claimed(stage_type)]
    begun = TASK_FIELDS | {"startTime"}
    assert [set(task) for task in shown] == [begun | {"endTime"}, begun, begun] * 2 + [begun]
    assert set(await part_a.read(job)) == JOB_FIELDS | {"stages"}
