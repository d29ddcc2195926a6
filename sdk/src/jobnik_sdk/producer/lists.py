"""Lists of jobs and stages, with their filters."""

import json
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, TypedDict, TypeVar
from urllib.parse import urlencode

from jobnik_sdk.errors import InvalidPayloadError, JobNotFoundError
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.definitions import AnyStageType, JobStatus, JobType, TaskStatus
from jobnik_sdk.model.entities import Job, Stage, Task, job_model, stage_model
from jobnik_sdk.producer.pages import PAGE_SIZE, list_entities
from jobnik_sdk.producer.paths import AnyJob, AnyStage, id_of, job_path, stage_path

JobT = TypeVar("JobT", bound=Job[Any, Any])

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


class JobFilters(TypedDict, total=False):
    """The filters of `Producer.list_jobs`."""

    status: JobStatus | Collection[JobStatus] | None
    created_since: datetime | None
    created_until: datetime | None
    metadata: Mapping[str, str | int | float | bool] | None
    oldest_first: bool
    limit: int | None
    progress: bool


async def list_jobs(
    client: JobnikClient, job_type: JobType[Any, Any] | str | None, filters: JobFilters
) -> AsyncGenerator[Job[Any, Any]]:
    """Yield jobs; see `Producer.list_jobs`.

    A manager without the feature `list-filters` filters only by name and time, and always lists the oldest job first.
    Then everything else happens here, after the whole list has been read.
    """
    given = filters.get("status")
    statuses = [given] if isinstance(given, str) else list(given or ())
    if given is not None and not statuses:
        return
    conditions = {name: _condition(name, value) for name, value in (filters.get("metadata") or {}).items()}
    name = job_type.name if isinstance(job_type, JobType) else job_type
    query = [] if name is None else [("job_name", name)]
    query += _times(filters)
    model = job_model(job_type) if isinstance(job_type, JobType) else Job[Any, Any]
    oldest_first = filters.get("oldest_first", False)
    limit = filters.get("limit")
    if limit is not None and limit < 1:
        raise InvalidPayloadError("limit", f"must be 1 or more, not {limit}.")
    features = await client.capabilities()
    if "list-filters" in features:
        query += [("order", "asc" if oldest_first else "desc")]
        query += [("status", status) for status in statuses]
        query += [("metadata", f"{name}:{text}") for name, text in conditions.items()]
        page_size = PAGE_SIZE if limit is None else min(limit, PAGE_SIZE)
        jobs = list_entities(client, f"/v1/jobs?{urlencode(query)}", model, limit=page_size)
    else:
        listed = list_entities(client, f"/v1/jobs?{urlencode(query)}", Job[Any, Any])
        jobs = _selected(listed, model, statuses, conditions, oldest_first=oldest_first)
    count = 0
    async with aclosing(jobs):
        async for job in jobs:
            count += 1
            try:
                yield await read_job(client, job, model, features) if filters.get("progress") else job
            except JobNotFoundError:  # deleted since it was listed
                yield job
            if count == limit:
                return


async def read_job(client: JobnikClient, job: AnyJob, model: type[JobT], features: Collection[str]) -> JobT:
    """Read a job, with its progress if the manager has it."""
    path = f"{job_path(job)}?should_return_progress=true" if "weighted-progress" in features else job_path(job)
    return read_one(model, await client.request("GET", path))


async def list_stages(
    client: JobnikClient, job: AnyJob, stage_type: AnyStageType | None
) -> AsyncGenerator[Stage[Any, Any, Any, Any, Any]]:
    """Yield the stages of a job in order; see `Producer.list_stages`."""
    query = {"job_id": id_of(job)} | ({} if stage_type is None else {"stage_type": stage_type.name})
    model = Stage[Any, Any, Any, Any, Any] if stage_type is None else stage_model(stage_type)
    stages = [stage async for stage in list_entities(client, f"/v1/stages?{urlencode(query)}", model)]
    for stage in sorted(stages, key=lambda stage: stage.order):
        yield stage


def list_tasks(
    client: JobnikClient, stage: AnyStage, model: type[Task[Any, Any, Any]], status: TaskStatus | None
) -> AsyncGenerator[Task[Any, Any, Any]]:
    """Yield the tasks of a stage; see `Producer.list_tasks`."""
    path = f"{stage_path(stage)}/tasks"
    if status is not None:
        path = f"/v1/tasks?{urlencode({'stage_id': id_of(stage), 'status': status.value})}"
    return list_entities(client, path, model)


async def _selected(
    jobs: AsyncGenerator[Job[Any, Any]],
    model: type[Job[Any, Any]],
    statuses: Collection[str],
    conditions: Mapping[str, str],
    *,
    oldest_first: bool,
) -> AsyncGenerator[Job[Any, Any]]:
    """Yield the jobs that fulfil all conditions, in order, from a list of jobs with plain JSON."""
    selected = [
        job
        async for job in jobs
        if (not statuses or job.status in statuses)
        and all(_as_text(job.metadata.get(name)) == text for name, text in conditions.items())
    ]
    selected.sort(key=lambda job: job.created_at or _EARLIEST)
    for job in selected if oldest_first else reversed(selected):
        yield model.model_validate(job.model_dump())


def _times(filters: JobFilters) -> list[tuple[str, str]]:
    query: list[tuple[str, str]] = []
    limits = (
        ("from_date", "created_since", filters.get("created_since")),
        ("end_date", "created_until", filters.get("created_until")),
    )
    for parameter, argument, time in limits:
        if time is None:
            continue
        if time.tzinfo is None:
            raise InvalidPayloadError(argument, f"must have a time zone, but {time} has none.")
        query.append((parameter, time.astimezone(UTC).isoformat().replace("+00:00", "Z")))
    return query


def _condition(name: str, value: object) -> str:
    text = _as_text(value)
    if text is None:
        raise InvalidPayloadError(f"metadata.{name}", f"must be text, a number or a boolean, not {value!r}.")
    if ":" in name:
        raise InvalidPayloadError(f"metadata.{name}", "the name must not contain a colon.")
    return text


def _as_text(value: object) -> str | None:
    """Return a value as the manager compares it; None if it equals nothing."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None
