"""Requests of a producer, and payloads that it rejects."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx2
import pytest
from jobnik_sdk import (
    ConfigurationError,
    Empty,
    InvalidPayloadError,
    Job,
    JobType,
    NewTask,
    Priority,
    Producer,
    StageType,
    SyncProducer,
    UnexpectedAnswerError,
)
from jobnik_sdk.observability import trace_context
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_COUNTS = {"pending": 0, "inProgress": 0, "completed": 0, "failed": 0, "created": 0, "retried": 0, "total": 0}
Make = Callable[..., dict[str, Any]]


class Picture(BaseModel):
    """The data of a task or a job."""

    source: str
    size: int = 256


class Owner(BaseModel):
    """The metadata of a task or a job."""

    owner: str


gallery = JobType("gallery", data=Picture, metadata=Owner)
plain = JobType("plain")
thumbnails = StageType("thumbnails", task=Picture, task_metadata=Owner)
simple = StageType("simple", task=Picture)


@pytest.fixture(autouse=True)
def part_a_only(wire: "Wire") -> None:
    """The manager has no features."""
    wire.features = []


def _body(request: httpx2.Request) -> Any:  # noqa: ANN401 JSON is any
    return json.loads(request.content)


def _job(entity: Make, **fields: object) -> dict[str, Any]:
    return entity(name="plain", status="PENDING", priority="MEDIUM", percentage=0, **fields)


def _stage(entity: Make) -> dict[str, Any]:
    return entity(jobId=str(uuid4()), type="s", order=1, status="PENDING", percentage=0, summary=_COUNTS)


async def test_job_is_created_with_all_options(wire: "Wire", entity: Make) -> None:
    """Name, data, metadata, priority and trace are sent in one request; the returned job is typed."""
    response = _job(entity) | {"data": {"source": "a"}, "userMetadata": {"owner": "me"}}
    wire.will_answer(httpx2.Response(201, json=response))
    job = await Producer(wire.client).create_job(
        gallery, Picture(source="a"), metadata=Owner(owner="me"), priority=Priority.HIGH, traceparent=_TRACE
    )
    assert job.metadata.owner == "me"
    assert _body(wire.requests[0]) == {
        "name": "gallery",
        "data": {"source": "a", "size": 256},
        "userMetadata": {"owner": "me"},
        "priority": "HIGH",
        "traceparent": _TRACE,
    }
    assert wire.requests[0].headers["traceparent"] == _TRACE


async def test_every_job_has_a_trace(wire: "Wire", entity: Make) -> None:
    """A job belongs to the current trace, or else to a new one."""
    wire.will_answer(*[httpx2.Response(201, json=_job(entity)) for _ in range(3)])
    producer = Producer(wire.client)
    with trace_context.use_trace(_TRACE):
        await producer.create_job(plain)
    await producer.create_job(plain)
    await producer.create_job(plain)
    first, second, third = (_body(request)["traceparent"] for request in wire.requests)
    assert first == _TRACE
    assert trace_context.is_valid(second)
    assert second != third


async def test_stages_and_tasks_continue_the_trace(wire: "Wire", entity: Make) -> None:
    """A stage belongs to the trace of its job, or to the current trace if only the id of the job is given."""
    wire.will_answer(*[httpx2.Response(201, json=_stage(entity)) for _ in range(2)], httpx2.Response(201, json=[]))
    producer = Producer(wire.client)
    job = Job[Empty, Empty].model_validate(_job(entity, traceparent=_TRACE))
    stage = await producer.create_stage(job, simple, waiting=True)
    with trace_context.use_trace(_TRACE):
        await producer.create_stage(job.id, simple)
        await producer.create_tasks(stage.id, simple, [Picture(source="a")])
    bodies = [_body(request) for request in wire.requests]
    assert [bodies[0]["traceparent"], bodies[1]["traceparent"], bodies[2][0]["traceparent"]] == [_TRACE] * 3
    assert [bodies[0]["startAsWaiting"], bodies[1]["startAsWaiting"]] == [True, False]
    assert wire.sent[0] == f"POST /v1/jobs/{job.id}/stage"


async def test_tracestate_is_propagated(wire: "Wire", entity: Make) -> None:
    """A job gets the current `tracestate`, and a stage that of its job."""
    wire.will_answer(httpx2.Response(201, json=_job(entity)), httpx2.Response(201, json=_stage(entity)))
    producer = Producer(wire.client)
    with trace_context.use_trace(_TRACE, "vendor=some"):
        await producer.create_job(plain)
    job = Job[Empty, Empty].model_validate(_job(entity, traceparent=_TRACE, tracestate="vendor=other"))
    await producer.create_stage(job, simple)
    assert [_body(request)["tracestate"] for request in wire.requests] == ["vendor=some", "vendor=other"]
    assert wire.requests[0].headers["tracestate"] == "vendor=some"


async def test_tasks_are_sent_in_order(wire: "Wire", task_json: Make) -> None:
    """Tasks are given as data or as `NewTask`; options that are not given are not sent."""
    wire.will_answer(httpx2.Response(201, json=[task_json(data={"source": name}) for name in "ab"]))
    new_tasks = [Picture(source="a"), NewTask(Picture(source="b"), max_attempts=1)]
    tasks = await Producer(wire.client).create_tasks(uuid4(), simple, new_tasks)
    assert [task.data.source for task in tasks] == ["a", "b"]
    first, second = _body(wire.requests[0])
    assert "maxAttempts" not in first
    assert second["maxAttempts"] == 1


_STAGE = UUID(int=1)


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ([Picture(source="a"), {"size": 1}], "tasks[1].data.source"),
        ([Owner(owner="me")], "tasks[0].data"),
        ([NewTask(Picture.model_construct(source="a", size="big"))], "tasks[0].data.size"),
    ],
)
async def test_invalid_tasks_are_not_sent(tasks: list[Any], field: str, wire: "Wire") -> None:
    """If one task is invalid, nothing is sent, and the error has its path."""
    with pytest.raises(InvalidPayloadError) as caught:
        await Producer(wire.client).create_tasks(_STAGE, simple, tasks)
    assert caught.value.field == field
    assert not wire.requests


async def test_missing_metadata_is_rejected(wire: "Wire") -> None:
    """Metadata is validated like data, even if it is omitted."""
    tasks: list[Any] = [Picture(source="a")]
    with pytest.raises(InvalidPayloadError) as caught:
        await Producer(wire.client).create_tasks(_STAGE, thumbnails, tasks)
    assert caught.value.field == "tasks[0].metadata.owner"
    assert not wire.requests


async def test_invalid_job_is_not_sent(wire: "Wire") -> None:
    """The data, metadata and trace of a job are validated before anything is sent."""
    producer = Producer(wire.client)
    invalid: Any = {"source": 3}
    with pytest.raises(InvalidPayloadError, match=r"^data\.source: "):
        await producer.create_job(gallery, invalid, metadata=Owner(owner="me"))
    with pytest.raises(InvalidPayloadError, match=r"^metadata\.owner: "):
        await producer.create_job(gallery, Picture(source="a"), metadata=Owner.model_construct())
    with pytest.raises(InvalidPayloadError, match=r"^traceparent: "):
        await producer.create_job(plain, traceparent=trace_context.NO_TRACE)
    assert not wire.requests


async def test_commands(wire: "Wire") -> None:
    """Each command is one request. Setting the priority that a job already has returns 204."""
    done = {"code": "JOB_MODIFIED_SUCCESSFULLY"}
    wire.will_answer(*[httpx2.Response(200, json=done) for _ in range(5)], httpx2.Response(204))
    producer, job, stage = Producer(wire.client), UUID(int=1), UUID(int=2)
    await producer.pause_job(job)
    await producer.resume_job(job)
    await producer.abort_job(job)
    await producer.start_stage(stage)
    await producer.delete_job(job)
    await producer.set_priority(job, Priority.LOW)
    statuses = [_body(request)["status"] for request in wire.requests[:4]]
    assert statuses == ["PAUSED", "PENDING", "ABORTED", "PENDING"]
    assert wire.sent[3:] == [
        f"PUT /v1/stages/{stage}/status",
        f"DELETE /v1/jobs/{job}",
        f"PATCH /v1/jobs/{job}/priority",
    ]


async def test_entities_are_typed(wire: "Wire", entity: Make, task_json: Make) -> None:
    """A job, a stage, its summary and its tasks are instances of their models."""
    wire.will_answer(
        httpx2.Response(200, json=_job(entity)),
        httpx2.Response(200, json=_stage(entity)),
        httpx2.Response(200, json=_COUNTS),
        httpx2.Response(200, json=[task_json(data={"source": "a"})]),
    )
    producer = Producer(wire.client)
    assert (await producer.get_job(_STAGE, plain)).name == "plain"
    assert (await producer.get_stage(_STAGE, simple)).order == 1
    assert (await producer.get_summary(_STAGE)).total == 0
    assert [task.data.source for task in await producer.get_tasks(_STAGE, simple)] == ["a"]


async def test_entity_that_does_not_fit_its_model_is_rejected(wire: "Wire", task_json: Make) -> None:
    """The error has the path of the field that does not fit the stage type."""
    wire.will_answer(httpx2.Response(200, json=[task_json(data={"source": "a"}), task_json()]))
    with pytest.raises(
        UnexpectedAnswerError, match=r"does not match the expected model at \[1\]\.data\.source: Field required"
    ):
        await Producer(wire.client).get_tasks(_STAGE, simple)


@pytest.mark.parametrize("kind", [Producer, SyncProducer])
def test_address_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, kind: type[Producer] | type[SyncProducer]
) -> None:
    """As that of a worker does; an error says what to do without it."""
    monkeypatch.delenv("JOBNIK_BASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="JOBNIK_BASE_URL is not set: set it to the manager's address"):
        kind()
    monkeypatch.setenv("JOBNIK_BASE_URL", "no address")
    with pytest.raises(ConfigurationError, match="no address"):
        kind()
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://127.0.0.1:1")
    kind()
