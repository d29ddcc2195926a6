"""Leases: only the holder may report a task, and tasks without a holder return to the queue."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests.support.protocol import Client, refused
from tests.support.worker import LeasedWorker, report
from tools.manager import ManagerProcess

SHORTEST_LEASE = 1.0
"""Seconds."""


@pytest.fixture
def worker(http: httpx2.AsyncClient) -> LeasedWorker:
    """A worker of the shared manager."""
    return LeasedWorker(http)


@pytest.fixture
def other(http: httpx2.AsyncClient) -> LeasedWorker:
    """Another worker of the shared manager."""
    return LeasedWorker(http)


async def stage_of(client: Client, stage_type: str, count: int = 1, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    """Create a stage with tasks."""
    stage = await client.stage(await client.job(data={"of": "job"}), stage_type, data={"of": "stage"})
    await client.tasks(stage, count, **fields)
    return stage


async def test_a_claim_returns_all_that_a_worker_needs(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """A claim returns each task with its lease, stage and job, the oldest task first."""
    stage = await stage_of(client, stage_type, 3)
    tasks = await worker.claim(stage_type, 2, leaseSeconds=20)
    assert [task["data"] for task in tasks] == [{"number": 0}, {"number": 1}]
    for task in tasks:
        assert (task["status"], task["attempts"]) == ("IN_PROGRESS", 0)
        assert task["startTime"] < task["leaseExpiresAt"]
        assert task["stage"]["id"] == task["stageId"] == stage["id"]
        assert (task["stage"]["type"], task["stage"]["order"]) == (stage_type, 1)
        assert task["stage"]["data"] == {"of": "stage"}
        assert (task["job"]["id"], task["job"]["data"]) == (stage["jobId"], {"of": "job"})
        assert (task["job"]["name"], task["job"]["priority"]) == ("a job", "MEDIUM")
    assert tasks[0]["leaseId"] != tasks[1]["leaseId"]


async def test_a_claim_may_take_tasks_from_several_stages(
    client: Client, worker: LeasedWorker, stage_type: str
) -> None:
    """A claim takes tasks from as many stages as it needs, and each task contains its own stage and job."""
    stages = [await stage_of(client, stage_type, 2) for _ in range(3)]
    tasks = await worker.claim(stage_type, 500)
    assert [task["stage"]["id"] for task in tasks] == [stage["id"] for stage in stages for _ in range(2)]
    assert [task["job"]["id"] for task in tasks] == [stage["jobId"] for stage in stages for _ in range(2)]
    assert await worker.claim(stage_type) == []


async def test_an_outcome_sets_the_status_of_its_task(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """COMPLETED stores the result, FAILED uses up an attempt, and RELEASED and SNOOZED use none."""
    stage = await stage_of(client, stage_type, 5)
    done, failed, fatal, released, snoozed = await worker.claim(stage_type, 5)
    error = {"type": "ValueError", "message": "no", "stack": "line 1"}
    answers = await worker.settle(
        report(done, "COMPLETED", result={"pages": 3}),
        report(failed, "FAILED", error=error),
        report(released, "RELEASED"),
        report(snoozed, "SNOOZED", delaySeconds=300),
        report(fatal, "FAILED", error=error, retryable=False),
    )
    assert [answer["status"] for answer in answers] == ["COMPLETED", "RETRIED", "PENDING", "PENDING", "FAILED"]
    assert all(answer["accepted"] for answer in answers)
    now = {task["id"]: task for task in (await client.read(stage))["tasks"]}
    assert now[done["id"]]["result"] == {"pages": 3}
    assert (now[failed["id"]]["attempts"], now[failed["id"]]["error"]) == (1, error)
    assert (now[fatal["id"]]["attempts"], now[fatal["id"]]["status"]) == (1, "FAILED")
    assert (now[released["id"]]["attempts"], now[snoozed["id"]]["attempts"]) == (0, 0)
    summary = (await client.read(stage))["summary"]
    assert {status: count for status, count in summary.items() if count} == {
        "pending": 2, "completed": 1, "failed": 1, "retried": 1, "total": 5,
    }  # fmt: skip
    assert await client.status(stage) == "FAILED"


async def test_the_error_of_an_attempt_stays_with_that_attempt(
    client: Client, worker: LeasedWorker, stage_type: str
) -> None:
    """During an attempt, the task shows the error of the previous attempt, and the new attempt has no error."""
    await stage_of(client, stage_type, 1)
    error = {"type": "ValueError", "message": "no", "stack": ""}
    await worker.settle(report((await worker.claim(stage_type))[0], "FAILED", error=error))
    (task,) = await worker.claim(stage_type)
    assert task["error"] == error
    assert [attempt["error"] for attempt in await worker.attempts(task)] == [error, None]


async def test_a_delayed_task_returns_after_its_delay(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """A delay keeps a task out of the queue and its depth until it is over."""
    await stage_of(client, stage_type, 2)
    snoozed, failed = await worker.claim(stage_type, 2)
    await worker.settle(report(snoozed, "SNOOZED", delaySeconds=0.3), report(failed, "FAILED", delaySeconds=0.3))
    assert await worker.claim(stage_type) == []
    assert await depth(worker, stage_type) == (0, 0)
    back = await worker.claim(stage_type, 1, waitSeconds=10)
    back += await worker.claim(stage_type, 1, waitSeconds=10)
    assert [(task["id"], task["attempts"]) for task in back] == [(snoozed["id"], 0), (failed["id"], 1)]


async def depth(worker: LeasedWorker, stage_type: str) -> tuple[int, int]:
    """Return the numbers of waiting tasks and of tasks in progress."""
    answer = (await worker.http.get(f"/v1/queues/{stage_type}/depth")).json()
    return answer["waiting"], answer["inProgress"]


async def test_the_depth_counts_claimable_tasks(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """Tasks of paused jobs and of stages that are not open yet do not count as waiting."""
    stage = await stage_of(client, stage_type, 5)
    later = await client.stage({"id": stage["jobId"]}, stage_type)
    await client.tasks(later, 7)
    assert await depth(worker, stage_type) == (5, 0)
    await worker.claim(stage_type, 2)
    assert await depth(worker, stage_type) == (3, 2)
    await client.move({"id": stage["jobId"]}, "PAUSED")
    assert await depth(worker, stage_type) == (0, 2)


async def test_a_repeated_report_counts_once(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """A repeated report gets the same answer as the first time, whatever has happened to the task since."""
    stage = await stage_of(client, stage_type, 4)
    done, failed, released, fatal = await worker.claim(stage_type, 4)
    reports = (
        report(done, "COMPLETED", result=1),
        report(failed, "FAILED"),
        report(released, "RELEASED"),
        report(fatal, "FAILED", retryable=False),
    )
    first = await worker.settle(*reports)
    assert await worker.settle(*reports) == first
    assert await worker.settle(report(done, "FAILED")) == first[:1]
    assert await worker.settle(reports[0], reports[0], reports[1]) == [first[0], first[0], first[1]]
    both = await asyncio.gather(worker.settle(*reports), worker.settle(*reversed(reports)))
    assert both == [first, first[::-1]]
    assert [task["attempts"] for task in (await client.read(stage))["tasks"]] == [0, 1, 0, 1]


async def test_concurrent_copies_of_a_report_count_once(
    start_manager: Callable[..., ManagerProcess], stage_type: str
) -> None:
    """Two managers that receive the same report agree, including for the last tasks of a stage."""
    managers = [start_manager(), start_manager()]
    async with httpx2.AsyncClient(base_url=managers[0].url) as one, httpx2.AsyncClient(base_url=managers[1].url) as two:
        client, worker, twin = Client(one), LeasedWorker(one), LeasedWorker(two)
        twin.id = worker.id
        stage = await stage_of(client, stage_type, 40)
        for _ in range(20):
            tasks = await worker.claim(stage_type, 2)
            answers = await asyncio.gather(*(reporter.complete(*tasks) for reporter in (worker, twin, worker, twin)))
            assert all(answer["accepted"] for answered in answers for answer in answered)
        now = await client.read(stage)
        assert (now["status"], now["summary"]["completed"]) == ("COMPLETED", 40)


async def test_a_report_without_the_lease_changes_nothing(
    client: Client, worker: LeasedWorker, other: LeasedWorker, stage_type: str
) -> None:
    """A report with a wrong lease or another worker's task is refused; valid reports in the same request count."""
    await stage_of(client, stage_type, 3)
    mine, my_second = await worker.claim(stage_type, 2)
    (theirs,) = await other.claim(stage_type)
    unknown = {"id": "00000000-0000-7000-8000-000000000000", "leaseId": 1}
    answers = await worker.settle(
        report(mine | {"leaseId": mine["leaseId"] + 1000}, "COMPLETED"),
        report(theirs, "COMPLETED"),
        report(mine | {"leaseId": my_second["leaseId"]}, "FAILED"),
        report(unknown, "COMPLETED"),
        report(my_second, "GREAT"),
        {"taskId": 7},
        report(my_second, "COMPLETED"),
    )
    assert [answer.get("code") for answer in answers] == [
        "LEASE_LOST", "LEASE_LOST", "LEASE_LOST", "TASK_NOT_FOUND", "VALIDATION_ERROR", "VALIDATION_ERROR", None,
    ]  # fmt: skip
    assert [answer["accepted"] for answer in answers] == [False] * 6 + [True]
    assert "outcome" in answers[4]["message"]
    assert [await client.status(task) for task in (mine, theirs, my_second)] == [
        "IN_PROGRESS", "IN_PROGRESS", "COMPLETED",
    ]  # fmt: skip


@pytest.mark.parametrize("prefer", ["return=minimal", "return=representation"])
async def test_a_number_out_of_range_is_not_repeated(http: httpx2.AsyncClient, prefer: str) -> None:
    """The response to a report with such an id is JSON, which has no infinite numbers."""
    body = b'{"workerId": "host-1", "results": [{"taskId": 1e999, "leaseId": -1e999, "outcome": "COMPLETED"}]}'
    headers = {"Content-Type": "application/json", "Prefer": prefer}
    answer = (await http.post("/v1/tasks/settle", content=body, headers=headers)).json()
    (refusal,) = answer["refused" if prefer == "return=minimal" else "results"]
    assert (refusal["taskId"], refusal["leaseId"], refusal["code"]) == (None, None, "VALIDATION_ERROR")


async def test_a_client_without_leases_cannot_report_a_leased_task(
    client: Client, worker: LeasedWorker, stage_type: str
) -> None:
    """A report without a lease of a task that a worker holds is answered 409."""
    await stage_of(client, stage_type, 1)
    (task,) = await worker.claim(stage_type)
    answer = await client.http.put(f"/v1/tasks/{task['id']}/status", json={"status": "COMPLETED"})
    refused(answer, 409, "TASK_STATUS_UPDATE_FAILED")
    assert (await worker.complete(task))[0]["accepted"]


async def test_a_lease_that_is_not_renewed_ends_the_attempt(
    client: Client, worker: LeasedWorker, other: LeasedWorker, stage_type: str
) -> None:
    """The task goes to another worker, and the first worker is informed that its lease is lost."""
    stage = await stage_of(client, stage_type, 1, maxAttempts=2)
    (lost,) = await worker.claim(stage_type, leaseSeconds=SHORTEST_LEASE)
    (task,) = await other.claim(stage_type, waitSeconds=10, leaseSeconds=SHORTEST_LEASE)
    assert (task["id"], task["attempts"]) == (lost["id"], 1)
    assert task["leaseId"] > lost["leaseId"]
    (answer,) = await worker.complete(lost)
    assert (answer["accepted"], answer["code"], answer["status"]) == (False, "LEASE_LOST", "IN_PROGRESS")
    assert await worker.heartbeat(lost) == {"lost": [lost["leaseId"]], "cancel": [], "drain": False}

    async with asyncio.timeout(10):
        while await client.status(stage) != "FAILED":  # noqa: ASYNC110 - the manager does not call us
            await asyncio.sleep(0.05)
    first, second = await worker.attempts(task)
    assert (first["workerId"], first["outcome"], first["leaseId"]) == (worker.id, "EXPIRED", lost["leaseId"])
    assert (second["workerId"], second["outcome"], second["number"]) == (other.id, "EXPIRED", 2)
    assert second["error"]["type"] == "LeaseExpired"
    (answer,) = await other.complete(task)
    assert (answer["accepted"], answer["code"], answer["status"]) == (False, "LEASE_LOST", "FAILED")


async def test_heartbeats_renew_leases(
    client: Client, worker: LeasedWorker, other: LeasedWorker, stage_type: str
) -> None:
    """A lease that heartbeats renew does not expire, and its task stays with its worker."""
    await stage_of(client, stage_type, 2)
    kept, lost = await worker.claim(stage_type, 2, leaseSeconds=SHORTEST_LEASE)
    claiming = asyncio.create_task(other.claim(stage_type, waitSeconds=20))
    heartbeats = 0
    while not claiming.done():
        assert (await worker.heartbeat(kept))["lost"] == []
        heartbeats += 1
        await asyncio.wait([claiming], timeout=SHORTEST_LEASE / 4)
    assert [task["id"] for task in claiming.result()] == [lost["id"]]
    assert heartbeats > 2
    assert (await worker.complete(kept))[0]["accepted"]


async def test_an_attempt_ends_at_its_time_limit(
    client: Client, worker: LeasedWorker, other: LeasedWorker, stage_type: str
) -> None:
    """A hanging handler loses its task although its worker still sends heartbeats."""
    stage = await stage_of(client, stage_type, 1, timeoutSeconds=SHORTEST_LEASE)
    (hanging,) = await worker.claim(stage_type, leaseSeconds=60)
    assert hanging["timeoutSeconds"] == SHORTEST_LEASE
    claiming = asyncio.create_task(other.claim(stage_type, waitSeconds=20))
    while not claiming.done():
        await worker.heartbeat(hanging)
        await asyncio.wait([claiming], timeout=SHORTEST_LEASE / 4)
    assert (await worker.heartbeat(hanging))["lost"] == [hanging["leaseId"]]
    (first, _) = await worker.attempts(hanging)
    assert (first["outcome"], first["error"]["type"]) == ("TIMED_OUT", "TimedOut")
    assert (await client.read(stage))["tasks"][0]["attempts"] == 1


async def test_a_task_can_be_scheduled(client: Client, worker: LeasedWorker, stage_type: str) -> None:
    """A task is not handed out before its delay or date; a date in the past means now."""
    stage = await client.stage(await client.job(), stage_type)
    timestamp = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    bodies: list[dict[str, Any]] = [
        {"data": {}, "delaySeconds": 0.5},
        {"data": {}, "availableAt": timestamp},
        {"data": {}, "availableAt": "2020-01-01T00:00:00Z"},
        {"data": {}, "delaySeconds": 3600},
    ]
    response = await client.http.post(f"/v1/stages/{stage['id']}/tasks", json=bodies)
    ids = [task["id"] for task in response.json()]
    assert [task["id"] for task in await worker.claim(stage_type, 4)] == [ids[2]]
    assert (await client.read(stage))["summary"]["pending"] == 3
    later: list[str] = []
    while len(later) < 2:
        later += [task["id"] for task in await worker.claim(stage_type, 4, waitSeconds=10)]
    assert sorted(later) == sorted(ids[:2])
    both = await client.http.post(f"/v1/stages/{stage['id']}/tasks", json=[bodies[0] | bodies[1]])
    refused(both, 400, "VALIDATION_ERROR")


async def test_a_task_claimed_without_a_lease_expires_when_it_is_stale(
    start_manager: Callable[..., ManagerProcess], stage_type: str
) -> None:
    """A task that is not reported within the stale time is handed out again."""
    manager = start_manager("--task-stale-after", "PT0.5S")
    async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
        client, worker = Client(http), LeasedWorker(http)
        await stage_of(client, stage_type, 1)
        stale = await client.claimed(stage_type)
        (task,) = await worker.claim(stage_type, waitSeconds=10)
        assert (task["id"], task["attempts"]) == (stale["id"], 1)
        (attempt, _) = await worker.attempts(task)
        assert (attempt["workerId"], attempt["outcome"], attempt["error"]["type"]) == (None, "EXPIRED", "Stale")


async def test_heartbeats_carry_progress_and_instructions(
    client: Client, worker: LeasedWorker, stage_type: str
) -> None:
    """Progress is stored on the task; an abort is returned as cancel and a drain order as drain."""
    stage = await stage_of(client, stage_type, 2)
    first, second = await worker.claim(stage_type, 2)
    progress = {"fraction": 0.25, "message": "page 1 of 4", "etaSeconds": 30.0}
    await worker.heartbeat(first | {"progress": progress}, second, host="here", version="1.2", draining=False)
    assert (await client.read(first))["progress"] == progress
    assert "progress" not in await client.read(second)

    path = f"/v1/workers/{worker.id}"
    assert (await client.http.put(path, json={"drain": True})).json()["drainWanted"] is True
    await client.move({"id": stage["jobId"]}, "ABORTED")
    instructions = await worker.heartbeat(first, second, draining=True)
    assert (instructions["lost"], sorted(instructions["cancel"]), instructions["drain"]) == (
        [],
        sorted([first["leaseId"], second["leaseId"]]),
        True,
    )
    (answer,) = await worker.complete(first)
    assert (answer["accepted"], answer["code"], answer["status"]) == (False, "LEASE_LOST", "ABORTED")

    workers = {listed["id"]: listed for listed in (await client.http.get("/v1/workers")).json()}
    listed = workers[worker.id]
    assert (listed["host"], listed["version"], listed["draining"], listed["running"]) == ("here", "1.2", True, 2)
    refused(await client.http.put("/v1/workers/nobody", json={"drain": True}), 404, "WORKER_NOT_FOUND")


async def test_an_attempt_can_leave_a_checkpoint_for_the_next(
    client: Client, worker: LeasedWorker, other: LeasedWorker, stage_type: str
) -> None:
    """The newest checkpoint, from a heartbeat or a report, goes to the worker that claims the task next."""
    await stage_of(client, stage_type, 1)
    (task,) = await worker.claim(stage_type)
    assert "checkpoint" not in task
    await worker.heartbeat(task | {"checkpoint": {"page": 1}})
    await worker.heartbeat({key: task[key] for key in ("id", "leaseId")} | {"progress": {"fraction": 0.5}})
    assert (await client.read(task))["checkpoint"] == {"page": 1}
    await worker.settle(report(task, "RELEASED"))
    (task,) = await other.claim(stage_type)
    assert task["checkpoint"] == {"page": 1}
    await other.settle(report(task, "FAILED", checkpoint=[2]))
    (task,) = await worker.claim(stage_type)
    assert task["checkpoint"] == [2]
    (answer,) = await worker.settle(report(task, "SNOOZED", checkpoint=float("1e300"), delaySeconds=0))
    assert answer["accepted"]
    (task,) = await worker.claim(stage_type)
    assert task["checkpoint"] == 1e300


async def test_deregistering_a_worker_releases_its_tasks(
    client: Client, worker: LeasedWorker, other: LeasedWorker, stage_type: str
) -> None:
    """Its tasks return at once without using up an attempt, it leaves the list, and the call is idempotent."""
    await stage_of(client, stage_type, 203)
    done, *left = await worker.claim(stage_type, 202)
    (kept,) = await other.claim(stage_type)
    await worker.complete(done)
    await worker.heartbeat(*left)
    await worker.deregister()
    await worker.deregister()
    again = await other.claim(stage_type, 500)
    assert [(task["id"], task["attempts"]) for task in again] == [(task["id"], 0) for task in left]
    assert [attempt["outcome"] for attempt in await worker.attempts(left[0])] == ["RELEASED", None]
    assert all(answer["code"] == "LEASE_LOST" for answer in await worker.complete(*left[:2]) if not answer["accepted"])
    assert (await other.complete(kept))[0]["accepted"]
    assert worker.id not in {listed["id"] for listed in (await client.http.get("/v1/workers")).json()}


async def test_every_status_change_is_in_the_history(
    client: Client, worker: LeasedWorker, other: LeasedWorker, stage_type: str
) -> None:
    """The history of a job, stage and task lists each change of status and its author."""
    stage = await stage_of(client, stage_type, 2)
    job = {"id": stage["jobId"]}
    await worker.settle(report((await worker.claim(stage_type))[0], "RELEASED"))
    await worker.settle(report((await worker.claim(stage_type))[0], "FAILED", error={"type": "Oops"}))
    first = (await other.claim(stage_type))[0]
    await other.complete(first)
    await client.move(job, "PAUSED")
    await client.move(job, "PENDING")
    last = (await worker.claim(stage_type))[0]
    await worker.complete(last)
    assert await worker.history("task", first) == [
        (None, "PENDING", "client"),
        ("PENDING", "IN_PROGRESS", worker.id),
        ("IN_PROGRESS", "PENDING", worker.id),
        ("PENDING", "IN_PROGRESS", worker.id),
        ("IN_PROGRESS", "RETRIED", worker.id),
        ("RETRIED", "IN_PROGRESS", other.id),
        ("IN_PROGRESS", "COMPLETED", other.id),
    ]
    assert await worker.history("stage", stage) == [
        (None, "PENDING", "client"),
        ("PENDING", "IN_PROGRESS", "manager"),
        ("IN_PROGRESS", "COMPLETED", "manager"),
    ]
    assert await worker.history("job", job) == [
        (None, "PENDING", "client"),
        ("PENDING", "IN_PROGRESS", "manager"),
        ("IN_PROGRESS", "PAUSED", "client"),
        ("PAUSED", "PENDING", "client"),
        ("PENDING", "IN_PROGRESS", "manager"),
        ("IN_PROGRESS", "COMPLETED", "manager"),
    ]
    assert [attempt["outcome"] for attempt in await worker.attempts(first)] == ["RELEASED", "FAILED", "COMPLETED"]
    unknown_id = "00000000-0000-7000-8000-000000000000"
    for kind in ("job", "stage", "task"):
        refused(await client.http.get(f"/v1/{kind}s/{unknown_id}/history"), 404, f"{kind.upper()}_NOT_FOUND")
    refused(await client.http.get(f"/v1/tasks/{unknown_id}/attempts"), 404, "TASK_NOT_FOUND")


async def test_capabilities_are_listed(client: Client) -> None:
    """The manager lists its protocol version and features."""
    answer = (await client.http.get("/v1/capabilities")).json()
    assert answer["protocol"] == "1"
    features = {"claim", "settle", "leases", "heartbeat", "retry-policy", "task-defaults", "weighted-progress"}
    assert features <= set(answer["features"])


OUT_OF_BOUNDS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/stages/x/tasks/claim", {"workerId": "w", "limit": 0}, "limit"),
    ("/v1/stages/x/tasks/claim", {"workerId": "w", "limit": 501}, "limit"),
    ("/v1/stages/x/tasks/claim", {"workerId": "w", "waitSeconds": 31}, "waitSeconds"),
    ("/v1/stages/x/tasks/claim", {"workerId": "w", "leaseSeconds": 0.5}, "leaseSeconds"),
    ("/v1/stages/x/tasks/claim", {"limit": 1}, "workerId"),
    ("/v1/stages/x/tasks/claim", {"workerId": "w" * 201}, "workerId"),
    ("/v1/tasks/settle", {"workerId": "w", "results": []}, "results"),
    ("/v1/tasks/settle", {"workerId": "w", "results": [{}] * 501}, "results"),
    ("/v1/workers/w/heartbeat", {"stageTypes": ["x"], "running": [{"taskId": 1}]}, "running.0"),
]


@pytest.mark.parametrize(("path", "body", "field"), OUT_OF_BOUNDS)
async def test_a_value_out_of_bounds_is_refused(client: Client, path: str, body: dict[str, Any], field: str) -> None:
    """The refusal names the field."""
    response = await client.http.post(path, json=body)
    refused(response, 400, "VALIDATION_ERROR")
    assert field in response.json()["message"]
