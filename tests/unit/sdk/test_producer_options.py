"""Options of tasks, stages and jobs, and managers that lack features."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx2
import pytest
from jobnik_sdk import (
    ConfigurationError,
    InvalidPayloadError,
    JobType,
    NewStage,
    NewTask,
    Priority,
    Producer,
    RetryPolicy,
    StageType,
    TaskDefaults,
    UnsupportedError,
)
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

Make = Callable[..., dict[str, Any]]


class Picture(BaseModel):
    """The data of a task."""

    source: str


plain = JobType("plain")
pictures = StageType("pictures", task=Picture)
STAGE = UUID(int=1)
SECOND = timedelta(seconds=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FIXED = {"strategy": "fixed", "delaySeconds": 1.0, "jitter": 0.0}
COUNTS = {"pending": 0, "inProgress": 0, "completed": 0, "failed": 0, "created": 0, "retried": 0, "total": 0}


def has(*features: str) -> httpx2.Response:
    """Return the response of a manager with these features."""
    return httpx2.Response(200, json={"features": features})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"timeout": 90 * SECOND}, {"timeoutSeconds": 90.0}),
        ({"delay": SECOND / 2}, {"delaySeconds": 0.5}),
        ({"available_at": NOON}, {"availableAt": "2026-01-01T12:00:00Z"}),
        ({"retry": RetryPolicy.fixed(SECOND)}, {"retry": FIXED}),
        (
            {"max_attempts": 5, "retry": RetryPolicy.exponential(SECOND, factor=3, max_delay=9 * SECOND, jitter=0.5)},
            {
                "maxAttempts": 5,
                "retry": {
                    "strategy": "exponential",
                    "delaySeconds": 1.0,
                    "factor": 3.0,
                    "maxDelaySeconds": 9.0,
                    "jitter": 0.5,
                },
            },
        ),
    ],
)
async def test_options_of_a_task_are_sent(options: dict[str, Any], expected: dict[str, Any], wire: "Wire") -> None:
    """Durations are sent in seconds, times in ISO 8601; options that are not given are not sent."""
    wire.will_answer(has("retry-policy"), httpx2.Response(201, json=[]))
    await Producer(wire.client).create_tasks(STAGE, pictures, [NewTask(Picture(source="a"), **options)])
    (task,) = json.loads(wire.requests[1].content)
    assert {name: task[name] for name in task.keys() - {"data", "userMetadata", "traceparent"}} == expected


async def test_options_of_a_stage_are_sent(wire: "Wire", entity: Make) -> None:
    """The weight of a stage and the defaults of its tasks are sent."""
    stage = entity(jobId=str(uuid4()), type="s", order=1, status="PENDING", percentage=0, summary=COUNTS)
    wire.will_answer(has("task-defaults", "weighted-progress"), httpx2.Response(201, json=stage))
    defaults = TaskDefaults(max_attempts=2, timeout=SECOND)
    await Producer(wire.client).create_stage(STAGE, pictures, weight=2.5, task_defaults=defaults)
    body = json.loads(wire.requests[1].content)
    assert (body["weight"], body["taskDefaults"]) == (2.5, {"maxAttempts": 2, "timeoutSeconds": 1.0})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {},
            {
                "maxAttempts": 5,
                "timeoutSeconds": 60.0,
                "retry": FIXED,
            },
        ),
        (
            {"task_defaults": TaskDefaults(max_attempts=1, timeout=SECOND)},
            {
                "maxAttempts": 1,
                "timeoutSeconds": 1.0,
                "retry": FIXED,
            },
        ),
    ],
)
@pytest.mark.parametrize("in_tree", [False, True])
async def test_policy_of_a_stage_type_is_sent(
    wire: "Wire", entity: Make, given: dict[str, Any], expected: dict[str, Any], *, in_tree: bool
) -> None:
    """It comes with every stage of the type, and what the stage sets itself takes precedence."""
    policy = StageType("careful", task=Picture, max_attempts=5, timeout=60 * SECOND, retry=RetryPolicy.fixed(SECOND))
    stage = entity(jobId=str(uuid4()), type="careful", order=1, status="PENDING", percentage=0, summary=COUNTS)
    if in_tree:
        job = entity(name="plain", priority="MEDIUM", status="PENDING", percentage=0, stages=[stage])
        wire.will_answer(has("task-defaults", "job-tree"), httpx2.Response(201, json=job))
        await Producer(wire.client).create_job(plain, stages=[NewStage(policy, **given)])
        (body,) = json.loads(wire.requests[1].content)["stages"]
    else:
        wire.will_answer(has("task-defaults"), httpx2.Response(201, json=stage))
        await Producer(wire.client).create_stage(STAGE, policy, **given)
        body = json.loads(wire.requests[1].content)
    assert body["taskDefaults"] == expected


async def test_missing_features_are_reported(wire: "Wire") -> None:
    """The error names the missing feature and what to do, and nothing is sent."""
    wire.will_answer(has("claim"))
    producer = Producer(wire.client)
    delayed = NewTask(Picture(source="a"), delay=SECOND)
    with pytest.raises(UnsupportedError, match="'retry-policy': update the manager, or omit") as caught:
        await producer.create_tasks(STAGE, pictures, [delayed])
    assert caught.value.feature == "retry-policy"
    with pytest.raises(UnsupportedError, match="'task-defaults'"):
        await producer.create_stage(STAGE, pictures, task_defaults=TaskDefaults(max_attempts=1))
    with pytest.raises(UnsupportedError, match="'task-defaults'"):
        await producer.create_stage(STAGE, StageType("s", task=Picture, max_attempts=1))
    with pytest.raises(UnsupportedError, match="'weighted-progress'"):
        await producer.create_stage(STAGE, pictures, weight=3)
    with pytest.raises(UnsupportedError, match="'unique-jobs'"):
        await producer.create_job(plain, unique_key="a")
    with pytest.raises(UnsupportedError, match=r"'(idempotency-keys|job-tree)'"):
        await producer.create_job(plain, idempotency_key="a")
    with pytest.raises(UnsupportedError, match="'attempts'"):
        await producer.get_attempts(STAGE)
    assert wire.sent == ["GET /v1/capabilities"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeout": timedelta()}, "timeout"),
        ({"timeout": timedelta(days=366)}, "timeout"),
        ({"delay": -SECOND}, "delay"),
        ({"available_at": datetime(2026, 1, 1)}, "available_at"),  # noqa: DTZ001 on purpose
        ({"available_at": NOON, "delay": SECOND}, "available_at"),
        ({"max_attempts": 0}, "max_attempts"),
    ],
)
def test_invalid_options_of_a_task_are_refused_at_once(options: dict[str, Any], field: str) -> None:
    """Where the task is written, not where it is created."""
    with pytest.raises(InvalidPayloadError) as caught:
        NewTask(Picture(source="a"), **options)
    assert caught.value.field == field


async def test_invalid_options_of_stages_and_jobs_are_not_sent(wire: "Wire") -> None:
    """The weight and the defaults of a stage, and the key of a job, are validated."""
    producer = Producer(wire.client)
    with pytest.raises(InvalidPayloadError, match=r"^weight: "):
        await producer.create_stage(STAGE, pictures, weight=0)
    with pytest.raises(InvalidPayloadError, match=r"^timeout: "):
        TaskDefaults(timeout=timedelta())
    with pytest.raises(InvalidPayloadError, match=r"^unique_key: "):
        await producer.create_job(plain, unique_key="x" * 201)
    with pytest.raises(InvalidPayloadError, match=r"^unique_for: "):
        await producer.create_job(plain, unique_for=SECOND)
    for key in ("", " a", "a ", "a\n", "é", "x" * 256):
        with pytest.raises(InvalidPayloadError, match=r"^idempotency_key: "):
            await producer.create_job(plain, idempotency_key=key)


UNTYPED: dict[str, Any] = {"task": NewTask, "stage": NewStage, "policy": RetryPolicy.fixed, "producer": Producer}
"""Callables without types, for calls that a type checker would reject."""
WRONG_TYPES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda producer: producer.create_tasks(STAGE, pictures, [UNTYPED["task"](Picture(source="a"), delay=5)]), "delay"),
    (lambda producer: producer.create_tasks(STAGE, pictures, [UNTYPED["task"](Picture(source="a"), retry=5)]), "retry"),
    (lambda _: UNTYPED["policy"](5), "The delay of a retry policy"),
    (lambda _: UNTYPED["producer"](5), "The manager of a producer"),
    (lambda producer: producer.create_job(plain, unique_key="a", unique_for=5), "unique_for"),
    (lambda producer: producer.create_job(plain, stages=[5]), "stages[0]"),
    (lambda producer: producer.wait_for_job(STAGE, plain, timeout=5), "timeout"),
]


@pytest.mark.parametrize(("call", "name"), WRONG_TYPES)
async def test_arguments_of_wrong_types_are_named(call: Callable[[Any], Any], name: str, wire: "Wire") -> None:
    """The error names the argument; a plain number is no duration, because it has no unit."""
    with pytest.raises(TypeError, match=rf"^{re.escape(name)} must be a .*, not 5$"):
        await call(Producer(wire.client))


async def test_priority_may_be_a_string(wire: "Wire", entity: Make) -> None:
    """The name of a priority is accepted; any other string is rejected."""
    producer: Any = Producer(wire.client)
    wire.features = []
    wire.will_answer(httpx2.Response(201, json=entity(name="plain", status="PENDING", priority="HIGH", percentage=0)))
    assert (await producer.create_job(plain, priority="HIGH")).priority is Priority.HIGH
    with pytest.raises(InvalidPayloadError, match=r"^priority: must be one of VERY_HIGH, .*, not 'URGENT'\.$"):
        await producer.create_job(plain, priority="URGENT")


async def test_ids_must_be_uuids(wire: "Wire") -> None:
    """A string is not accepted as the id of a job."""
    with pytest.raises(TypeError, match=r"its id as a uuid\.UUID, not 'a'"):
        await Producer(wire.client).get_job("a", plain)  # pyright: ignore[reportArgumentType] on purpose


async def test_tasks_must_match_the_type_of_their_stage(wire: "Wire", entity: Make) -> None:
    """If the stage itself is given, tasks of another stage type are rejected."""
    response = entity(jobId=str(uuid4()), type="pictures", order=1, status="PENDING", percentage=0, summary=COUNTS)
    wire.will_answer(httpx2.Response(200, json=response))
    producer: Any = Producer(wire.client)
    stage = await producer.get_stage(STAGE, pictures)
    other = StageType("other", task=Picture)
    for create in (producer.create_tasks, producer.stream_tasks):
        with pytest.raises(InvalidPayloadError, match="the stage is of type 'pictures', not 'other'"):
            await create(stage, other, [Picture(source="a")])
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy.fixed(-SECOND),
        lambda: RetryPolicy.fixed(SECOND, jitter=1.1),
        lambda: RetryPolicy.exponential(SECOND, factor=0.5),
        lambda: RetryPolicy.exponential(SECOND, max_delay=timedelta(days=400)),
    ],
)
def test_invalid_retry_policy_is_rejected(make: Callable[[], RetryPolicy]) -> None:
    """A policy is validated when it is created."""
    with pytest.raises(ConfigurationError, match="of a retry policy must be"):
        make()


@pytest.mark.parametrize(
    ("status", "unique_for", "expected"), [(201, None, None), (200, 60 * SECOND, 60.0)], ids=["new", "existing"]
)
async def test_unique_job_is_new_or_existing(
    status: int, unique_for: timedelta | None, expected: float | None, wire: "Wire", entity: Make
) -> None:
    """A second job with the same key returns the first one, with `is_new` False."""
    job = entity(name="plain", status="PENDING", priority="MEDIUM", percentage=0)
    wire.will_answer(has("unique-jobs"), httpx2.Response(status, json=job))
    created = await Producer(wire.client).create_job(plain, unique_key="import", unique_for=unique_for)
    assert created.is_new is (status == 201)
    body = json.loads(wire.requests[1].content)
    assert (body["uniqueKey"], body.get("uniqueFor")) == ("import", expected)
