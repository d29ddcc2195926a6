"""Which requests are the same: every manager with idempotency keys decides alike."""

from typing import Any

import pytest
from jobnik_sdk import IdempotencyKeyReusedError, JobnikClient, JobType, NewStage, Producer, StageType, errors
from pydantic import BaseModel


class Word(BaseModel):
    """The data of a task."""

    text: str = ""


NEW: dict[str, Any] = {"data": {}}
"""A job, a stage or a task without options."""
RETRY = {"strategy": "exponential", "delaySeconds": 1, "factor": 2, "maxDelaySeconds": 3600, "jitter": 0}
DEFAULTS: dict[str, Any] = {"priority": "MEDIUM", "userMetadata": {}, "uniqueFor": "running"}
OTHER_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ORDERED, REVERSED = {"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"d": 3, "c": 2}], "a": 1}

JOBS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, DEFAULTS, True),
    ({"data": ORDERED}, {"data": REVERSED}, True),
    ({"userMetadata": ORDERED}, {"userMetadata": REVERSED}, True),
    ({}, {"traceparent": OTHER_TRACE, "tracestate": "a=b"}, True),
    ({"uniqueFor": 60}, {}, True),  # without a key it has no effect
    ({"data": {"a": 1}}, {"data": {"a": 1.0}}, False),
    ({"data": {"a": 1}}, {"data": {"a": True}}, False),
    ({"data": {"a": [1, 2]}}, {"data": {"a": [2, 1]}}, False),
    ({"data": {"a": None}}, {"data": {}}, False),
    ({}, {"priority": "HIGH"}, False),
    ({}, {"stages": []}, False),  # the response then has stages
    ({}, {"uniqueKey": "a"}, False),
]
STAGES: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {"weight": 1, "startAsWaiting": False, "taskDefaults": {}, "userMetadata": {}}, True),
    ({"taskDefaults": {"retry": {}}}, {"taskDefaults": {"retry": RETRY, "timeoutSeconds": None}}, True),
    ({"weight": 2}, {"weight": 2.0}, True),
    ({"data": ORDERED}, {"data": REVERSED}, True),
    ({}, {"startAsWaiting": True}, False),
    ({}, {"weight": 2}, False),
    ({}, {"taskDefaults": {"maxAttempts": 3}}, False),
]
TASKS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {"userMetadata": {}, "timeoutSeconds": None, "retry": None, "availableAt": None}, True),
    ({"retry": {"strategy": "exponential"}}, {"retry": RETRY}, True),
    ({"timeoutSeconds": 5}, {"timeoutSeconds": 5.0}, True),
    ({"availableAt": "2026-01-01T12:00:00Z"}, {"availableAt": "2026-01-01T14:00:00.000+02:00"}, True),
    ({"data": ORDERED}, {"data": REVERSED}, True),
    ({}, {"traceparent": OTHER_TRACE}, True),
    ({}, {"maxAttempts": 3}, False),  # otherwise the stage decides
    ({}, {"delaySeconds": 1}, False),
    ({"userMetadata": {"a": 1}}, {}, False),
]


async def _are_same(client: JobnikClient, path: str, key: str, first: Any, second: Any) -> bool:  # noqa: ANN401 any JSON
    """Return whether the second request gets the response of the first one; otherwise it must be refused."""
    created = await client.request("POST", path, json=first, idempotency_key=key)
    try:
        repeated = await client.request("POST", path, json=second, idempotency_key=key)
    except IdempotencyKeyReusedError:
        return False
    assert (repeated.status_code, repeated.json()) == (created.status_code, created.json())
    return True


async def test_same_jobs(client: JobnikClient, own_name: str, *, part_b: bool) -> None:
    """A default that is written out, the order of members and the trace do not matter; every value does."""
    if not part_b:
        return
    base = NEW | {"name": own_name}
    for number, (first, second, expected) in enumerate(JOBS):
        key = f"{own_name} {number}"
        assert await _are_same(client, "/v1/jobs", key, base | first, base | second) is expected, (first, second)


async def test_same_trees(client: JobnikClient, own_name: str, *, part_b: bool) -> None:
    """Stages and tasks in a job are compared like those that are added to one."""
    if not part_b:
        return
    for number, (first, second, expected) in enumerate(STAGES):
        bodies = [{**NEW, "name": own_name, "stages": [_stage(own_name, one)]} for one in (first, second)]
        assert await _are_same(client, "/v1/jobs", f"{own_name} stage {number}", *bodies) is expected, (first, second)
    for number, (first, second, expected) in enumerate(TASKS):
        stages = [_stage(own_name, {"tasks": [NEW, NEW | one]}) for one in (first, second)]
        bodies = [{**NEW, "name": own_name, "stages": [stage]} for stage in stages]
        assert await _are_same(client, "/v1/jobs", f"{own_name} task {number}", *bodies) is expected, (first, second)


async def test_same_stages_and_tasks(client: JobnikClient, own_name: str, *, part_b: bool) -> None:
    """They also depend on the job or stage that they are added to."""
    if not part_b:
        return
    producer = Producer(client)
    job = await producer.create_job(JobType(own_name), stages=[NewStage(StageType(own_name, task=Word)) for _ in "ab"])
    for number, (first, second, expected) in enumerate(STAGES):
        bodies = [_stage(own_name, one) for one in (first, second)]
        path, key = f"/v1/jobs/{job.id}/stage", f"{own_name} stage {number}"
        assert await _are_same(client, path, key, *bodies) is expected, (first, second)
    path = f"/v1/stages/{job.stages[0].id}/tasks"
    for number, (first, second, expected) in enumerate(TASKS):
        tasks = [[NEW, NEW | one] for one in (first, second)]
        assert await _are_same(client, path, f"{own_name} task {number}", *tasks) is expected, (first, second)
    key, body, other = f"{own_name} task 0", b'[{"data":{}},{"data":{}}]', f"/v1/stages/{job.stages[1].id}/tasks"
    with pytest.raises(IdempotencyKeyReusedError):
        await client.request("POST", other, json=body, idempotency_key=key)


def _stage(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    return NEW | {"type": name} | fields


async def test_stages_and_tasks_are_created_once(producer: Producer, own_name: str, *, part_b: bool) -> None:
    """A second process gets what was created, as it was, and an error for something else with the key."""
    stage_type = StageType(own_name, task=Word)
    job = await producer.create_job(JobType(own_name))
    if not part_b:
        with pytest.raises(errors.UnsupportedError):
            await producer.create_stage(job, stage_type, idempotency_key=own_name)
        stage = await producer.create_stage(job, stage_type)
        with pytest.raises(errors.UnsupportedError):
            await producer.create_tasks(stage, [Word()], idempotency_key=own_name)
        assert (await producer.get_summary(stage)).total == 0
        return
    stage = await producer.create_stage(job, stage_type, idempotency_key=own_name)
    tasks = await producer.create_tasks(stage, [Word(text="a")], idempotency_key=f"{own_name} tasks")
    assert await producer.create_stage(job, stage_type, idempotency_key=own_name) == stage
    again = await producer.create_tasks(stage.id, stage_type, [Word(text="a")], idempotency_key=f"{own_name} tasks")
    assert again == tasks
    with pytest.raises(errors.IdempotencyKeyReusedError):
        await producer.create_stage(job, stage_type, waiting=True, idempotency_key=own_name)
    with pytest.raises(errors.IdempotencyKeyReusedError):
        await producer.create_tasks(stage, [Word(text="b")], idempotency_key=f"{own_name} tasks")
    assert [one.id async for one in producer.list_stages(job)] == [stage.id]
    assert [task.id for task in await producer.get_tasks(stage)] == [tasks[0].id]
