"""Everything that the manager refuses, each with its status and code, and nothing done."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.protocol import Client, refused

NOBODY = "00000000-0000-4000-8000-000000000000"
JOB = dict[str, Any](name="a job", data={})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/v1/jobs/{NOBODY}", None),
        ("DELETE", f"/v1/jobs/{NOBODY}", None),
        ("PATCH", f"/v1/jobs/{NOBODY}/user-metadata", {}),
        ("PATCH", f"/v1/jobs/{NOBODY}/priority", {"priority": "LOW"}),
        ("PUT", f"/v1/jobs/{NOBODY}/status", {"status": "PAUSED"}),
        ("GET", f"/v1/jobs/{NOBODY}/stages", None),
        ("POST", f"/v1/jobs/{NOBODY}/stage", {"type": "x", "data": {}}),
        ("GET", f"/v1/stages/{NOBODY}", None),
        ("GET", f"/v1/stages/{NOBODY}/summary", None),
        ("PATCH", f"/v1/stages/{NOBODY}/user-metadata", {}),
        ("PUT", f"/v1/stages/{NOBODY}/status", {"status": "PENDING"}),
        ("GET", f"/v1/stages/{NOBODY}/tasks", None),
        ("POST", f"/v1/stages/{NOBODY}/tasks", []),
        ("GET", f"/v1/tasks/{NOBODY}", None),
        ("PATCH", f"/v1/tasks/{NOBODY}/user-metadata", {}),
        ("PUT", f"/v1/tasks/{NOBODY}/status", {"status": "COMPLETED"}),
    ],
)
async def test_what_does_not_exist_is_not_found(client: Client, method: str, path: str, body: Any) -> None:  # noqa: ANN401 - any JSON
    """Each entity has its own code."""
    entity = path.split("/")[2].removesuffix("s").upper()
    refused(await client.http.request(method, path, json=body), 404, f"{entity}_NOT_FOUND")


BAD: list[tuple[str, str, Any]] = [
    ("POST", "/v1/jobs", {"data": {}}),
    ("POST", "/v1/jobs", JOB | {"name": "x"}),
    ("POST", "/v1/jobs", JOB | {"name": "x" * 51}),
    ("POST", "/v1/jobs", JOB | {"name": "nul\u0000"}),
    ("POST", "/v1/jobs", JOB | {"name": 12}),
    ("POST", "/v1/jobs", JOB | {"data": []}),
    ("POST", "/v1/jobs", JOB | {"priority": "URGENT"}),
    ("POST", "/v1/jobs", JOB | {"userMetadata": None}),
    ("POST", "/v1/jobs", JOB | {"traceparent": "00-x"}),
    ("POST", "/v1/jobs", JOB | {"status": "COMPLETED"}),
    ("POST", "/v1/jobs", []),
    ("GET", "/v1/jobs?unknown=1", None),
    ("GET", "/v1/jobs?from_date=yesterday", None),
    ("GET", "/v1/jobs?from_date=1700000000", None),
    ("GET", "/v1/jobs?end_date=2026-13-01T00:00:00Z", None),
    ("GET", "/v1/jobs?from_date=0001-01-01T00:00:00%2B14:00", None),
    ("GET", "/v1/jobs?priority=URGENT", None),
    ("GET", "/v1/jobs?should_return_stages=perhaps", None),
    ("GET", "/v1/jobs/not-an-id", None),
    ("GET", f"/v1/jobs/{NOBODY}?unknown=1", None),
    ("PUT", f"/v1/jobs/{NOBODY}/status", {"status": "COMPLETED"}),
    ("PUT", f"/v1/jobs/{NOBODY}/status", {"status": "nonsense"}),
    ("PATCH", f"/v1/jobs/{NOBODY}/priority", {}),
    ("PATCH", f"/v1/jobs/{NOBODY}/user-metadata", []),
    ("POST", f"/v1/jobs/{NOBODY}/stage", {"type": "", "data": {}}),
    ("POST", f"/v1/jobs/{NOBODY}/stage", {"type": "x" * 51, "data": {}}),
    ("POST", f"/v1/jobs/{NOBODY}/stage", {"type": "x", "data": {}, "unknown": 1}),
    ("POST", f"/v1/jobs/{NOBODY}/stage", {"type": "x", "data": {}, "startAsWaiting": "yes"}),
    ("PUT", f"/v1/stages/{NOBODY}/status", {"status": "WAITING"}),
    ("GET", "/v1/stages?job_id=1", None),
    ("GET", "/v1/stages?stage_operation_status=RETRIED", None),
    ("POST", f"/v1/stages/{NOBODY}/tasks", {"data": {}}),
    ("POST", f"/v1/stages/{NOBODY}/tasks", [{"data": {}, "maxAttempts": 0}]),
    ("POST", f"/v1/stages/{NOBODY}/tasks", [{"data": {}, "maxAttempts": "3"}]),
    ("POST", f"/v1/stages/{NOBODY}/tasks", [{"data": {}, "maxAttempts": 2**31}]),
    ("POST", f"/v1/stages/{NOBODY}/tasks", [{"data": {}}, {"payload": {}}]),
    ("PATCH", f"/v1/stages/{'x' * 51}/tasks/dequeue", None),
    ("PATCH", "/v1/stages/x/tasks/dequeue?limit=2", None),
    ("PATCH", "/v1/stages/%00/tasks/dequeue", None),
    ("PUT", f"/v1/tasks/{NOBODY}/status", {"status": "RETRIED"}),
    ("PUT", f"/v1/tasks/{NOBODY}/status", {"status": "COMPLETED", "unknown": 1}),
    ("PUT", "/v1/tasks/not-an-id/status", {"status": "COMPLETED"}),
    ("PUT", f"/v1/tasks/{NOBODY}/status", {}),
    ("GET", "/v1/tasks?status=DONE", None),
    ("GET", "/liveness?x=1", None),
]


@pytest.mark.parametrize(("method", "path", "body"), BAD)
async def test_bad_input_is_refused(client: Client, method: str, path: str, body: Any) -> None:  # noqa: ANN401 - any JSON
    """Whatever is not as the protocol says is a validation error, before anything is looked up."""
    refused(await client.http.request(method, path, json=body), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "a job", "data": {"n": NaN}}',
        '{"name": "a job", "data": {"n": 1e999}}',
        '{"name": "a job", "data": {"s": "\\ud800"}}',
        '{"name": "a job", "data": ' + '{"a":' * 500 + "1" + "}" * 501,
        '{"name": "a job"',
        "",
    ],
)
async def test_loose_json_is_refused(client: Client, text: str) -> None:
    """NaN, infinite numbers, half characters, bottomless nesting and broken text are validation errors."""
    response = await client.http.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    refused(response, 400, "VALIDATION_ERROR")


async def test_the_refusal_names_the_field(client: Client) -> None:
    """Whoever reads the message knows what to change."""
    response = await client.http.post("/v1/jobs", json=JOB | {"name": "x"})
    refused(response, 400, "VALIDATION_ERROR", "body.name: String should have at least 2 characters")
    response = await client.http.post(f"/v1/stages/{NOBODY}/tasks", json=[{"data": {}}, {"data": {}, "maxAttempts": 0}])
    assert response.json()["message"].startswith("body.1.maxAttempts: ")


async def test_a_body_that_is_not_json_is_refused(client: Client) -> None:
    """Where there is a body its media type must say JSON."""
    for headers in ({"Content-Type": "text/plain"}, {}):
        response = await client.http.post("/v1/jobs", content=b'{"name": "a job", "data": {}}', headers=headers)
        refused(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    path = f"/v1/tasks/{NOBODY}/status"
    response = await client.http.put(path, content=b'{"status": "COMPLETED"}', headers={"Content-Type": "text/plain"})
    refused(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    response = await client.http.put(
        path, content=b'{"status": "COMPLETED"}', headers={"Content-Type": "application/json; charset=utf-8"}
    )
    refused(response, 404, "TASK_NOT_FOUND")


async def test_a_body_over_the_limit_is_refused(client: Client) -> None:
    """More than the limit is 413, whether or not its length was announced."""
    large = b'{"name": "a job", "data": {"text": "%s"}}' % (b"x" * 1024 * 1024)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 100_000):
            yield large[start : start + 100_000]

    headers = {"Content-Type": "application/json"}
    for response in (
        await client.http.post("/v1/jobs", content=large, headers=headers),
        await client.http.post("/v1/jobs", content=chunks(), headers=headers),
    ):
        refused(response, 413, "BODY_TOO_LARGE")


async def test_http_is_spoken_as_it_should_be(client: Client) -> None:
    """Unknown paths and wrong methods have the error shape, HEAD is GET without a body, OPTIONS lists the methods."""
    refused(await client.http.get("/v2/jobs"), 404, "NOT_FOUND")
    response = await client.http.delete("/v1/jobs")
    refused(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    response = await client.http.options("/v1/jobs")
    assert (response.status_code, response.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    response = await client.http.head("/liveness")
    assert (response.status_code, response.content) == (200, b"")
    refused(await client.http.get("/v1/stages/x/tasks/dequeue"), 405, "METHOD_NOT_ALLOWED")


async def test_illegal_moves_of_a_job_are_refused(client: Client, stage_type: str) -> None:
    """Each says from where to where, and the job stays where it is."""
    job = await client.job()
    path = f"/v1/jobs/{job['id']}/status"

    async def try_to(status: str, source: str) -> None:
        response = await client.http.put(path, json={"status": status})
        message = f"Illegal status transition from {source} to {status}"
        refused(response, 400, "ILLEGAL_JOB_STATUS_TRANSITION", message)
        assert await client.status(job) == source

    await try_to("PENDING", "PENDING")
    await client.move(job, "PAUSED")
    await try_to("PAUSED", "PAUSED")
    await client.move(job, "ABORTED")
    for status in ("PENDING", "PAUSED", "ABORTED"):
        await try_to(status, "ABORTED")

    job = await client.job()
    path = f"/v1/jobs/{job['id']}/status"
    await client.tasks(await client.stage(job, stage_type), 1)
    await client.settle(await client.claimed(stage_type))
    await try_to("ABORTED", "COMPLETED")


async def test_nothing_is_added_to_what_has_ended(client: Client, stage_type: str) -> None:
    """A job and a stage that have ended take no stages and no tasks."""
    job = await client.job()
    stage, later = await client.stage(job, stage_type), await client.stage(job, stage_type)
    await client.tasks(stage, 1, maxAttempts=1)
    await client.settle(await client.claimed(stage_type), "FAILED")
    response = await client.http.post(f"/v1/jobs/{job['id']}/stage", json={"type": stage_type, "data": {}})
    refused(response, 400, "JOB_IN_FINITE_STATE")
    for ended in (stage, later):
        response = await client.http.post(f"/v1/stages/{ended['id']}/tasks", json=[{"data": {}}])
        refused(response, 400, "STAGE_IN_FINITE_STATE")


async def test_a_job_at_work_is_not_deleted(client: Client) -> None:
    """It must end first."""
    job = await client.job()
    refused(await client.http.delete(f"/v1/jobs/{job['id']}"), 400, "JOB_NOT_IN_FINITE_STATE")
    assert await client.status(job) == "PENDING"


async def test_a_stage_does_not_start_before_its_turn(client: Client, stage_type: str) -> None:
    """The stage before it must be COMPLETED; and what is under way or over is not released."""
    job = await client.job()
    first = await client.stage(job, stage_type)
    waiting, created = await client.stage(job, stage_type, startAsWaiting=True), await client.stage(job, stage_type)
    code = "ILLEGAL_STAGE_STATUS_TRANSITION"
    for stage in (waiting, created):
        response = await client.http.put(f"/v1/stages/{stage['id']}/status", json={"status": "PENDING"})
        refused(response, 400, code, "Previous stage is not COMPLETED")
    await client.tasks(first, 1)
    task = await client.claimed(stage_type)
    response = await client.http.put(f"/v1/stages/{first['id']}/status", json={"status": "PENDING"})
    refused(response, 400, code, "Illegal status transition from IN_PROGRESS to PENDING")
    await client.settle(task)
    assert await client.status(waiting) == "WAITING"


async def test_only_tasks_in_progress_are_settled(client: Client, stage_type: str) -> None:
    """A task that waits, or has ended, cannot be reported."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    (task,) = await client.tasks(stage, 1)
    path = f"/v1/tasks/{task['id']}/status"

    async def try_to(status: str, source: str) -> None:
        response = await client.http.put(path, json={"status": status})
        message = f"Illegal status transition from {source} to {status}"
        refused(response, 400, "ILLEGAL_TASK_STATUS_TRANSITION", message)

    await try_to("COMPLETED", "PENDING")
    await client.settle(await client.claimed(stage_type), "FAILED")
    await try_to("FAILED", "RETRIED")
    await client.settle(await client.claimed(stage_type))
    await try_to("COMPLETED", "COMPLETED")
    await try_to("FAILED", "COMPLETED")
