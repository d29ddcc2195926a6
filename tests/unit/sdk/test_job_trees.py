"""Creation of jobs together with their stages and tasks."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2
import pytest
from jobnik_sdk import (
    InvalidPayloadError,
    JobType,
    NewStage,
    NewTask,
    Producer,
    StageFinishedError,
    StageType,
    UnsupportedError,
)
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

Make = Callable[..., dict[str, Any]]
Refuse = Callable[[int, str], httpx2.Response]


class Picture(BaseModel):
    """The data of a task."""

    source: str


plain = JobType("plain")
pictures = StageType("pictures", task=Picture)
sheets = StageType("sheets", task=Picture, data=Picture)
COUNTS = {"pending": 1, "inProgress": 0, "completed": 0, "failed": 0, "created": 0, "retried": 0, "total": 1}
TREE = [
    NewStage(pictures, [Picture(source="a"), NewTask(Picture(source="b"), max_attempts=1)]),
    NewStage(sheets, data=Picture(source="all"), waiting=True),
]


def job_json(entity: Make, **fields: object) -> dict[str, Any]:
    """Return the JSON of a job."""
    return entity(name="plain", status="PENDING", priority="MEDIUM", percentage=0, **fields)


def stage_json(entity: Make, order: int = 1) -> dict[str, Any]:
    """Return the JSON of a stage."""
    return entity(jobId=str(uuid4()), type="s", order=order, status="PENDING", percentage=0, summary=COUNTS)


async def test_tree_is_created_in_one_request(wire: "Wire", entity: Make) -> None:
    """With the feature `job-tree` everything is sent in one request; the returned job has its stages."""
    response = job_json(entity, stages=[stage_json(entity, 1), stage_json(entity, 2)])
    wire.will_answer(httpx2.Response(200, json={"features": ["job-tree"]}), httpx2.Response(201, json=response))
    job = await Producer(wire.client).create_job(plain, stages=TREE)
    assert job.is_new
    assert [stage.order for stage in job.stages] == [1, 2]
    body = json.loads(wire.requests[1].content)
    first, second = body["stages"]
    assert [(task["data"]["source"], task.get("maxAttempts")) for task in first["tasks"]] == [("a", None), ("b", 1)]
    assert (second["type"], second["data"], second["startAsWaiting"], second["tasks"]) == (
        "sheets",
        {"source": "all"},
        True,
        [],
    )
    assert {stage["traceparent"] for stage in body["stages"]} == {body["traceparent"]}


async def test_without_the_feature_stages_are_created_one_by_one(
    wire: "Wire", entity: Make, task_json: Make, refusal: Refuse
) -> None:
    """The first stage waits until everything is created, so that no stage can end too early."""
    first, second, done = stage_json(entity, 1), stage_json(entity, 2), {"code": "STAGE_MODIFIED_SUCCESSFULLY"}
    job = job_json(entity)
    wire.will_answer(
        refusal(404, "NOT_FOUND"),
        httpx2.Response(201, json=job),
        httpx2.Response(201, json=first),
        httpx2.Response(201, json=[task_json(data={"source": "a"})]),
        httpx2.Response(201, json=second),
        httpx2.Response(200, json=done),
        httpx2.Response(200, json={**job, "stages": [first, second]}),
    )
    created = await Producer(wire.client).create_job(plain, stages=TREE)
    assert created.is_new
    assert [str(stage.id) for stage in created.stages] == [first["id"], second["id"]]
    assert wire.sent[1:] == [
        "POST /v1/jobs",
        f"POST /v1/jobs/{job['id']}/stage",
        f"POST /v1/stages/{first['id']}/tasks",
        f"POST /v1/jobs/{job['id']}/stage",
        f"PUT /v1/stages/{first['id']}/status",
        f"GET /v1/jobs/{job['id']}",
    ]
    assert json.loads(wire.requests[2].content)["startAsWaiting"]


async def test_incomplete_job_is_aborted(wire: "Wire", entity: Make, refusal: Refuse) -> None:
    """If a stage cannot be created, the job is aborted, and the error is raised with a note about the job."""
    job = job_json(entity)
    wire.will_answer(
        refusal(404, "NOT_FOUND"),
        httpx2.Response(201, json=job),
        httpx2.Response(201, json=stage_json(entity)),
        refusal(400, "STAGE_IN_FINITE_STATE"),
        httpx2.Response(200, json={"code": "JOB_MODIFIED_SUCCESSFULLY"}),
    )
    with pytest.raises(StageFinishedError) as caught:
        await Producer(wire.client).create_job(plain, stages=TREE)
    assert caught.value.__notes__ == [f"The job at /v1/jobs/{job['id']} was created, and has been aborted."]
    assert json.loads(wire.requests[-1].content) == {"status": "ABORTED"}


async def test_job_that_cannot_be_aborted_is_named(wire: "Wire", entity: Make, refusal: Refuse) -> None:
    """The note has the path of the job that is left over."""
    job = job_json(entity)
    wire.will_answer(
        refusal(404, "NOT_FOUND"),
        httpx2.Response(201, json=job),
        refusal(400, "VALIDATION_ERROR"),
        refusal(500, "DATABASE_RELATED_ERROR"),
    )
    with pytest.raises(Exception, match="VALIDATION_ERROR") as caught:
        await Producer(wire.client).create_job(plain, stages=TREE)
    assert caught.value.__notes__[0].startswith(
        f"The job at /v1/jobs/{job['id']} was created, but could not be aborted"
    )


async def test_invalid_task_in_a_tree_is_named(wire: "Wire") -> None:
    """The whole tree is validated before anything is sent."""
    wrong: Any = NewStage(sheets, [Picture.model_construct()], data=Picture(source="a"))
    with pytest.raises(InvalidPayloadError) as caught:
        await Producer(wire.client).create_job(plain, stages=[TREE[0], wrong])
    assert caught.value.field == "stages[1].tasks[0].data.source"
    with pytest.raises(InvalidPayloadError, match=r"^weight: "):
        NewStage(pictures, weight=-1)
    assert not wire.sent


async def test_tree_requires_the_features_of_its_stages(wire: "Wire", refusal: Refuse) -> None:
    """If the manager lacks a feature that one stage needs, nothing is created."""
    wire.will_answer(refusal(404, "NOT_FOUND"))
    with pytest.raises(UnsupportedError, match="weighted-progress"):
        await Producer(wire.client).create_job(plain, stages=[NewStage(pictures, weight=2)])
    assert wire.sent == ["GET /v1/capabilities"]


async def test_existing_unique_job_gets_no_stages(wire: "Wire", entity: Make) -> None:
    """An existing job is not changed, and is returned with its own stages."""
    job = job_json(entity)
    wire.will_answer(
        httpx2.Response(200, json={"features": ["unique-jobs"]}),
        httpx2.Response(200, json=job),
        httpx2.Response(200, json={**job, "stages": [stage_json(entity)]}),
    )
    existing = await Producer(wire.client).create_job(plain, stages=TREE, unique_key="a")
    assert (existing.is_new, len(existing.stages)) == (False, 1)
    assert wire.sent[1:] == ["POST /v1/jobs", f"GET /v1/jobs/{job['id']}"]
