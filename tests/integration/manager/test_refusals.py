"""Requests that the manager refuses, each with its status and code and without effect."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.protocol import Client, refused

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
JOB = dict[str, Any](name="a job", data={})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/v1/jobs/{UNKNOWN_ID}", None),
        ("DELETE", f"/v1/jobs/{UNKNOWN_ID}", None),
        ("PATCH", f"/v1/jobs/{UNKNOWN_ID}/user-metadata", {}),
        ("PATCH", f"/v1/jobs/{UNKNOWN_ID}/priority", {"priority": "LOW"}),
        ("PUT", f"/v1/jobs/{UNKNOWN_ID}/status", {"status": "PAUSED"}),
        ("GET", f"/v1/jobs/{UNKNOWN_ID}/stages", None),
        ("POST", f"/v1/jobs/{UNKNOWN_ID}/stage", {"type": "x", "data": {}}),
        ("GET", f"/v1/stages/{UNKNOWN_ID}", None),
        ("GET", f"/v1/stages/{UNKNOWN_ID}/summary", None),
        ("PATCH", f"/v1/stages/{UNKNOWN_ID}/user-metadata", {}),
        ("PUT", f"/v1/stages/{UNKNOWN_ID}/status", {"status": "PENDING"}),
        ("GET", f"/v1/stages/{UNKNOWN_ID}/tasks", None),
        ("POST", f"/v1/stages/{UNKNOWN_ID}/tasks", []),
        ("GET", f"/v1/tasks/{UNKNOWN_ID}", None),
        ("PATCH", f"/v1/tasks/{UNKNOWN_ID}/user-metadata", {}),
        ("PUT", f"/v1/tasks/{UNKNOWN_ID}/status", {"status": "COMPLETED"}),
    ],
)
async def test_an_unknown_entity_is_not_found(client: Client, method: str, path: str, body: Any) -> None:  # noqa: ANN401 - any JSON
    """Each kind of entity has its own code."""
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
    ("GET", f"/v1/jobs/{UNKNOWN_ID}?unknown=1", None),
    ("PUT", f"/v1/jobs/{UNKNOWN_ID}/status", {"status": "COMPLETED"}),
    ("PUT", f"/v1/jobs/{UNKNOWN_ID}/status", {"status": "nonsense"}),
    ("PATCH", f"/v1/jobs/{UNKNOWN_ID}/priority", {}),
    ("PATCH", f"/v1/jobs/{UNKNOWN_ID}/user-metadata", []),
    ("POST", f"/v1/jobs/{UNKNOWN_ID}/stage", {"type": "", "data": {}}),
    ("POST", f"/v1/jobs/{UNKNOWN_ID}/stage", {"type": "x" * 51, "data": {}}),
    ("POST", f"/v1/jobs/{UNKNOWN_ID}/stage", {"type": "x", "data": {}, "unknown": 1}),
    ("POST", f"/v1/jobs/{UNKNOWN_ID}/stage", {"type": "x", "data": {}, "startAsWaiting": "yes"}),
    ("PUT", f"/v1/stages/{UNKNOWN_ID}/status", {"status": "WAITING"}),
    ("GET", "/v1/stages?job_id=1", None),
    ("GET", "/v1/stages?stage_operation_status=RETRIED", None),
    ("POST", f"/v1/stages/{UNKNOWN_ID}/tasks", {"data": {}}),
    ("POST", f"/v1/stages/{UNKNOWN_ID}/tasks", [{"data": {}, "maxAttempts": 0}]),
    ("POST", f"/v1/stages/{UNKNOWN_ID}/tasks", [{"data": {}, "maxAttempts": "3"}]),
    ("POST", f"/v1/stages/{UNKNOWN_ID}/tasks", [{"data": {}, "maxAttempts": 2**31}]),
    ("POST", f"/v1/stages/{UNKNOWN_ID}/tasks", [{"data": {}}, {"payload": {}}]),
    ("PATCH", f"/v1/stages/{'x' * 51}/tasks/dequeue", None),
    ("PATCH", "/v1/stages/x/tasks/dequeue?limit=2", None),
    ("PATCH", "/v1/stages/%00/tasks/dequeue", None),
    ("PUT", f"/v1/tasks/{UNKNOWN_ID}/status", {"status": "RETRIED"}),
    ("PUT", f"/v1/tasks/{UNKNOWN_ID}/status", {"status": "COMPLETED", "unknown": 1}),
    ("PUT", "/v1/tasks/not-an-id/status", {"status": "COMPLETED"}),
    ("PUT", f"/v1/tasks/{UNKNOWN_ID}/status", {}),
    ("GET", "/v1/tasks?status=DONE", None),
    ("GET", "/liveness?x=1", None),
]


@pytest.mark.parametrize(("method", "path", "body"), BAD)
async def test_invalid_input_is_refused(client: Client, method: str, path: str, body: Any) -> None:  # noqa: ANN401 - any JSON
    """Input that violates the protocol is a validation error, before any entity is looked up."""
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
async def test_invalid_json_is_refused(client: Client, text: str) -> None:
    """NaN, infinite numbers, lone surrogates, excessive nesting and invalid text are validation errors."""
    response = await client.http.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    refused(response, 400, "VALIDATION_ERROR")


async def test_a_refusal_names_the_field(client: Client) -> None:
    """The message names the field to correct."""
    response = await client.http.post("/v1/jobs", json=JOB | {"name": "x"})
    refused(response, 400, "VALIDATION_ERROR", "body.name: String should have at least 2 characters")
    response = await client.http.post(
        f"/v1/stages/{UNKNOWN_ID}/tasks", json=[{"data": {}}, {"data": {}, "maxAttempts": 0}]
    )
    assert response.json()["message"].startswith("body.1.maxAttempts: ")


async def test_a_body_that_is_not_json_is_refused(client: Client) -> None:
    """A request with a body must have a JSON media type."""
    for headers in ({"Content-Type": "text/plain"}, {}):
        response = await client.http.post("/v1/jobs", content=b'{"name": "a job", "data": {}}', headers=headers)
        refused(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    path = f"/v1/tasks/{UNKNOWN_ID}/status"
    response = await client.http.put(path, content=b'{"status": "COMPLETED"}', headers={"Content-Type": "text/plain"})
    refused(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    response = await client.http.put(
        path, content=b'{"status": "COMPLETED"}', headers={"Content-Type": "application/json; charset=utf-8"}
    )
    refused(response, 404, "TASK_NOT_FOUND")


async def test_a_body_over_the_limit_is_refused(client: Client) -> None:
    """A body over the limit is answered 413, with or without an announced length."""
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


async def test_http_errors_and_methods_follow_the_standard(client: Client) -> None:
    """Unknown paths and wrong methods get the error format, HEAD has no body, and OPTIONS lists the methods."""
    refused(await client.http.get("/v2/jobs"), 404, "NOT_FOUND")
    response = await client.http.delete("/v1/jobs")
    refused(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    response = await client.http.options("/v1/jobs")
    assert (response.status_code, response.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    response = await client.http.head("/liveness")
    assert (response.status_code, response.content) == (200, b"")
    refused(await client.http.get("/v1/stages/x/tasks/dequeue"), 405, "METHOD_NOT_ALLOWED")


async def test_illegal_transitions_of_a_job_are_refused(client: Client, stage_type: str) -> None:
    """The refusal names both statuses, and the job keeps its status."""
    job = await client.job()
    path = f"/v1/jobs/{job['id']}/status"

    async def check_refused(status: str, source: str) -> None:
        response = await client.http.put(path, json={"status": status})
        message = f"Illegal status transition from {source} to {status}"
        refused(response, 400, "ILLEGAL_JOB_STATUS_TRANSITION", message)
        assert await client.status(job) == source

    await check_refused("PENDING", "PENDING")
    await client.move(job, "PAUSED")
    await check_refused("PAUSED", "PAUSED")
    await client.move(job, "ABORTED")
    for status in ("PENDING", "PAUSED", "ABORTED"):
        await check_refused(status, "ABORTED")

    job = await client.job()
    path = f"/v1/jobs/{job['id']}/status"
    await client.tasks(await client.stage(job, stage_type), 1)
    await client.settle(await client.claimed(stage_type))
    await check_refused("ABORTED", "COMPLETED")


async def test_nothing_can_be_added_to_what_has_ended(client: Client, stage_type: str) -> None:
    """A finished job accepts no stages, and a finished stage accepts no tasks."""
    job = await client.job()
    stage, later = await client.stage(job, stage_type), await client.stage(job, stage_type)
    await client.tasks(stage, 1, maxAttempts=1)
    await client.settle(await client.claimed(stage_type), "FAILED")
    response = await client.http.post(f"/v1/jobs/{job['id']}/stage", json={"type": stage_type, "data": {}})
    refused(response, 400, "JOB_IN_FINITE_STATE")
    for ended in (stage, later):
        response = await client.http.post(f"/v1/stages/{ended['id']}/tasks", json=[{"data": {}}])
        refused(response, 400, "STAGE_IN_FINITE_STATE")


async def test_an_unfinished_job_is_not_deleted(client: Client) -> None:
    """A job can be deleted only after it has ended."""
    job = await client.job()
    refused(await client.http.delete(f"/v1/jobs/{job['id']}"), 400, "JOB_NOT_IN_FINITE_STATE")
    assert await client.status(job) == "PENDING"


async def test_a_stage_is_not_released_before_its_turn(client: Client, stage_type: str) -> None:
    """A stage is released only after the previous one is COMPLETED, and not if it is in progress or finished."""
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


async def test_only_tasks_in_progress_can_be_reported(client: Client, stage_type: str) -> None:
    """A report of a waiting or finished task is refused."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    (task,) = await client.tasks(stage, 1)
    path = f"/v1/tasks/{task['id']}/status"

    async def check_refused(status: str, source: str) -> None:
        response = await client.http.put(path, json={"status": status})
        message = f"Illegal status transition from {source} to {status}"
        refused(response, 400, "ILLEGAL_TASK_STATUS_TRANSITION", message)

    await check_refused("COMPLETED", "PENDING")
    await client.settle(await client.claimed(stage_type), "FAILED")
    await check_refused("FAILED", "RETRIED")
    await client.settle(await client.claimed(stage_type))
    await check_refused("COMPLETED", "COMPLETED")
    await check_refused("FAILED", "COMPLETED")
