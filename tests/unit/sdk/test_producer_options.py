"""What tasks, stages and jobs say beyond their data, and managers that do not understand it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx2
import pytest
from jobnik_sdk import JobType, NewTask, Producer, RetryPolicy, StageType, TaskDefaults
from jobnik_sdk.errors import ConfigurationError, InvalidPayloadError, UnsupportedError
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

Make = Callable[..., dict[str, Any]]


class Picture(BaseModel):
    """A task's data."""

    source: str


plain = JobType("plain")
pictures = StageType("pictures", task=Picture)
STAGE = UUID(int=1)
SECOND = timedelta(seconds=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
COUNTS = {"pending": 0, "inProgress": 0, "completed": 0, "failed": 0, "created": 0, "retried": 0, "total": 0}


def has(*features: str) -> httpx2.Response:
    """What a manager with these features says of itself."""
    return httpx2.Response(200, json={"features": features})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 90 * SECOND}, {"timeoutSeconds": 90.0}),
        ({"delay": SECOND / 2}, {"delaySeconds": 0.5}),
        ({"available_at": NOON}, {"availableAt": "2026-01-01T12:00:00Z"}),
        ({"retry": RetryPolicy.fixed(SECOND)}, {"retry": {"strategy": "fixed", "delaySeconds": 1.0, "jitter": 0.0}}),
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
async def test_options_of_a_task_are_said_in_the_protocols_words(
    options: dict[str, Any], said: dict[str, Any], wire: "Wire"
) -> None:
    """Durations are seconds, moments ISO 8601; what is not said is left out."""
    wire.will_answer(has("retry-policy"), httpx2.Response(201, json=[]))
    await Producer(wire.client).create_tasks(STAGE, pictures, [NewTask(Picture(source="a"), **options)])
    (task,) = json.loads(wire.requests[1].content)
    assert {name: task[name] for name in task.keys() - {"data", "userMetadata", "traceparent"}} == said


async def test_options_of_a_stage_are_said(wire: "Wire", entity: Make) -> None:
    """A stage says its weight and what counts for its tasks."""
    stage = entity(jobId=str(uuid4()), type="s", order=1, status="PENDING", percentage=0, summary=COUNTS)
    wire.will_answer(has("task-defaults", "weighted-progress"), httpx2.Response(201, json=stage))
    defaults = TaskDefaults(max_attempts=2, timeout=SECOND)
    await Producer(wire.client).create_stage(STAGE, pictures, weight=2.5, task_defaults=defaults)
    body = json.loads(wire.requests[1].content)
    assert (body["weight"], body["taskDefaults"]) == (2.5, {"maxAttempts": 2, "timeoutSeconds": 1.0})


async def test_what_the_manager_lacks_is_not_sent(wire: "Wire") -> None:
    """A feature that is missing is named, with what to do, before anything is sent."""
    wire.will_answer(has("claim"))
    producer = Producer(wire.client)
    late = NewTask(Picture(source="a"), delay=SECOND)
    with pytest.raises(UnsupportedError, match="'retry-policy': update it, or leave out") as caught:
        await producer.create_tasks(STAGE, pictures, [late])
    assert caught.value.feature == "retry-policy"
    with pytest.raises(UnsupportedError, match="'task-defaults'"):
        await producer.create_stage(STAGE, pictures, task_defaults=TaskDefaults(max_attempts=1))
    with pytest.raises(UnsupportedError, match="'weighted-progress'"):
        await producer.create_stage(STAGE, pictures, weight=3)
    with pytest.raises(UnsupportedError, match="'unique-jobs'"):
        await producer.create_job(plain, unique_key="a")
    with pytest.raises(UnsupportedError, match="'attempts'"):
        await producer.get_attempts(STAGE)
    assert wire.sent == ["GET /v1/capabilities"]


async def test_part_a_needs_no_question(wire: "Wire") -> None:
    """A manager is not asked what it can do for what every manager can."""
    wire.will_answer(httpx2.Response(201, json=[]))
    await Producer(wire.client).create_tasks(STAGE, pictures, [NewTask(Picture(source="a"), max_attempts=2)])
    assert wire.sent == [f"POST /v1/stages/{STAGE}/tasks"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeout": timedelta()}, "tasks[0].timeout"),
        ({"timeout": timedelta(days=366)}, "tasks[0].timeout"),
        ({"delay": -SECOND}, "tasks[0].delay"),
        ({"available_at": datetime(2026, 1, 1)}, "tasks[0].available_at"),  # noqa: DTZ001 that is what is wrong
        ({"available_at": NOON, "delay": SECOND}, "tasks[0].available_at"),
        ({"max_attempts": 0}, "tasks[0].max_attempts"),
    ],
)
async def test_wrong_options_are_not_sent(options: dict[str, Any], field: str, wire: "Wire") -> None:
    """What no manager takes is refused by its name."""
    with pytest.raises(InvalidPayloadError) as caught:
        await Producer(wire.client).create_tasks(STAGE, pictures, [NewTask(Picture(source="a"), **options)])
    assert caught.value.field == field


async def test_wrong_options_of_stages_and_jobs_are_not_sent(wire: "Wire") -> None:
    """So it is for a stage's weight and defaults, and for a job's key."""
    producer = Producer(wire.client)
    with pytest.raises(InvalidPayloadError, match=r"^weight: "):
        await producer.create_stage(STAGE, pictures, weight=0)
    with pytest.raises(InvalidPayloadError, match=r"^task_defaults\.timeout: "):
        await producer.create_stage(STAGE, pictures, task_defaults=TaskDefaults(timeout=timedelta()))
    with pytest.raises(InvalidPayloadError, match=r"^unique_key: "):
        await producer.create_job(plain, unique_key="x" * 201)
    with pytest.raises(InvalidPayloadError, match=r"^unique_for: "):
        await producer.create_job(plain, unique_for=SECOND)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy.fixed(-SECOND),
        lambda: RetryPolicy.fixed(SECOND, jitter=1.1),
        lambda: RetryPolicy.exponential(SECOND, factor=0.5),
        lambda: RetryPolicy.exponential(SECOND, max_delay=timedelta(days=400)),
    ],
)
def test_retry_policy_that_cannot_work_is_refused_where_it_is_written(make: Callable[[], RetryPolicy]) -> None:
    """A policy is checked when it is made."""
    with pytest.raises(ConfigurationError, match="retry policy's"):
        make()


@pytest.mark.parametrize(
    ("status", "unique_for", "said"), [(201, None, None), (200, 60 * SECOND, 60.0)], ids=["new", "known"]
)
async def test_caller_learns_whether_a_unique_job_is_new(
    status: int, unique_for: timedelta | None, said: float | None, wire: "Wire", entity: Make
) -> None:
    """A second job with the same key is answered with the first, and says so."""
    job = entity(name="plain", status="PENDING", priority="MEDIUM", percentage=0)
    wire.will_answer(has("unique-jobs"), httpx2.Response(status, json=job))
    created = await Producer(wire.client).create_job(plain, unique_key="import", unique_for=unique_for)
    assert created.is_new is (status == 201)
    body = json.loads(wire.requests[1].content)
    assert (body["uniqueKey"], body.get("uniqueFor")) == ("import", said)
