"""Finds the reason why a job failed: its first task without attempts left."""

from contextlib import aclosing
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import structlog

from jobnik_sdk.errors import JobnikError
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.definitions import StageStatus, TaskStatus
from jobnik_sdk.model.entities import CreatedJob, Stage, Task
from jobnik_sdk.producer.pages import list_entities

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


async def failed_task(client: JobnikClient, job_id: UUID) -> Task[Any, Any, Any] | None:
    """Return the first failed task of a job, with plain JSON; None if it can no longer be read, which is logged."""
    try:
        job = read_one(
            CreatedJob[Any, Any], await client.request("GET", f"/v1/jobs/{job_id}?should_return_stages=true")
        )
        for stage in sorted(job.stages, key=lambda stage: stage.status is not StageStatus.FAILED):
            if stage.status is StageStatus.FAILED or stage.summary.failed:
                task = await _failed_task_of(client, stage)
                if task is not None:
                    return task
    except JobnikError as error:
        _log.warning("failed task cannot be read", job_id=str(job_id), reason=str(error))
    return None


async def _failed_task_of(client: JobnikClient, stage: Stage[Any, Any, Any, Any, Any]) -> Task[Any, Any, Any] | None:
    query = urlencode({"stage_id": stage.id, "status": TaskStatus.FAILED})
    tasks = list_entities(client, f"/v1/tasks?{query}", Task[Any, Any, Any], limit=1)
    async with aclosing(tasks):
        async for task in tasks:
            if task.status is TaskStatus.FAILED:
                return task
    return None
