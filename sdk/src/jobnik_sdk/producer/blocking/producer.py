"""The producer for code without an event loop: every method of `Producer`, blocking."""

from collections.abc import Callable, Collection, Generator, Mapping
from copy import copy
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, overload

from jobnik_sdk.http.client import JobnikClient
from jobnik_sdk.model.definitions import (
    AnyStageType,
    DataT,
    JobStatus,
    JobType,
    MetadataT,
    Priority,
    ResultT,
    StageType,
    TaskMetadataT,
    TaskStatus,
    TaskT,
)
from jobnik_sdk.model.entities import Attempt, Job, Stage, Summary, Task
from jobnik_sdk.producer.blocking.background import Caller, finish, iterate, run
from jobnik_sdk.producer.blocking.creations import SyncCreations
from jobnik_sdk.producer.paths import AnyJob, AnyStage, AnyTask
from jobnik_sdk.producer.producer import Producer

_CHUNK: Final = 500
"""The maximum number of tasks that a stream takes from its source at a time."""


class SyncProducer(SyncCreations):
    """A `Producer` for code without an event loop, such as views of Flask and Django, scripts and plain handlers.

    >>> producer = SyncProducer("http://127.0.0.1:8080")
    >>> job = producer.create_job(gallery, GalleryData(owner="ada"), stages=[NewStage(thumbnails, tasks)])
    >>> producer.wait_for_job(job, timeout=timedelta(minutes=10))

    Each method does the same as the method of `Producer` with the same name, and blocks until it is done. The methods
    that return asynchronous iterators there return plain ones here.

    One producer serves all threads of a process, and can be created before the process forks: each process opens its
    own connections. They are closed at the exit of the process, by `close`, or at the end of a `with` block. Iterables
    and callbacks that you pass run in the calling thread.

    Args:
        manager: The address of the manager, or a client. A client is shared, and stays open when the producer is
            closed. Default: the address in the environment variable JOBNIK_BASE_URL.
        timeout: The maximum duration of each request, with its retries; see `Producer`.
        token: The token, or a file that contains it; see `Producer`.

    Raises:
        ConfigurationError: a method is called in the thread of a running event loop, which it would block.
    """

    def __init__(
        self,
        manager: JobnikClient | str | None = None,
        *,
        timeout: timedelta | None = None,
        token: str | Path | None = None,
    ) -> None:
        super().__init__(Producer(manager, timeout=timeout, token=token))

    def __enter__(self) -> Self:
        """Return the producer itself; connections are opened on demand."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the producer."""
        self.close()

    def close(self) -> None:
        """Close the connections, unless they belong to a client that was passed. Idempotent."""
        finish(self._producer.aclose())

    def with_timeout(self, timeout: timedelta) -> "SyncProducer":
        """Return a producer that shares the connections of this one, and has another timeout."""
        producer = copy(self)
        producer._calls = producer._producer = self._producer.with_timeout(timeout)  # noqa: SLF001 of the same class
        return producer

    @overload
    def wait_for_job(
        self,
        job: Job[DataT, MetadataT],
        *,
        timeout: timedelta | None = None,
        on_progress: Callable[[Job[DataT, MetadataT]], object] | None = None,
    ) -> Job[DataT, MetadataT]: ...
    @overload
    def wait_for_job(
        self,
        job: AnyJob,
        job_type: JobType[DataT, MetadataT],
        *,
        timeout: timedelta | None = None,
        on_progress: Callable[[Job[DataT, MetadataT]], object] | None = None,
    ) -> Job[DataT, MetadataT]: ...

    def wait_for_job(
        self,
        job: AnyJob,
        job_type: JobType[Any, Any] | None = None,
        *,
        timeout: timedelta | None = None,
        on_progress: Callable[[Any], object] | None = None,
    ) -> Job[Any, Any]:
        """Wait until a job is completed, and return it."""
        caller = Caller()
        note = None if on_progress is None else caller.callback(on_progress)
        return run(self._calls.wait_for_job(job, job_type, timeout=timeout, on_progress=note), caller)

    @overload
    def watch_job(self, job: Job[DataT, MetadataT]) -> Generator[Job[DataT, MetadataT]]: ...
    @overload
    def watch_job(self, job: AnyJob, job_type: JobType[DataT, MetadataT]) -> Generator[Job[DataT, MetadataT]]: ...

    def watch_job(self, job: AnyJob, job_type: JobType[Any, Any] | None = None) -> Generator[Job[Any, Any]]:
        """Yield a job as it is, and again after each change of its status or progress, until it ends."""
        return iterate(self._calls.watch_job(job, job_type))

    @overload
    def get_job(self, job: Job[DataT, MetadataT]) -> Job[DataT, MetadataT]: ...
    @overload
    def get_job(self, job: AnyJob, job_type: JobType[DataT, MetadataT]) -> Job[DataT, MetadataT]: ...

    def get_job(self, job: AnyJob, job_type: JobType[Any, Any] | None = None) -> Job[Any, Any]:
        """Return a job, with its `progress` if the manager has the feature `weighted-progress`."""
        return run(self._calls.get_job(job, job_type))

    @overload
    def get_stage(
        self, stage: Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]
    ) -> Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]: ...
    @overload
    def get_stage(
        self, stage: AnyStage, stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]
    ) -> Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]: ...

    def get_stage(self, stage: AnyStage, stage_type: AnyStageType | None = None) -> Stage[Any, Any, Any, Any, Any]:
        """Return a stage."""
        return run(self._calls.get_stage(stage, stage_type))

    def get_summary(self, stage: AnyStage) -> Summary:
        """Return the number of tasks of a stage in each status."""
        return run(self._producer.get_summary(stage))

    @overload
    def get_task(self, task: Task[TaskT, ResultT, TaskMetadataT]) -> Task[TaskT, ResultT, TaskMetadataT]: ...
    @overload
    def get_task(
        self, task: AnyTask, stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> Task[TaskT, ResultT, TaskMetadataT]: ...

    def get_task(self, task: AnyTask, stage_type: AnyStageType | None = None) -> Task[Any, Any, Any]:
        """Return a task. A manager with part A only has no `result`, `error` and `progress` of tasks."""
        return run(self._calls.get_task(task, stage_type))

    @overload
    def get_tasks(
        self, stage: Stage[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> list[Task[TaskT, ResultT, TaskMetadataT]]: ...
    @overload
    def get_tasks(
        self, stage: AnyStage, stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> list[Task[TaskT, ResultT, TaskMetadataT]]: ...

    def get_tasks(self, stage: AnyStage, stage_type: AnyStageType | None = None) -> list[Task[Any, Any, Any]]:
        """Return all tasks of a stage, in the order in which they were created. For many tasks, use `list_tasks`."""
        return run(self._calls.get_tasks(stage, stage_type))

    def get_attempts(self, task: AnyTask) -> list[Attempt]:
        """Return all attempts at a task, oldest first. Needs the feature `attempts`."""
        return run(self._producer.get_attempts(task))

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
    ) -> Generator[Job[DataT, MetadataT]]: ...
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
    ) -> Generator[Job[Any, Any]]: ...

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
    ) -> Generator[Job[Any, Any]]:
        """Yield the jobs that match all filters, newest first."""
        jobs = self._calls.list_jobs(
            job_type,
            status=status,
            created_since=created_since,
            created_until=created_until,
            metadata=metadata,
            oldest_first=oldest_first,
            limit=limit,
            progress=progress,
        )
        return iterate(jobs)

    @overload
    def list_stages(
        self, job: AnyJob, stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]
    ) -> Generator[Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]]: ...
    @overload
    def list_stages(self, job: AnyJob) -> Generator[Stage[Any, Any, Any, Any, Any]]: ...

    def list_stages(
        self, job: AnyJob, stage_type: AnyStageType | None = None
    ) -> Generator[Stage[Any, Any, Any, Any, Any]]:
        """Yield the stages of a job that are of this type, in order; without a type, all of them, as plain JSON."""
        return iterate(self._calls.list_stages(job, stage_type))

    @overload
    def list_tasks(
        self, stage: Stage[TaskT, ResultT, TaskMetadataT, Any, Any], *, status: TaskStatus | None = None
    ) -> Generator[Task[TaskT, ResultT, TaskMetadataT]]: ...
    @overload
    def list_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        status: TaskStatus | None = None,
    ) -> Generator[Task[TaskT, ResultT, TaskMetadataT]]: ...

    def list_tasks(
        self, stage: AnyStage, stage_type: AnyStageType | None = None, status: TaskStatus | None = None
    ) -> Generator[Task[Any, Any, Any]]:
        """Yield the tasks of a stage in the order of their creation, or only those in `status`; see `list_jobs`."""
        return iterate(self._calls.list_tasks(stage, stage_type, status))

    def start_stage(self, stage: AnyStage) -> None:
        """Start a stage that was created with `waiting=True`. All stages before it must be completed."""
        run(self._producer.start_stage(stage))

    def pause_job(self, job: AnyJob) -> None:
        """Pause a job: no more of its tasks can be claimed. Those in progress continue."""
        run(self._producer.pause_job(job))

    def resume_job(self, job: AnyJob) -> None:
        """Resume a paused job: its tasks can be claimed again."""
        run(self._producer.resume_job(job))

    def abort_job(self, job: AnyJob) -> None:
        """Abort a job, with all of its stages and tasks that have not finished."""
        run(self._producer.abort_job(job))

    def set_priority(self, job: AnyJob, priority: Priority) -> None:
        """Change the priority of a job. It applies to its waiting tasks immediately."""
        run(self._producer.set_priority(job, priority))

    def delete_job(self, job: AnyJob) -> None:
        """Delete a finished job, with its stages and tasks."""
        run(self._producer.delete_job(job))
