"""Finds the reason why a job failed: its first task without attempts left."""

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from jobnik_sdk.errors import JobnikError
from jobnik_sdk.http.client import JobnikClient, read_many, read_one
from jobnik_sdk.model.definitions import StageStatus, TaskStatus
from jobnik_sdk.model.entities import CreatedJob, Task


async def failed_task(client: JobnikClient, job_id: UUID) -> Task[Any, Any, Any] | None:
    """Return the first failed task of a job, with plain JSON; None if it can no longer be read."""
    with suppress(JobnikError):
        job = read_one(
            CreatedJob[Any, Any], await client.request("GET", f"/v1/jobs/{job_id}?should_return_stages=true")
        )
        limit = {"limit": 1} if "lists" in await client.capabilities() else {}
        for stage in job.stages:
            if stage.status is StageStatus.FAILED:
                query = urlencode({"stage_id": stage.id, "status": TaskStatus.FAILED, **limit})
                for task in read_many(Task[Any, Any, Any], await client.request("GET", f"/v1/tasks?{query}")):
                    return task
    return None
