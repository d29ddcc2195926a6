"""Created entities are returned, even if the responses lack fields or have additional ones."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx2
import pytest
from jobnik_sdk import JobStatus, JobType, NewStage, NewTask, Priority, Producer, StageType, UnexpectedAnswerError
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

Make = Callable[..., dict[str, Any]]
ID = "019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00"
JOB = UUID(int=1)


class Picture(BaseModel):
    """The data of a job, a stage or a task."""

    source: str


gallery = JobType("gallery", data=Picture)
pictures = StageType("pictures", task=Picture, data=Picture)

STRANGE: list[dict[str, Any]] = [
    {},
    {"news": [1], "createdAt": None, "updateTime": "yesterday", "traceparent": None, "userMetadata": None},
    {"status": None, "priority": None, "percentage": None, "data": None, "summary": None, "name": None, "type": None},
    {"status": "ARCHIVED", "priority": "NOW", "percentage": "3", "order": "1", "attempts": "0", "maxAttempts": "1"},
    {"status": 7, "order": "first", "summary": {"total": "2", "odd": 1}, "percentage": [], "jobId": 1, "stageId": {}},
    {"data": {"unknown": 1}, "userMetadata": [], "attempts": None, "maxAttempts": "many", "tasks": 1, "stages": 1},
]


@pytest.fixture(autouse=True)
def part_a_only(wire: "Wire") -> None:
    """The manager has no features."""
    wire.features = []


def _answer(fields: dict[str, Any]) -> httpx2.Response:
    return httpx2.Response(201, json={**fields, "id": ID})


@pytest.mark.parametrize("fields", STRANGE)
async def test_job_keeps_its_id(wire: "Wire", fields: dict[str, Any]) -> None:
    """A field that the response lacks has the value that was sent."""
    wire.will_answer(_answer(fields))
    job = await Producer(wire.client).create_job(gallery, Picture(source="a"), priority=Priority.HIGH)
    assert (str(job.id), job.name, job.data, job.is_new, job.stages) == (ID, "gallery", Picture(source="a"), True, ())
    assert job.status == (fields.get("status") if fields.get("status") == "ARCHIVED" else JobStatus.PENDING)
    assert job.priority == ("NOW" if fields.get("priority") else Priority.HIGH)


@pytest.mark.parametrize("fields", STRANGE)
async def test_stage_keeps_its_id(wire: "Wire", fields: dict[str, Any]) -> None:
    """A field that the response lacks has the value that was sent; an order that is unknown is 0."""
    wire.will_answer(_answer(fields))
    stage = await Producer(wire.client).create_stage(JOB, pictures, Picture(source="a"))
    assert (str(stage.id), stage.job_id, stage.type, stage.data) == (ID, JOB, "pictures", Picture(source="a"))
    assert stage.order == (1 if fields.get("order") == "1" else 0)


@pytest.mark.parametrize("fields", STRANGE)
async def test_tasks_keep_their_ids(wire: "Wire", fields: dict[str, Any]) -> None:
    """Each of them has the data that was sent."""
    ids = [str(uuid4()) for _ in range(2)]
    wire.will_answer(httpx2.Response(201, json=[{**fields, "id": one} for one in ids]))
    given = [NewTask(Picture(source=name), max_attempts=1) for name in "ab"]
    tasks = await Producer(wire.client).create_tasks(JOB, pictures, given)
    assert [(str(task.id), task.stage_id, task.data.source) for task in tasks] == [
        (ids[0], JOB, "a"),
        (ids[1], JOB, "b"),
    ]
    assert {(task.attempts, task.max_attempts) for task in tasks} == {(0, 1)}


async def test_tasks_have_the_order_given(wire: "Wire", task_json: Make) -> None:
    """Created tasks are returned in the order given, regardless of their order in the response."""
    wire.will_answer(httpx2.Response(201, json=[task_json(data={"source": name}) for name in "cab"]))
    tasks = await Producer(wire.client).create_tasks(JOB, pictures, [Picture(source=name) for name in "abc"])
    assert [task.data.source for task in tasks] == ["a", "b", "c"]


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[]", b'{"id": 7}', b"<html>"])
async def test_response_without_an_id_is_an_error(wire: "Wire", body: bytes) -> None:
    """Without an id, no entity can be returned."""
    wire.will_answer(*[httpx2.Response(201, content=body) for _ in range(3)])
    producer = Producer(wire.client)
    with pytest.raises(UnexpectedAnswerError):
        await producer.create_job(gallery, Picture(source="a"))
    with pytest.raises(UnexpectedAnswerError):
        await producer.create_stage(JOB, pictures, Picture(source="a"))
    if body != b"[]":
        with pytest.raises(UnexpectedAnswerError):
            await producer.create_tasks(JOB, pictures, [Picture(source="a")])
    else:
        assert await producer.create_tasks(JOB, pictures, [Picture(source="a")]) == []


@pytest.mark.parametrize("failure", [httpx2.Response(500), httpx2.Response(200, json={}), httpx2.ConnectError("no")])
async def test_new_job_is_returned_if_it_cannot_be_read_again(
    wire: "Wire", pauses: list[float], failure: httpx2.Response | Exception
) -> None:
    """A job that was created stage by stage has its stages as they were created."""
    retries = [failure] * (4 if isinstance(failure, Exception) else 1)
    wire.will_answer(_answer({}), _answer({"order": 1}), _answer({"order": 2}), httpx2.Response(200), *retries)
    trees = [NewStage(pictures, data=Picture(source=name)) for name in "ab"]
    job = await Producer(wire.client).create_job(gallery, Picture(source="a"), stages=trees)
    assert (str(job.id), [stage.order for stage in job.stages]) == (ID, [1, 2])
    assert [json.loads(request.content)["type"] for request in wire.requests[1:3]] == ["pictures", "pictures"]
    assert len(pauses) == len(retries) - 1


async def test_no_created_task_is_returned_twice(wire: "Wire", task_json: Make) -> None:
    """No task is returned twice, and missing ones are not invented."""
    created = task_json(data={"source": "a"})
    wire.will_answer(httpx2.Response(201, json=[created, created]))
    tasks = await Producer(wire.client).create_tasks(JOB, pictures, [Picture(source="a"), Picture(source="b")])
    assert [str(task.id) for task in tasks] == [created["id"]]


async def test_a_job_without_a_key_is_new_whatever_the_status_is(wire: "Wire") -> None:
    """200 means an existing job only if a key was sent."""
    wire.will_answer(httpx2.Response(200, json={"id": ID}))
    job = await Producer(wire.client).create_job(gallery, Picture(source="a"))
    assert job.is_new
