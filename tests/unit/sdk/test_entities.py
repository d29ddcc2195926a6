"""Entities in the responses of managers of different versions."""

import json
import pickle
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from jobnik_sdk import Empty, Job, JobStatus, JobType, Stage, StageType, Task
from jobnik_sdk.model.entities import job_model, task_model
from pydantic import BaseModel


class Picture(BaseModel):
    """The data of a task."""

    source: str


@pytest.mark.parametrize("names", [("createdAt", "updatedAt"), ("creationTime", "updateTime")])
def test_both_names_of_times_are_accepted(names: tuple[str, str], task_json: Callable[..., dict[str, Any]]) -> None:
    """Older managers use other names for the times of creation and update."""
    response = task_json()
    created, updated = response.pop("createdAt"), response.pop("updatedAt")
    response |= {names[0]: created, names[1]: updated}
    task = Task[Empty, Empty].model_validate(response)
    assert task.created_at is not None
    assert task.created_at == task.updated_at
    assert task.created_at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_times_may_be_missing(task_json: Callable[..., dict[str, Any]]) -> None:
    """The stages of the original manager have no times."""
    response = task_json()
    del response["createdAt"], response["updatedAt"]
    task = Task[Empty, Empty].model_validate(response)
    assert (task.created_at, task.updated_at) == (None, None)


@pytest.mark.parametrize("times", [{}, {"startTime": None, "endTime": None}])
def test_unset_times_are_null_or_missing(times: dict[str, None], task_json: Callable[..., dict[str, Any]]) -> None:
    """A task that has not started has no start time and no end time."""
    task = Task[Empty, Empty].model_validate(task_json(**times))
    assert (task.start_time, task.end_time) == (None, None)


def test_unknown_statuses_are_kept_as_text(entity: Callable[..., dict[str, Any]]) -> None:
    """A newer manager may have more of them; they equal no known status, and can be pickled."""
    job = Job[Empty, Empty].model_validate(entity(name="gallery", status="ARCHIVED", priority="NOW", percentage=0))
    assert (job.status, job.status.value, job.status.name, str(job.status)) == ("ARCHIVED",) * 4
    assert job.status not in set(JobStatus)
    assert [*JobStatus] == [JobStatus(status.value) for status in JobStatus]
    assert pickle.loads(pickle.dumps((job.status, JobStatus.PENDING))) == ("ARCHIVED", JobStatus.PENDING)  # noqa: S301 our own
    assert json.loads(job.model_dump_json())["status"] == "ARCHIVED"
    with pytest.raises(ValueError, match="ARCHIVED"):
        JobStatus("ARCHIVED")


@pytest.mark.parametrize("value", [None, "odd", [], {"a": 1}])
def test_optional_fields_may_have_any_value(value: object, task_json: Callable[..., dict[str, Any]]) -> None:
    """A field that is not essential has its default if it is null or invalid."""
    names = ("createdAt", "updatedAt", "traceparent", "tracestate", "startTime", "endTime", "error", "progress")
    task = Task[Empty, Empty].model_validate(task_json(**dict.fromkeys(names, value)))
    assert (task.created_at, task.start_time, task.end_time, task.progress) == (None, None, None, None)
    assert (task.error, task.tracestate) == (None, "odd" if value == "odd" else None)


def test_unknown_fields_are_ignored(task_json: Callable[..., dict[str, Any]]) -> None:
    """A newer manager may send more fields."""
    response = task_json(data={"source": "a", "news": 1}, leaseId=7, userMetadata={"owner": "me"})
    task = task_model(StageType("s", task=Picture)).model_validate(response)
    assert task.data == Picture(source="a")
    assert task.metadata == Empty()


def test_job_is_typed_by_its_job_type(entity: Callable[..., dict[str, Any]]) -> None:
    """Data and metadata are instances of the job type's models."""
    response = entity(name="gallery", status="PENDING", priority="HIGH", percentage=0, data={"source": "a"})
    job = job_model(JobType("gallery", data=Picture)).model_validate(response)
    assert job.data.source == "a"
    assert job.traceparent == f"00-{'0' * 32}-{'0' * 16}-00"


def test_stage_has_a_summary(entity: Callable[..., dict[str, Any]]) -> None:
    """Older managers do not count aborted tasks."""
    counts = {"pending": 1, "inProgress": 2, "completed": 3, "failed": 0, "created": 0, "retried": 4, "total": 10}
    response = entity(jobId=str(uuid4()), type="s", order=1, status="IN_PROGRESS", percentage=30, summary=counts)
    stage = Stage[Empty, Empty].model_validate(response)
    assert (stage.summary.in_progress, stage.summary.retried, stage.summary.aborted) == (2, 4, 0)
