"""Entities as managers of different ages tell them."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from jobnik_sdk import Empty, JobType, Stage, StageType, Task
from jobnik_sdk.model.entities import job_of, task_of
from pydantic import BaseModel


class Picture(BaseModel):
    """A task's data."""

    source: str


@pytest.mark.parametrize("spelling", [("createdAt", "updatedAt"), ("creationTime", "updateTime")])
def test_both_spellings_of_times_are_read(spelling: tuple[str, str], task_json: Callable[..., dict[str, Any]]) -> None:
    """Older managers spell the times of creation and update differently."""
    answer = task_json()
    created, updated = answer.pop("createdAt"), answer.pop("updatedAt")
    answer |= {spelling[0]: created, spelling[1]: updated}
    task = Task[Empty, Empty].model_validate(answer)
    assert task.created_at == task.updated_at
    assert task.created_at.isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize("times", [{}, {"startTime": None, "endTime": None}])
def test_times_that_are_not_set_may_be_null_or_missing(
    times: dict[str, None], task_json: Callable[..., dict[str, Any]]
) -> None:
    """A task that has not begun has no times."""
    task = Task[Empty, Empty].model_validate(task_json(**times))
    assert (task.start_time, task.end_time) == (None, None)


def test_unknown_fields_are_ignored(task_json: Callable[..., dict[str, Any]]) -> None:
    """A newer manager may say more."""
    answer = task_json(data={"source": "a", "news": 1}, leaseId=7, userMetadata={"owner": "me"})
    task = task_of(StageType("s", task=Picture)).model_validate(answer)
    assert task.data == Picture(source="a")
    assert task.metadata == Empty()


def test_job_is_typed_by_its_definition(entity: Callable[..., dict[str, Any]]) -> None:
    """Data and metadata become the models that the job type names."""
    answer = entity(name="gallery", status="PENDING", priority="HIGH", percentage=0, data={"source": "a"})
    job = job_of(JobType("gallery", data=Picture)).model_validate(answer)
    assert job.data.source == "a"
    assert job.traceparent == f"00-{'0' * 32}-{'0' * 16}-00"


def test_stage_carries_its_summary(entity: Callable[..., dict[str, Any]]) -> None:
    """Older managers do not count aborted tasks."""
    counts = {"pending": 1, "inProgress": 2, "completed": 3, "failed": 0, "created": 0, "retried": 4, "total": 10}
    answer = entity(jobId=str(uuid4()), type="s", order=1, status="IN_PROGRESS", percentage=30, summary=counts)
    stage = Stage[Empty, Empty].model_validate(answer)
    assert (stage.summary.in_progress, stage.summary.retried, stage.summary.aborted) == (2, 4, 0)
