"""The course of a job through its stages and tasks, and the consequences of each change."""

import re
from typing import Any

from tests.support.protocol import Client

TIMESTAMP_PATTERN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def test_a_job_of_two_stages_runs_to_its_end(client: Client, stage_type: str) -> None:
    """Each stage opens when the previous one is completed, and the job is completed with its last stage."""
    job = await client.job()
    first = await client.stage(job, stage_type)
    second = await client.stage(job, f"{stage_type}-b")
    assert (job["status"], first["status"], second["status"]) == ("PENDING", "PENDING", "CREATED")
    await client.tasks(first, 2)
    await client.tasks(second, 1)
    assert await client.claim(f"{stage_type}-b") is None

    one = await client.claimed(stage_type)
    assert (await client.status(job), await client.status(first)) == ("IN_PROGRESS", "IN_PROGRESS")
    two = await client.claimed(stage_type)
    assert await client.claim(stage_type) is None
    assert (await client.settle(one))["status"] == "COMPLETED"
    now = await client.read(first)
    assert (now["status"], now["percentage"], now["endTime"]) == ("IN_PROGRESS", 50, None)
    await client.settle(two)

    now = await client.read(job)
    assert (now["status"], now["percentage"]) == ("IN_PROGRESS", 50)
    assert [stage["status"] for stage in now["stages"]] == ["COMPLETED", "PENDING"]
    assert [stage["order"] for stage in now["stages"]] == [1, 2]

    await client.settle(await client.claimed(f"{stage_type}-b"))
    now = await client.read(job)
    assert (now["status"], now["percentage"]) == ("COMPLETED", 100)
    assert {stage["status"] for stage in now["stages"]} == {"COMPLETED"}


async def test_entities_have_the_fields_of_the_protocol(client: Client, stage_type: str) -> None:
    """Every field is present, the times in both spellings, and tracestate only if it was given."""
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": 'vendor="x"'}
    job = await client.job(name='quoted "name"', data={"deep": [1, {"ü": None}]}, userMetadata={"mine": 1}, **trace)
    times = {"createdAt", "updatedAt", "creationTime", "updateTime"}
    common = {"id", "status", "data", "userMetadata", "traceparent"} | times
    assert set(job) == common | {"name", "priority", "percentage", "endedAt", "tracestate"}
    assert (job["name"], job["data"], job["userMetadata"]) == (
        'quoted "name"',
        {"deep": [1, {"ü": None}]},
        {"mine": 1},
    )
    assert (job["traceparent"], job["tracestate"], job["priority"]) == (*trace.values(), "MEDIUM")
    assert all(TIMESTAMP_PATTERN.fullmatch(job[name]) for name in times)

    stage = await client.stage(job, stage_type)
    work = {"startTime", "endTime"}
    assert set(stage) == common | work | {"jobId", "type", "order", "summary", "percentage"}
    assert stage["traceparent"] == "00-00000000000000000000000000000000-0000000000000000-00"
    counts = ("created", "pending", "inProgress", "completed", "failed", "retried", "aborted", "total")
    assert stage["summary"] == dict.fromkeys(counts, 0)

    (task,) = await client.tasks(stage)
    assert set(task) == common | work | {"stageId", "attempts", "maxAttempts"}
    assert (task["attempts"], task["maxAttempts"], task["startTime"], task["endTime"]) == (0, 3, None, None)
    claimed = await client.claimed(stage_type)
    assert claimed["id"] == task["id"]
    assert TIMESTAMP_PATTERN.fullmatch(claimed["startTime"])
    assert TIMESTAMP_PATTERN.fullmatch((await client.settle(task))["endTime"])


async def test_the_trace_context_of_a_request_is_stored(client: Client) -> None:
    """Without a traceparent in the body, a valid traceparent header is used."""
    headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "a=b"}
    response = await client.http.post("/v1/jobs", json={"name": "traced", "data": {}}, headers=headers)
    assert {name: response.json()[name] for name in headers} == headers
    response = await client.http.post(
        "/v1/jobs", json={"name": "traced", "data": {}}, headers={"traceparent": "nonsense"}
    )
    assert response.json()["traceparent"] == "00-00000000000000000000000000000000-0000000000000000-00"


async def test_tasks_are_claimed_by_priority_and_then_by_age(client: Client, stage_type: str) -> None:
    """The most urgent job is served first, then the oldest, and a changed priority takes effect at once."""
    jobs: dict[str, dict[str, Any]] = {}
    for name, priority in (("low", "LOW"), ("old", "MEDIUM"), ("new", "MEDIUM"), ("urgent", "VERY_HIGH")):
        jobs[name] = await client.job(name=name, priority=priority)
        await client.tasks(await client.stage(jobs[name], stage_type, data={}), 3, userMetadata={"job": name})

    async def next_job() -> str:
        return (await client.claimed(stage_type))["userMetadata"]["job"]

    assert [await next_job() for _ in range(4)] == ["urgent", "urgent", "urgent", "old"]
    response = await client.http.patch(f"/v1/jobs/{jobs['low']['id']}/priority", json={"priority": "HIGH"})
    assert response.json() == {"code": "JOB_MODIFIED_SUCCESSFULLY"}
    assert [await next_job() for _ in range(8)] == ["low"] * 3 + ["old"] * 2 + ["new"] * 3


async def test_tasks_of_a_stage_are_claimed_in_order(client: Client, stage_type: str) -> None:
    """Tasks of a stage are claimed in the order in which they were added, also over several requests."""
    stage = await client.stage(await client.job(), stage_type)
    created = [task["id"] for _ in range(2) for task in await client.tasks(stage, 20)]
    assert [(await client.claimed(stage_type))["id"] for _ in range(40)] == created


async def test_setting_the_current_priority_changes_nothing(client: Client) -> None:
    """Setting the priority that a job already has is answered 204 with a reason."""
    job = await client.job(priority="HIGH")
    response = await client.http.patch(f"/v1/jobs/{job['id']}/priority", json={"priority": "HIGH"})
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Reason"]


async def test_a_failed_task_is_retried(client: Client, stage_type: str) -> None:
    """A failed attempt is counted and the task is claimed again until it completes, without effect on the job."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    await client.tasks(stage, 1, maxAttempts=3)
    for attempts in (1, 2):
        task = await client.settle(await client.claimed(stage_type), "FAILED")
        assert (task["status"], task["attempts"], task["endTime"]) == ("RETRIED", attempts, None)
    assert (await client.read(stage))["summary"]["retried"] == 1
    task = await client.settle(await client.claimed(stage_type))
    assert (task["status"], task["attempts"]) == ("COMPLETED", 2)
    assert await client.status(job) == "COMPLETED"


async def test_a_task_without_attempts_left_fails_its_stage_and_job(client: Client, stage_type: str) -> None:
    """Stage and job fail at once; waiting tasks stay unclaimed; running tasks may still report."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    await client.stage(job, f"{stage_type}-b")
    await client.tasks(stage, 4, maxAttempts=1)
    one, two, three = [await client.claimed(stage_type) for _ in range(3)]
    assert (await client.settle(one, "FAILED"))["status"] == "FAILED"

    now = await client.read(job)
    assert (now["status"], [part["status"] for part in now["stages"]]) == ("FAILED", ["FAILED", "CREATED"])
    assert await client.claim(stage_type) is None
    assert (await client.settle(two))["status"] == "COMPLETED"
    assert (await client.settle(three, "FAILED"))["status"] == "FAILED"
    now = await client.read(stage)
    assert now["status"] == "FAILED"
    wanted = {"created": 0, "pending": 1, "inProgress": 0, "completed": 1, "failed": 2, "retried": 0, "aborted": 0}
    assert now["summary"] == wanted | {"total": 4}


async def test_a_paused_job_hands_out_no_tasks_until_it_is_resumed(client: Client, stage_type: str) -> None:
    """A pause withholds waiting tasks at once, and a resume releases them."""
    job = await client.job()
    await client.tasks(await client.stage(job, stage_type), 2)
    await client.claimed(stage_type)
    await client.move(job, "PAUSED")
    assert await client.claim(stage_type) is None
    await client.move(job, "PENDING")
    assert await client.status(job) == "PENDING"
    await client.claimed(stage_type)
    assert await client.status(job) == "IN_PROGRESS"


async def test_the_last_task_can_end_while_its_job_is_paused(client: Client, stage_type: str) -> None:
    """When the last task ends during a pause, its stage and job are completed."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    await client.tasks(stage, 1)
    task = await client.claimed(stage_type)
    await client.move(job, "PAUSED")
    await client.settle(task)
    assert (await client.status(stage), await client.status(job)) == ("COMPLETED", "COMPLETED")


async def test_a_stage_can_end_while_its_job_is_paused(client: Client, stage_type: str) -> None:
    """The next stage opens, but its tasks are not claimed until the job is resumed."""
    job = await client.job()
    first, second = await client.stage(job, stage_type), await client.stage(job, stage_type)
    await client.tasks(first, 1)
    await client.tasks(second, 1)
    task = await client.claimed(stage_type)
    await client.move(job, "PAUSED")
    await client.settle(task)
    assert [await client.status(entity) for entity in (job, first, second)] == ["PAUSED", "COMPLETED", "PENDING"]
    assert await client.claim(stage_type) is None
    await client.move(job, "PENDING")
    await client.settle(await client.claimed(stage_type))
    assert await client.status(job) == "COMPLETED"


async def test_the_last_task_can_end_after_a_pause_and_resume(client: Client, stage_type: str) -> None:
    """A resumed job without waiting tasks is completed by the tasks that were already running."""
    job = await client.job()
    await client.tasks(await client.stage(job, stage_type), 1)
    task = await client.claimed(stage_type)
    await client.move(job, "PAUSED")
    await client.move(job, "PENDING")
    await client.settle(task)
    assert await client.status(job) == "COMPLETED"


async def test_a_task_can_fail_its_job_while_the_job_is_paused(client: Client, stage_type: str) -> None:
    """The final failure of a task also fails a paused job."""
    job = await client.job()
    await client.tasks(await client.stage(job, stage_type), 1, maxAttempts=1)
    task = await client.claimed(stage_type)
    await client.move(job, "PAUSED")
    await client.settle(task, "FAILED")
    assert await client.status(job) == "FAILED"


async def test_an_abort_reaches_stages_and_tasks(client: Client, stage_type: str) -> None:
    """Unfinished stages and tasks are ABORTED with their job, finished ones stay, and the summaries are updated."""
    job = await client.job()
    first, second = await client.stage(job, stage_type), await client.stage(job, stage_type, startAsWaiting=True)
    await client.tasks(first, 4)
    await client.tasks(second, 2)
    done, failed, _ = [await client.claimed(stage_type) for _ in range(3)]
    await client.settle(done)
    await client.settle(failed, "FAILED")
    await client.move(job, "ABORTED")

    now = await client.read(job)
    assert (now["status"], {stage["status"] for stage in now["stages"]}) == ("ABORTED", {"ABORTED"})
    assert [stage["summary"]["aborted"] for stage in now["stages"]] == [3, 2]
    tasks = (await client.read(first))["tasks"]
    assert sorted(task["status"] for task in tasks) == ["ABORTED", "ABORTED", "ABORTED", "COMPLETED"]
    assert all(task["endTime"] for task in tasks)
    assert await client.claim(stage_type) is None


async def test_a_waiting_stage_is_released_by_a_client(client: Client, stage_type: str) -> None:
    """A stage created as waiting hands out no tasks until a client releases it; a second release is not an error."""
    job = await client.job()
    stage = await client.stage(job, stage_type, startAsWaiting=True)
    assert stage["status"] == "WAITING"
    await client.tasks(stage, 1)
    assert await client.claim(stage_type) is None
    for _ in range(2):
        response = await client.http.put(f"/v1/stages/{stage['id']}/status", json={"status": "PENDING"})
        assert response.json() == {"code": "STAGE_MODIFIED_SUCCESSFULLY"}
    assert await client.claim(stage_type) is not None


async def test_a_stage_without_tasks_stays_open(client: Client, stage_type: str) -> None:
    """An empty stage is never completed, and tasks can still be added to a stage that is in progress."""
    job = await client.job()
    first, second = await client.stage(job, stage_type), await client.stage(job, stage_type)
    await client.tasks(first, 1)
    await client.settle(await client.claimed(stage_type))
    assert (await client.status(second), await client.status(job)) == ("PENDING", "IN_PROGRESS")
    await client.tasks(second, 1)
    task = await client.claimed(stage_type)
    await client.tasks(second, 1)
    await client.settle(task)
    assert await client.status(second) == "IN_PROGRESS"
    await client.settle(await client.claimed(stage_type))
    assert await client.status(job) == "COMPLETED"


async def test_a_finished_job_can_be_deleted(client: Client, stage_type: str) -> None:
    """The job, its stages and its tasks no longer exist."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    (task,) = await client.tasks(stage, 1)
    await client.settle(await client.claimed(stage_type))
    response = await client.http.delete(f"/v1/jobs/{job['id']}")
    assert response.json() == {"code": "JOB_DELETED_SUCCESSFULLY"}
    for path in (f"/v1/jobs/{job['id']}", f"/v1/stages/{stage['id']}", f"/v1/tasks/{task['id']}"):
        assert (await client.http.get(path)).status_code == 404


async def test_metadata_is_replaced_as_a_whole(client: Client, stage_type: str) -> None:
    """Both ways to send the metadata have the same effect on all three entities."""
    job = await client.job(userMetadata={"old": True})
    stage = await client.stage(job, stage_type)
    (task,) = await client.tasks(stage, 1)
    bodies: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"new": 1}, {"new": 1}),
        ({"userMetadata": {"wrapped": 1}}, {"wrapped": 1}),
        ({"userMetadata": 5}, {"userMetadata": 5}),
        ({"userMetadata": {}, "more": 1}, {"userMetadata": {}, "more": 1}),
        ({}, {}),
    ]
    for path, entity, prefix in (("jobs", job, "JOB"), ("stages", stage, "STAGE"), ("tasks", task, "TASK")):
        for body, meant in bodies:
            response = await client.http.patch(f"/v1/{path}/{entity['id']}/user-metadata", json=body)
            assert response.json() == {"code": f"{prefix}_MODIFIED_SUCCESSFULLY"}
            assert (await client.read(entity))["userMetadata"] == meant


async def test_an_empty_list_of_tasks_is_accepted(client: Client, stage_type: str) -> None:
    """An empty list of tasks is answered 201 with an empty list."""
    stage = await client.stage(await client.job(), stage_type)
    assert await client.tasks(stage, 0) == []
