"""The methods of a blocking producer that create jobs, stages and tasks."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final, overload

from jobnik_sdk.model.arguments import check_integer, check_items
from jobnik_sdk.model.definitions import (
    EMPTY,
    AnyStageType,
    DataT,
    Empty,
    JobType,
    MetadataT,
    NewStage,
    NewTask,
    Priority,
    ResultT,
    StageType,
    TaskDefaults,
    TaskMetadataT,
    TaskT,
)
from jobnik_sdk.model.entities import CreatedJob, Stage, Task
from jobnik_sdk.producer.blocking.background import Caller, run
from jobnik_sdk.producer.paths import AnyJob, AnyStage
from jobnik_sdk.producer.producer import Producer
from jobnik_sdk.producer.streams import StreamProgress
from jobnik_sdk.producer.types import split_type

_CHUNK: Final = 500
"""The maximum number of tasks that a stream takes from its source at a time."""


class SyncCreations:
    """The methods of a blocking producer that create something."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._calls: Any = producer  # its overloads repeat those below

    @overload
    def create_job(
        self,
        job_type: JobType[Empty, Empty],
        *,
        priority: Priority = Priority.MEDIUM,
        stages: Iterable[NewStage] = (),
        unique_key: str | None = None,
        unique_for: timedelta | None = None,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> CreatedJob[Empty, Empty]: ...
    @overload
    def create_job(
        self,
        job_type: JobType[DataT, Empty],
        data: DataT,
        *,
        priority: Priority = Priority.MEDIUM,
        stages: Iterable[NewStage] = (),
        unique_key: str | None = None,
        unique_for: timedelta | None = None,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> CreatedJob[DataT, Empty]: ...
    @overload
    def create_job(
        self,
        job_type: JobType[Empty, MetadataT],
        *,
        metadata: MetadataT,
        priority: Priority = Priority.MEDIUM,
        stages: Iterable[NewStage] = (),
        unique_key: str | None = None,
        unique_for: timedelta | None = None,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> CreatedJob[Empty, MetadataT]: ...
    @overload
    def create_job(
        self,
        job_type: JobType[DataT, MetadataT],
        data: DataT,
        *,
        metadata: MetadataT,
        priority: Priority = Priority.MEDIUM,
        stages: Iterable[NewStage] = (),
        unique_key: str | None = None,
        unique_for: timedelta | None = None,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> CreatedJob[DataT, MetadataT]: ...

    def create_job(  # noqa: PLR0913 the options of a job
        self,
        job_type: JobType[Any, Any],
        data: Any = EMPTY,
        *,
        metadata: Any = EMPTY,
        priority: Priority = Priority.MEDIUM,
        stages: Iterable[NewStage] = (),
        unique_key: str | None = None,
        unique_for: timedelta | None = None,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> CreatedJob[Any, Any]:
        """Create a job, optionally with its stages and their tasks. It starts when it has a stage with tasks."""
        check_items("stages", stages, "NewStage")
        job = self._calls.create_job(
            job_type,
            data,
            metadata=metadata,
            priority=priority,
            stages=list(stages),
            unique_key=unique_key,
            unique_for=unique_for,
            idempotency_key=idempotency_key,
            traceparent=traceparent,
        )
        return run(job)

    @overload
    def create_stage(
        self,
        job: AnyJob,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Empty, Empty],
        *,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
        idempotency_key: str | None = None,
    ) -> Stage[TaskT, ResultT, TaskMetadataT, Empty, Empty]: ...
    @overload
    def create_stage(
        self,
        job: AnyJob,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, Empty],
        data: DataT,
        *,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
        idempotency_key: str | None = None,
    ) -> Stage[TaskT, ResultT, TaskMetadataT, DataT, Empty]: ...
    @overload
    def create_stage(
        self,
        job: AnyJob,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Empty, MetadataT],
        *,
        metadata: MetadataT,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
        idempotency_key: str | None = None,
    ) -> Stage[TaskT, ResultT, TaskMetadataT, Empty, MetadataT]: ...
    @overload
    def create_stage(
        self,
        job: AnyJob,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        data: DataT,
        *,
        metadata: MetadataT,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
        idempotency_key: str | None = None,
    ) -> Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]: ...

    def create_stage(  # noqa: PLR0913 the options of a stage
        self,
        job: AnyJob,
        stage_type: AnyStageType,
        data: Any = EMPTY,
        *,
        metadata: Any = EMPTY,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
        idempotency_key: str | None = None,
    ) -> Stage[Any, Any, Any, Any, Any]:
        """Create a stage at the end of a job."""
        stage = self._calls.create_stage(
            job,
            stage_type,
            data,
            metadata=metadata,
            waiting=waiting,
            weight=weight,
            task_defaults=task_defaults,
            idempotency_key=idempotency_key,
        )
        return run(stage)

    @overload
    def create_tasks(
        self,
        stage: Stage[TaskT, ResultT, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        /,
        *,
        idempotency_key: str | None = None,
    ) -> list[Task[TaskT, ResultT, TaskMetadataT]]: ...
    @overload
    def create_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        *,
        idempotency_key: str | None = None,
    ) -> list[Task[TaskT, ResultT, TaskMetadataT]]: ...

    def create_tasks(
        self, stage: AnyStage, stage_type: Any = None, tasks: Any = None, *, idempotency_key: str | None = None
    ) -> list[Any]:
        """Create tasks in a stage, in the order given: all of them, or none. For many tasks, use `stream_tasks`."""
        stage_type, tasks = split_type(stage_type, tasks)
        return run(self._calls.create_tasks(stage, stage_type, list(tasks), idempotency_key=idempotency_key))

    @overload
    def stream_tasks(
        self,
        stage: Stage[TaskT, Any, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        /,
        *,
        batch: int | None = None,
        in_flight: int = 4,
        on_progress: Callable[[StreamProgress], object] | None = None,
    ) -> int: ...
    @overload
    def stream_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        *,
        batch: int | None = None,
        in_flight: int = 4,
        on_progress: Callable[[StreamProgress], object] | None = None,
    ) -> int: ...

    def stream_tasks(  # noqa: PLR0913 the options of a stream
        self,
        stage: AnyStage,
        stage_type: Any = None,
        tasks: Any = None,
        *,
        batch: int | None = None,
        in_flight: int = 4,
        on_progress: Callable[[StreamProgress], object] | None = None,
    ) -> int:
        """Create any number of tasks in a stage, with only a few requests in memory, and return their number."""
        stage_type, tasks = split_type(stage_type, tasks)
        caller = Caller()
        if batch is not None:
            check_integer("batch", batch)
        noted = None if on_progress is None else caller.callback(on_progress)
        source = caller.iterate(tasks, min(batch or _CHUNK, _CHUNK))
        stream = self._calls.stream_tasks(
            stage, stage_type, source, batch=batch, in_flight=in_flight, on_progress=noted
        )
        count: int = run(stream, caller)
        return count
