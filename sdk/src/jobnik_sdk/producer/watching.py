"""Polls a job until it ends, and finds out why it failed."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from inspect import isawaitable
from typing import Any, Final, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import structlog

from jobnik_sdk.errors import JobAbortedError, JobFailedError, JobnikError, WaitTimeoutError
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.http.retries import TRANSIENT_ERRORS
from jobnik_sdk.model.arguments import check_callable, check_duration
from jobnik_sdk.model.definitions import JobStatus, StageStatus, TaskStatus
from jobnik_sdk.model.entities import CreatedJob, Job, Stage, Summary, Task
from jobnik_sdk.producer.lists import read_job
from jobnik_sdk.producer.pages import list_entities
from jobnik_sdk.producer.paths import AnyJob, id_of

MIN_PAUSE_SECONDS: Final = 0.1
MAX_PAUSE_SECONDS: Final = 5.0
PAUSE_FRACTION: Final = 0.1
"""The pause between two requests, as a fraction of the time since the start: a change is seen at most 10 % late."""

_LAST_LOOK_SECONDS: Final = 5.0
"""How long reading the stages of a job may take, for the message of an error."""

_WITHOUT_STAGES: Final = "it has no stages; it ends only after it has got one"
_WITHOUT_WORK: Final = "all its stages are completed"

FINAL_STATUSES: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ABORTED})

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)

JobT = TypeVar("JobT", bound=Job[Any, Any])


async def watch_job(client: JobnikClient, job: AnyJob, model: type[JobT]) -> AsyncGenerator[JobT]:
    """Yield a job as it is, and again after each change; see `Producer.watch_job`."""
    features = await client.capabilities()

    async def read() -> JobT:
        return await read_job(client, job, model, features)

    async with aclosing(watch(id_of(job), read)) as changes:
        async for change in changes:
            yield change


async def watch(job_id: UUID, read: Callable[[], Awaitable[JobT]]) -> AsyncGenerator[JobT]:
    """Yield the job that `read` returns, first as it is and then after each change, until the job ends.

    A transient error is logged and the request repeated, but an error of the first request is raised.
    """
    started = time.monotonic()
    last_state: tuple[object, ...] | None = None
    while True:
        try:
            job = await read()
        except TRANSIENT_ERRORS as error:
            if last_state is None:
                raise
            _log.warning("job cannot be read, trying again", job_id=str(job_id), reason=str(error))
        else:
            state = (job.status, job.percentage, job.progress and job.progress.fraction)
            if state != last_state:
                last_state = state
                yield job
            if job.status in FINAL_STATUSES:
                return
        pause = PAUSE_FRACTION * (time.monotonic() - started)
        await asyncio.sleep(min(max(MIN_PAUSE_SECONDS, pause), MAX_PAUSE_SECONDS))


async def wait_for_end(
    client: JobnikClient,
    job_id: UUID,
    changes: AsyncGenerator[JobT],
    timeout: timedelta | None,  # noqa: ASYNC109 it limits the wait, not the job
    on_progress: Callable[[JobT], object] | None,
) -> JobT:
    """Return the job once it is completed; see `Producer.wait_for_job`."""
    if timeout is not None:
        check_duration("timeout", timeout, timedelta(), timedelta.max)
    if on_progress is not None:
        check_callable("on_progress", on_progress)
    limit = asyncio.timeout(None if timeout is None else timeout.total_seconds())
    latest: JobT | None = None
    try:
        async with limit, aclosing(changes):
            async for latest in changes:
                noted = None if on_progress is None else on_progress(latest)
                if isawaitable(noted):
                    await noted
    except TimeoutError:
        if not limit.expired():
            raise
    match latest:
        case Job(status=JobStatus.COMPLETED):
            return latest
        case Job(status=JobStatus.FAILED):
            raise JobFailedError(latest, await _failed_task(client, latest.id))
        case Job(status=JobStatus.ABORTED):
            raise JobAbortedError(latest)
        case _:
            state = await _state(client, job_id)
            raise WaitTimeoutError(f"The job {job_id} did not end within {timeout}. {state}")


async def _state(client: JobnikClient, job_id: UUID) -> str:
    """Describe a job that has not ended in time, and the first of its stages that is not completed."""
    try:
        async with asyncio.timeout(_LAST_LOOK_SECONDS):
            job = await _read_with_stages(client, job_id)
    except (JobnikError, TimeoutError):
        return "It is still running."
    if job.status in FINAL_STATUSES:
        return f"It has ended since then: it is {job.status}."
    stages = sorted(job.stages, key=lambda stage: stage.order)
    stage = next((stage for stage in stages if stage.status is not StageStatus.COMPLETED), None)
    if stage is None:
        return f"It is still running: it is {job.status}, and {_WITHOUT_WORK if stages else _WITHOUT_STAGES}."
    place = f"stage {stage.order} of {len(stages)}, {stage.type!r}"
    return f"It is still running: it is {job.status}, and {place}, is {stage.status}{_counts(stage.summary)}."


def _counts(summary: Summary) -> str:
    if not summary.total:
        return " and has no tasks; it completes only after it has got some"
    others = {
        "in progress": summary.in_progress,
        "waiting": summary.created + summary.pending + summary.retried,
        "failed": summary.failed,
    }
    counts = [f"{summary.completed} of {summary.total} tasks completed"]
    return f": {', '.join([*counts, *(f'{count} {name}' for name, count in others.items() if count)])}"


async def _read_with_stages(client: JobnikClient, job_id: UUID) -> CreatedJob[Any, Any]:
    path = f"/v1/jobs/{job_id}?should_return_stages=true"
    return read_one(CreatedJob[Any, Any], await client.request("GET", path))


async def _failed_task(client: JobnikClient, job_id: UUID) -> Task[Any, Any, Any] | None:
    """Return the first failed task of a job, with plain JSON; None if it can no longer be read, which is logged."""
    try:
        job = await _read_with_stages(client, job_id)
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
