"""The producer: creates, reads, watches and controls jobs, stages and tasks."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, overload

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.http.addresses import address_in_environment
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.arguments import check_choice, check_duration, check_instance
from jobnik_sdk.model.definitions import (
    AnyStageType,
    DataT,
    JobStatus,
    JobType,
    MetadataT,
    Priority,
    ResultT,
    StageStatus,
    StageType,
    TaskMetadataT,
    TaskStatus,
    TaskT,
)
from jobnik_sdk.model.entities import Attempt, Job, Stage, Summary, Task
from jobnik_sdk.producer.creations import Creations
from jobnik_sdk.producer.lists import JobFilters, list_jobs, list_stages, list_tasks, read_job
from jobnik_sdk.producer.pages import linked_pages, list_entities
from jobnik_sdk.producer.paths import AnyJob, AnyStage, AnyTask, id_of, job_path, stage_path, task_path
from jobnik_sdk.producer.requests import require
from jobnik_sdk.producer.types import model_for_job, model_for_stage, model_for_task, model_for_tasks
from jobnik_sdk.producer.watching import wait_for_end, watch_job

_MIN_TIMEOUT: Final = timedelta(milliseconds=1)


class Producer(Creations):
    """Creates, reads, watches and controls jobs, stages and tasks.

    >>> async with Producer("http://127.0.0.1:8080") as producer:
    ...     job = await producer.create_job(gallery, GalleryData(owner="ada"), stages=[NewStage(thumbnails, tasks)])
    ...     await producer.wait_for_job(job, timeout=timedelta(minutes=10))

    `SyncProducer` has the same methods for code without an event loop.

    Payloads are validated against their models before anything is sent. A job belongs to the current trace (see
    `use_trace`), or else to a new one. Stages and tasks belong to the trace of the job or stage that you pass; if you
    pass only its id, to the current trace.

    Jobs, stages and tasks know their type. Pass the type only together with an id.

    Every method can raise these errors:

    - `InvalidPayloadError`: a payload or an option is invalid. Nothing was sent.
    - `UnsupportedError`: the manager lacks a feature. Nothing was sent.
    - `UnreachableError`: the manager did not respond.
    - `AnswerError`, or a subclass of it: the manager responded with an error.

    Args:
        manager: The address of the manager, or a client. A client is shared, and stays open when the producer is
            closed. Default: the address in the environment variable JOBNIK_BASE_URL.
        timeout: The maximum duration of each request, with its retries. Most calls send one request; streams, lists and
            waits send several. Default: twice the timeout of the client, which is one minute.
        token: The token, or a file that contains it and is read again when it changes. Default: the environment
            variables JOBNIK_TOKEN and JOBNIK_TOKEN_FILE; see `JobnikClient`.
    """

    def __init__(
        self,
        manager: JobnikClient | str | None = None,
        *,
        timeout: timedelta | None = None,
        token: str | Path | None = None,
    ) -> None:
        address = address_in_environment() if manager is None else manager
        client = JobnikClient(address, token=token) if isinstance(address, str) else address
        if client is manager and token is not None:
            raise ConfigurationError("Pass the token to the client, not to its producer.")
        check_instance("The manager of a producer", client, JobnikClient)
        if timeout is not None:
            check_duration("The timeout of a producer", timeout, _MIN_TIMEOUT)
        self._owned = None if client is manager else client
        super().__init__(client.limited(timeout or 2 * client.timeout))

    async def __aenter__(self) -> Self:
        """Return the producer itself; connections are opened on demand."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the producer."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless they belong to a client that was passed. Idempotent."""
        if self._owned is not None:
            await self._owned.aclose()

    def with_timeout(self, timeout: timedelta) -> "Producer":
        """Return a producer that shares the connections of this one, and has another timeout.

        >>> await producer.with_timeout(timedelta(seconds=2)).get_job(job)
        """
        return Producer(self._client, timeout=timeout)

    @overload
    async def wait_for_job(
        self,
        job: Job[DataT, MetadataT],
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109 it limits the wait, not the job
        on_progress: Callable[[Job[DataT, MetadataT]], object] | None = None,
    ) -> Job[DataT, MetadataT]: ...
    @overload
    async def wait_for_job(
        self,
        job: AnyJob,
        job_type: JobType[DataT, MetadataT],
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109 likewise
        on_progress: Callable[[Job[DataT, MetadataT]], object] | None = None,
    ) -> Job[DataT, MetadataT]: ...

    async def wait_for_job(
        self,
        job: AnyJob,
        job_type: JobType[Any, Any] | None = None,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109 likewise
        on_progress: Callable[[Any], object] | None = None,
    ) -> Job[Any, Any]:
        """Wait until a job is completed, and return it.

        >>> job = await producer.wait_for_job(job, on_progress=lambda job: print(job.percentage))

        The job is polled as in `watch_job`; if the manager becomes unreachable meanwhile, the wait continues.

        Args:
            job: The job, or its id.
            job_type: The type of the job; needed only with an id.
            timeout: The maximum time to wait; None: no limit.
            on_progress: Called with the job, first as it is and then after each change. If it returns an awaitable,
                that is awaited.

        Raises:
            JobFailedError: the job has failed; the error contains the failed task.
            JobAbortedError: the job was aborted.
            WaitTimeoutError: the job did not end within `timeout`. It is still running.
        """
        changes = watch_job(self._client, job, model_for_job(job, job_type))
        return await wait_for_end(self._client, id_of(job), changes, timeout, on_progress)

    @overload
    def watch_job(self, job: Job[DataT, MetadataT]) -> AsyncGenerator[Job[DataT, MetadataT]]: ...
    @overload
    def watch_job(self, job: AnyJob, job_type: JobType[DataT, MetadataT]) -> AsyncGenerator[Job[DataT, MetadataT]]: ...

    def watch_job(self, job: AnyJob, job_type: JobType[Any, Any] | None = None) -> AsyncGenerator[Job[Any, Any]]:
        """Yield a job as it is, and again after each change of its status or progress, until it ends.

        >>> async for job in producer.watch_job(job):
        ...     print(job.status, job.percentage)

        The job is polled ten times a second at first and gradually less often: every 5 s after a minute. If the manager
        has the feature `weighted-progress`, the job has `progress` with a fraction and an estimate. If the manager
        becomes unreachable after the first response, polling continues.
        """
        return watch_job(self._client, job, model_for_job(job, job_type))

    @overload
    async def get_job(self, job: Job[DataT, MetadataT]) -> Job[DataT, MetadataT]: ...
    @overload
    async def get_job(self, job: AnyJob, job_type: JobType[DataT, MetadataT]) -> Job[DataT, MetadataT]: ...

    async def get_job(self, job: AnyJob, job_type: JobType[Any, Any] | None = None) -> Job[Any, Any]:
        """Return a job, with its `progress` if the manager has the feature `weighted-progress`."""
        model = model_for_job(job, job_type)
        return await read_job(self._client, job, model, await self._client.capabilities())

    @overload
    async def get_stage(
        self, stage: Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]
    ) -> Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]: ...
    @overload
    async def get_stage(
        self, stage: AnyStage, stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]
    ) -> Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]: ...

    async def get_stage(
        self, stage: AnyStage, stage_type: AnyStageType | None = None
    ) -> Stage[Any, Any, Any, Any, Any]:
        """Return a stage."""
        return read_one(model_for_stage(stage, stage_type), await self._client.request("GET", stage_path(stage)))

    async def get_summary(self, stage: AnyStage) -> Summary:
        """Return the number of tasks of a stage in each status."""
        return read_one(Summary, await self._client.request("GET", f"{stage_path(stage)}/summary"))

    @overload
    async def get_task(self, task: Task[TaskT, ResultT, TaskMetadataT]) -> Task[TaskT, ResultT, TaskMetadataT]: ...
    @overload
    async def get_task(
        self, task: AnyTask, stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> Task[TaskT, ResultT, TaskMetadataT]: ...

    async def get_task(self, task: AnyTask, stage_type: AnyStageType | None = None) -> Task[Any, Any, Any]:
        """Return a task. A manager with part A only has no `result`, `error` and `progress` of tasks."""
        return read_one(model_for_task(task, stage_type), await self._client.request("GET", task_path(task)))

    @overload
    async def get_tasks(
        self, stage: Stage[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> list[Task[TaskT, ResultT, TaskMetadataT]]: ...
    @overload
    async def get_tasks(
        self, stage: AnyStage, stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> list[Task[TaskT, ResultT, TaskMetadataT]]: ...

    async def get_tasks(self, stage: AnyStage, stage_type: AnyStageType | None = None) -> list[Task[Any, Any, Any]]:
        """Return all tasks of a stage, in the order in which they were created. For many tasks, use `list_tasks`."""
        model = model_for_tasks(stage, stage_type)
        tasks = list_entities(self._client, f"{stage_path(stage)}/tasks", model, limit=None)
        return [task async for task in tasks]

    async def get_attempts(self, task: AnyTask) -> list[Attempt]:
        """Return all attempts at a task, oldest first. Needs the feature `attempts`."""
        await require(self._client, {"attempts"})
        pages = linked_pages(self._client, f"{task_path(task)}/attempts", Attempt)
        return [attempt async for page in pages for attempt in page.items]

    @overload
    def list_jobs(
        self,
        job_type: JobType[DataT, MetadataT],
        *,
        status: JobStatus | Collection[JobStatus] | None = None,
        created_since: datetime | None = None,
        created_until: datetime | None = None,
        metadata: Mapping[str, str | int | float | bool] | None = None,
        oldest_first: bool = False,
        limit: int | None = None,
        progress: bool = False,
    ) -> AsyncGenerator[Job[DataT, MetadataT]]: ...
    @overload
    def list_jobs(
        self,
        job_type: str | None = None,
        *,
        status: JobStatus | Collection[JobStatus] | None = None,
        created_since: datetime | None = None,
        created_until: datetime | None = None,
        metadata: Mapping[str, str | int | float | bool] | None = None,
        oldest_first: bool = False,
        limit: int | None = None,
        progress: bool = False,
    ) -> AsyncGenerator[Job[Any, Any]]: ...

    def list_jobs(  # noqa: PLR0913 the options of a list
        self,
        job_type: JobType[Any, Any] | str | None = None,
        *,
        status: JobStatus | Collection[JobStatus] | None = None,
        created_since: datetime | None = None,
        created_until: datetime | None = None,
        metadata: Mapping[str, str | int | float | bool] | None = None,
        oldest_first: bool = False,
        limit: int | None = None,
        progress: bool = False,
    ) -> AsyncGenerator[Job[Any, Any]]:
        """Yield the jobs that match all filters, newest first.

        >>> async for job in producer.list_jobs(gallery, status=JobStatus.FAILED, metadata={"owner": "ada"}):
        ...     print(job.id, job.created_at)

        Like the other `list_` methods, it reads pages of 500 on demand, and keeps one page in memory. If the manager
        lacks the feature `lists`, it reads the whole list at once. If the manager lacks the feature `list-filters`, the
        SDK reads all jobs with this name that were created in this time, and filters and sorts them itself.

        Args:
            job_type: The type of the jobs; or their name, or None for all jobs, which returns plain JSON as data.
            status: One or several statuses.
            created_since: The earliest time of creation, with a time zone.
            created_until: The latest time of creation, with a time zone.
            metadata: Values that the metadata of the job must have, by name: text, numbers or booleans.
            oldest_first: True reverses the order. Default False.
            limit: The maximum number of jobs. None: all.
            progress: True sets the `progress` of each job, which takes one more request for each job. Default False.
        """
        filters = JobFilters(
            job_type=job_type,
            status=status,
            created_since=created_since,
            created_until=created_until,
            metadata=metadata,
            oldest_first=oldest_first,
            limit=limit,
            progress=progress,
        )
        return list_jobs(self._client, filters)

    @overload
    def list_stages(
        self, job: AnyJob, stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]
    ) -> AsyncGenerator[Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]]: ...
    @overload
    def list_stages(self, job: AnyJob) -> AsyncGenerator[Stage[Any, Any, Any, Any, Any]]: ...

    def list_stages(
        self, job: AnyJob, stage_type: AnyStageType | None = None
    ) -> AsyncGenerator[Stage[Any, Any, Any, Any, Any]]:
        """Yield the stages of a job that are of this type, in order; without a type, all of them, as plain JSON."""
        return list_stages(self._client, job, stage_type)

    @overload
    def list_tasks(
        self, stage: Stage[TaskT, ResultT, TaskMetadataT, Any, Any], *, status: TaskStatus | None = None
    ) -> AsyncGenerator[Task[TaskT, ResultT, TaskMetadataT]]: ...
    @overload
    def list_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        status: TaskStatus | None = None,
    ) -> AsyncGenerator[Task[TaskT, ResultT, TaskMetadataT]]: ...

    def list_tasks(
        self, stage: AnyStage, stage_type: AnyStageType | None = None, status: TaskStatus | None = None
    ) -> AsyncGenerator[Task[Any, Any, Any]]:
        """Yield the tasks of a stage in the order of their creation, or only those in `status`; see `list_jobs`."""
        return list_tasks(self._client, stage, model_for_tasks(stage, stage_type), status)

    async def start_stage(self, stage: AnyStage) -> None:
        """Start a stage that was created with `waiting=True`. All stages before it must be completed."""
        await self._requests.command(
            "start_stage", "PUT", f"{stage_path(stage)}/status", {"status": StageStatus.PENDING}
        )

    async def pause_job(self, job: AnyJob) -> None:
        """Pause a job: no more of its tasks can be claimed. Those in progress continue."""
        await self._requests.command("pause_job", "PUT", f"{job_path(job)}/status", {"status": JobStatus.PAUSED})

    async def resume_job(self, job: AnyJob) -> None:
        """Resume a paused job: its tasks can be claimed again."""
        await self._requests.command("resume_job", "PUT", f"{job_path(job)}/status", {"status": JobStatus.PENDING})

    async def abort_job(self, job: AnyJob) -> None:
        """Abort a job, with all of its stages and tasks that have not finished."""
        await self._requests.command("abort_job", "PUT", f"{job_path(job)}/status", {"status": JobStatus.ABORTED})

    async def set_priority(self, job: AnyJob, priority: Priority) -> None:
        """Change the priority of a job. It applies to its waiting tasks immediately."""
        check_choice("priority", priority, Priority)
        await self._requests.command("set_priority", "PATCH", f"{job_path(job)}/priority", {"priority": str(priority)})

    async def delete_job(self, job: AnyJob) -> None:
        """Delete a finished job, with its stages and tasks."""
        await self._requests.command("delete_job", "DELETE", job_path(job), None)
