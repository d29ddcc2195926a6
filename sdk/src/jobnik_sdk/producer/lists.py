"""Lists of jobs and stages, with their filters."""

import json
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from jobnik_sdk.errors import InvalidPayloadError, JobNotFoundError
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.arguments import (
    check_choice,
    check_flag,
    check_instance,
    check_integer,
    check_items,
    check_moment,
    check_text,
    invalid_option,
    shown,
)
from jobnik_sdk.model.definitions import AnyStageType, JobStatus, JobType, TaskStatus
from jobnik_sdk.model.entities import Job, Stage, Task, job_model, stage_model
from jobnik_sdk.producer.pages import PAGE_SIZE, list_entities
from jobnik_sdk.producer.paths import AnyJob, AnyStage, id_of, job_path, stage_path

JobT = TypeVar("JobT", bound=Job[Any, Any])

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LONGEST_NAME: Final = 50


@dataclass(frozen=True, kw_only=True)
class JobFilters:
    """The filters of `Producer.list_jobs`.

    Attributes:
        name: The name of the jobs; None: any.
        statuses: The statuses; None: any. An empty tuple matches no job.
        conditions: The values that the metadata must have, as the manager compares them.
    """

    job_type: JobType[Any, Any] | str | None
    status: InitVar[JobStatus | Collection[JobStatus] | None]
    created_since: datetime | None
    created_until: datetime | None
    metadata: InitVar[Mapping[str, str | int | float | bool] | None]
    oldest_first: bool
    limit: int | None
    progress: bool
    name: str | None = field(init=False)
    statuses: tuple[str, ...] | None = field(init=False)
    conditions: Mapping[str, str] = field(init=False)

    def __post_init__(self, status: Any, metadata: Any) -> None:  # noqa: ANN401 anything, if it is not type-checked
        name = self.job_type.name if isinstance(self.job_type, JobType) else self.job_type
        if name is not None:
            check_text("job_type", name, 0, _LONGEST_NAME, invalid_option)
        for argument, time in (("created_since", self.created_since), ("created_until", self.created_until)):
            if time is not None:
                check_moment(argument, time)
        check_flag("oldest_first", self.oldest_first)
        if self.limit is not None:
            check_integer("limit", self.limit, fault=invalid_option)
        check_flag("progress", self.progress)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "statuses", _statuses(status))
        object.__setattr__(self, "conditions", _conditions(metadata))


async def list_jobs(client: JobnikClient, filters: JobFilters) -> AsyncGenerator[Job[Any, Any]]:
    """Yield jobs; see `Producer.list_jobs`.

    A manager without the feature `list-filters` filters only by name and time, and always lists the oldest job first.
    Then everything else happens here, after the whole list has been read.
    """
    if filters.statuses == ():
        return
    statuses, limit = filters.statuses or (), filters.limit
    query = [] if filters.name is None else [("job_name", filters.name)]
    query += _times(filters)
    model = job_model(filters.job_type) if isinstance(filters.job_type, JobType) else Job[Any, Any]
    features = await client.capabilities()
    if "list-filters" in features:
        query += [("order", "asc" if filters.oldest_first else "desc")]
        query += [("status", status) for status in statuses]
        query += [("metadata", f"{name}:{text}") for name, text in filters.conditions.items()]
        page_size = PAGE_SIZE if limit is None else min(limit, PAGE_SIZE)
        jobs = list_entities(client, f"/v1/jobs?{urlencode(query)}", model, limit=page_size)
    else:
        listed = list_entities(client, f"/v1/jobs?{urlencode(query)}", Job[Any, Any])
        jobs = _selected(listed, model, filters)
    count = 0
    async with aclosing(jobs):
        async for job in jobs:
            count += 1
            try:
                yield await read_job(client, job, model, features) if filters.progress else job
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
    """Yield the tasks of a stage; see `Producer.list_tasks`.

    Raises:
        InvalidPayloadError: there is no such status.
    """
    path = f"{stage_path(stage)}/tasks"
    if status is not None:
        check_choice("status", status, TaskStatus)
        path = f"/v1/tasks?{urlencode({'stage_id': id_of(stage), 'status': status})}"
    return list_entities(client, path, model)


async def _selected(
    jobs: AsyncGenerator[Job[Any, Any]], model: type[Job[Any, Any]], filters: JobFilters
) -> AsyncGenerator[Job[Any, Any]]:
    """Yield the jobs that fulfil all conditions, in order, from a list of jobs with plain JSON."""
    selected = [
        job
        async for job in jobs
        if (filters.statuses is None or job.status in filters.statuses)
        and all(_as_text(job.metadata.get(name)) == text for name, text in filters.conditions.items())
    ]
    selected.sort(key=lambda job: job.created_at or _EARLIEST)
    for job in selected if filters.oldest_first else reversed(selected):
        yield model.model_validate(job.model_dump())


def _times(filters: JobFilters) -> list[tuple[str, str]]:
    limits = (("from_date", filters.created_since), ("end_date", filters.created_until))
    return [
        (parameter, time.astimezone(UTC).isoformat().replace("+00:00", "Z"))
        for parameter, time in limits
        if time is not None
    ]


def _statuses(given: Any) -> tuple[str, ...] | None:  # noqa: ANN401 anything, if it is not type-checked
    if given is None:
        return None
    if isinstance(given, str):
        given = (given,)
    check_items("status", given, "statuses")
    statuses = tuple(given)
    for status in statuses:
        check_choice("status", status, JobStatus)
    return statuses


def _conditions(metadata: Any) -> Mapping[str, str]:  # noqa: ANN401 anything, if it is not type-checked
    if metadata is None:
        return {}
    check_instance("metadata", metadata, dict)
    return {name: _condition(name, value) for name, value in metadata.items()}


def _condition(name: object, value: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"The names in metadata must be text, not {shown(name)}")
    text = _as_text(value)
    if text is None:
        raise InvalidPayloadError(f"metadata.{name}", f"must be text, a number or a boolean, not {shown(value)}.")
    if ":" in name:
        raise InvalidPayloadError(f"metadata.{name}", "the name must not contain a colon.")
    return text


def _as_text(value: object) -> str | None:
    """Return a value as the manager compares it; None if it equals nothing."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None
