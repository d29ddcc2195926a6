"""Requests of a worker to a manager that supports leases."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from jobnik_sdk import (
    Completed,
    Empty,
    Failed,
    Handler,
    JobnikClient,
    Outcome,
    Released,
    Snoozed,
    StageType,
    TaskContext,
)
from jobnik_sdk.execution.access import WorkerAccess
from jobnik_sdk.observability import trace_context
from jobnik_sdk.worker.leased_source import MAX_WAITING_CLAIMS, LeasedTaskSource
from jobnik_sdk.worker.task_contexts import TaskContexts
from jobnik_sdk.worker.task_source import Assignment, ReportResult, TaskReport
from prometheus_client import REGISTRY
from structlog.testing import capture_logs


async def test_a_claim_waits_no_longer_than_half_the_client_timeout() -> None:
    """Otherwise, an empty queue would look like a manager that does not respond."""
    waits: list[float] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        waits.append(json.loads(request.content)["waitSeconds"])
        return httpx2.Response(200, json={"tasks": []})

    for seconds in (4, 300):
        timeout, transport = timedelta(seconds=seconds), httpx2.MockTransport(respond)
        async with JobnikClient("http://manager", timeout=timeout, transport=transport) as client:
            source = LeasedTaskSource(client, "worker-1", timedelta(seconds=30))
            assert not await source.claim(StageType("any", task=Empty), 1)
    assert waits == [2, 20]


@pytest.mark.parametrize(
    ("outcome", "sent", "status"),
    [
        (Completed(None), "COMPLETED", "COMPLETED"),
        (Failed("ValueError", "no", stack=""), "FAILED", "FAILED"),
        (Snoozed(timedelta(seconds=1)), "SNOOZED", "SNOOZED"),
        (Released("drain"), "RELEASED", "CANCELLED"),
    ],
    ids=repr,
)
async def test_each_outcome_is_reported_and_counted(
    outcome: Outcome, sent: str, status: str, task_json: Callable[..., dict[str, Any]]
) -> None:
    """The report carries the protocol's outcome; the metrics count it under their own label."""
    reported: list[str] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        reported.extend(report["outcome"] for report in json.loads(request.content)["results"])
        return httpx2.Response(200, json={"accepted": 1, "refused": []})

    labels = {"stage_type": "counted", "status": status, "result": "success"}
    before = REGISTRY.get_sample_value("jobnik_sdk_consumer_task_updates_total", labels) or 0
    task = Assignment[Empty, Empty].model_validate(task_json(leaseId=1))
    result: asyncio.Future[ReportResult] = asyncio.get_running_loop().create_future()
    async with JobnikClient("http://manager", transport=httpx2.MockTransport(respond)) as client:
        source = LeasedTaskSource(client, "worker-1", timedelta(seconds=30))
        source.submit(TaskReport(task, "counted", outcome), result.set_result)
        assert (await result).accepted
    assert reported == [sent]
    assert REGISTRY.get_sample_value("jobnik_sdk_consumer_task_updates_total", labels) == before + 1


async def test_undecided_reports_are_sent_again_and_not_counted_as_failures(
    task_json: Callable[..., dict[str, Any]],
) -> None:
    """This holds for both representations. A response without a result for each report is an error."""
    answers: list[dict[str, Any]] = [
        {"accepted": 1, "refused": [], "undecided": [{"index": 0, "accepted": False, "code": "UNDECIDED"}]},
        {"results": [{"accepted": False, "code": "UNDECIDED", "message": "locked"}]},
        {"accepted": 0, "refused": []},
        {"accepted": 1, "refused": []},
    ]
    reported: list[int] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        reported.append(len(json.loads(request.content)["results"]))
        return httpx2.Response(200, json=answers.pop(0))

    labels = {"stage_type": "undecided", "status": "COMPLETED"}
    results: list[asyncio.Future[ReportResult]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
    async with JobnikClient("http://manager", transport=httpx2.MockTransport(respond)) as client:
        source = LeasedTaskSource(client, "worker-1", timedelta(seconds=30))
        for lease, result in enumerate(results):
            task = Assignment[Empty, Empty].model_validate(task_json(leaseId=lease))
            task.job = {"id": str(lease)}
            source.submit(TaskReport(task, "undecided", Completed(None)), result.set_result)
        assert [(await result).accepted for result in results] == [True, True]
    assert reported == [2, 1, 1, 1]
    counts = [
        REGISTRY.get_sample_value("jobnik_sdk_consumer_task_updates_total", labels | {"result": result})
        for result in ("success", "failure")
    ]
    assert counts == [2, None]


async def test_a_stage_that_is_not_as_expected_fails_its_own_tasks(task_json: Callable[..., dict[str, Any]]) -> None:
    """The claims and the tasks of other stages continue."""

    async def handle(_task: Empty, _context: TaskContext) -> None:
        pass

    async with JobnikClient("http://manager") as client:
        contexts = TaskContexts(Handler(StageType("any", task=Empty), handle), WorkerAccess(client))
        task = Assignment[Empty, Empty].model_validate(task_json(leaseId=1))
        task.stage, task.job = {"id": "odd"}, {}
        context, error = contexts.create(task, "")
    assert (context.task_id, error) == (task.id, "stage.id: Field required")


@pytest.mark.parametrize("place", ["data", "userMetadata", "checkpoint", "stage"])
async def test_a_deeply_nested_payload_affects_no_other_task(
    place: str, task_json: Callable[..., dict[str, Any]]
) -> None:
    """A manager accepts 200 levels in a request, which have more levels in the answer to a claim."""
    deep: Any = 1
    for _ in range(198):
        deep = {"a": deep}
    first, second = task_json(leaseId=1), task_json(leaseId=2)
    stage: dict[str, Any] = {"id": first["stageId"], "type": "any", "order": 1, "data": {}, "userMetadata": {}}
    if place == "stage":
        stage["data"] = deep
    else:
        first[place] = deep
    answer: dict[str, Any] = {"tasks": [first, second], "stages": [{"stage": stage, "job": {"id": "1"}}]}

    def respond(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=json.dumps(answer).encode(), headers={"Content-Type": "application/json"})

    async with JobnikClient("http://manager", transport=httpx2.MockTransport(respond)) as client:
        source = LeasedTaskSource(client, "worker-1", timedelta(seconds=30))
        claimed = await source.claim(StageType("any", task=Empty), 2)
    assert [task.lease_id for task in claimed] == [1, 2]
    assert claimed[1].validation_error == ""


@pytest.mark.parametrize(
    "odd",
    [
        {"data": None},
        {"userMetadata": None},
        {"stageId": 7},
        {"attempts": None},
        {"maxAttempts": "many"},
        {"timeoutSeconds": 1e300},
        {"traceparent": None},
        {"retry": 5},
        {"waitedSeconds": "long"},
    ],
    ids=str,
)
async def test_a_task_that_cannot_be_read_fails_alone(
    odd: dict[str, Any], task_json: Callable[..., dict[str, Any]]
) -> None:
    """The other tasks of the claim are returned; this one has its lease, so that it can be reported."""
    tasks = [task_json(leaseId=1) | odd, task_json(leaseId=2)]
    first, second = await _claim({"tasks": tasks})
    assert (str(first.id), first.lease_id) == (tasks[0]["id"], 1)
    assert first.validation_error
    assert not second.validation_error


@pytest.mark.parametrize("odd", [7, None, [], {}, {"id": "none", "leaseId": 1}], ids=repr)
async def test_an_entry_without_a_lease_is_ignored(odd: object, task_json: Callable[..., dict[str, Any]]) -> None:
    """The entry cannot be reported, and the other tasks of the claim are returned."""
    stages: list[dict[str, Any]] = [{"stage": {"id": []}, "job": {}}]
    with capture_logs() as logs:
        (task,) = await _claim({"tasks": [odd, task_json(leaseId=2)], "stages": stages})
    assert task.lease_id == 2
    assert [line["event"] for line in logs] == ["claimed task unreadable"]


async def test_a_stage_id_that_is_no_uuid_fails_the_attempt(task_json: Callable[..., dict[str, Any]]) -> None:
    """The context is created, so that the attempt is reported as failed."""
    (task,) = await _claim({"tasks": [task_json(leaseId=1, stageId="none")]})
    handler = Handler(StageType("any", task=Empty), _handle)
    async with JobnikClient("http://manager") as client:
        _, error = TaskContexts(handler, WorkerAccess(client)).create(task, trace_context.generate())
    assert error == "stage: the manager did not send it."


async def test_more_stage_types_than_claims_may_wait_take_turns(task_json: Callable[..., dict[str, Any]]) -> None:
    """Claims of idle stage types wait for one another, but not those of a stage type that had tasks."""
    waiting, full, released, waits = 0, asyncio.Event(), asyncio.Event(), set[float]()

    async def respond(request: httpx2.Request) -> httpx2.Response:
        nonlocal waiting
        waits.add(json.loads(request.content)["waitSeconds"])
        if request.url.path.startswith("/v1/stages/busy/"):
            return httpx2.Response(200, json={"tasks": [task_json(leaseId=1)]})
        waiting += 1
        if waiting == MAX_WAITING_CLAIMS:
            full.set()
        await released.wait()
        return httpx2.Response(200, json={"tasks": []})

    async with JobnikClient("http://manager", transport=httpx2.MockTransport(respond)) as client:
        source = LeasedTaskSource(client, "worker-1", timedelta(seconds=30), 1_001)
        busy = StageType("busy", task=Empty)
        await source.claim(busy, 1)
        idle = [asyncio.create_task(source.claim(StageType(f"idle-{n}", task=Empty), 1)) for n in range(1_000)]
        await full.wait()
        assert len(await source.claim(busy, 1)) == 1
        assert waiting == MAX_WAITING_CLAIMS
        released.set()
        await asyncio.gather(*idle)
    assert waits == {5}


async def _handle(_task: Empty, _context: TaskContext) -> None:
    pass


async def _claim(response: dict[str, Any]) -> Sequence[Assignment[Any, Any]]:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=response))
    async with JobnikClient("http://manager", transport=transport) as client:
        source = LeasedTaskSource(client, "worker-1", timedelta(seconds=30))
        return await source.claim(StageType("any", task=Empty), 2)
