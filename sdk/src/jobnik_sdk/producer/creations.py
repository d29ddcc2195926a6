"""The methods of a producer that create jobs, stages and tasks: they encode, send, and read what was created."""

from collections.abc import AsyncIterable, Callable, Iterable
from datetime import timedelta
from typing import Any, Final, overload
from uuid import UUID

from pydantic import ValidationError

from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.arguments import check_items
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
from jobnik_sdk.model.entities import CreatedJob, Stage, Task, created_job_model, stage_model, task_model
from jobnik_sdk.producer.bodies import (
    StageEncoder,
    TaskEncoder,
    job_fields,
    json_array,
    json_object,
    unique_fields,
)
from jobnik_sdk.producer.created import in_order, read_created, read_created_tasks
from jobnik_sdk.producer.paths import AnyJob, AnyStage, explicit_trace, id_of, job_path, stage_path, trace_in
from jobnik_sdk.producer.requests import NEW_JOB, OK, Requests, check_features, key_features, new_stage, require
from jobnik_sdk.producer.streams import StreamProgress, TaskStream
from jobnik_sdk.producer.types import split_type, type_for_tasks

BATCH_SIZE: Final = 1_000
"""The default number of tasks in a request of a stream."""

LARGE_BATCH_SIZE: Final = 4_000
"""The default number of tasks in a request of a stream if the manager does not have to return the created tasks."""


class Creations:
    """The methods of a producer that create something."""

    def __init__(self, client: JobnikClient) -> None:
        self._client = client
        self._requests = Requests(client)

    @overload
    async def create_job(
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
    async def create_job(
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
    async def create_job(
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
    async def create_job(
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

    async def create_job(  # noqa: PLR0913 the options of a job
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
        """Create a job, optionally with its stages and their tasks. It starts when it has a stage with tasks.

        >>> stage = NewStage(thumbnails, [ThumbnailTask(url=url) for url in urls])
        >>> job = await producer.create_job(gallery, GalleryData(owner="ada"), stages=[stage], unique_key="gallery-7")

        Args:
            job_type: The type of the job.
            data: The data of the job.
            metadata: The metadata of the job; it can change after the job is created.
            priority: Default `Priority.MEDIUM`.
            stages: The first stages of the job, in order. A manager with the feature `job-tree` creates everything in
                one request, or nothing. With other managers each stage is created on its own, and none starts before
                all exist; if one cannot be created, the job is aborted.
            unique_key: 1 to 200 characters. If a job with this key exists, no job is created, and the existing one is
                returned with `is_new` False. Needs the feature `unique-jobs`.
            unique_for: How long after its creation the job prevents others with its key: up to 365 days. None: until it
                ends.
            idempotency_key: 1 to 255 printable ASCII characters that identify this call, such as the id of a message or
                of a web request. If the call is repeated within 24 hours, even by another process, no second job is
                created, and the first one is returned as it was created. Needs the feature `idempotency-keys`.
            traceparent: The trace that the job belongs to, in the W3C format. Default: the current one.
        """
        check_items("stages", stages, "NewStage")
        stages = list(stages)
        trace = trace_in() if traceparent is None else explicit_trace(traceparent)
        fields = job_fields(job_type, data, metadata, priority, trace)
        unique = unique_fields(unique_key, unique_for)
        encoder = StageEncoder(trace)
        trees = [encoder.fields_and_tasks(stage, f"stages[{index}].") for index, stage in enumerate(stages)]
        required = encoder.required_features | key_features(idempotency_key)
        if unique:
            required.add("unique-jobs")
        if idempotency_key is not None and trees:
            required.add("job-tree")
        await require(self._client, required)
        fields |= unique
        in_one_request = bool(trees) and "job-tree" in await self._client.capabilities()
        if in_one_request:
            fields["stages"] = json_array([json_object(stage | {"tasks": tasks}) for stage, tasks in trees])
        response = await self._requests.post_job(fields, trace, idempotency_key)
        model = created_job_model(job_type)
        is_new = not unique or response.status_code != OK
        fields.pop("stages", None)
        job = read_created(model, response, fields, NEW_JOB) if is_new else read_one(model, response)
        if trees and not in_one_request:
            created = await self._requests.create_stages(job.id, trees, trace) if is_new else []
            job = await self._requests.read_with_stages(model, job, created)
        return job.model_copy(update={"is_new": is_new, "stages": _typed(job.stages, stages)})

    @overload
    async def create_stage(
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
    async def create_stage(
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
    async def create_stage(
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
    async def create_stage(
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

    async def create_stage(  # noqa: PLR0913 the options of a stage
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
        """Create a stage at the end of a job.

        Args:
            job: The job, or its id.
            stage_type: The type of the stage.
            data: The data of the stage itself.
            metadata: The metadata of the stage itself; it can change after the stage is created.
            waiting: True creates a stage that starts when `start_stage` is called. Default False.
            weight: The weight of the stage in the progress of its job; see `NewStage`.
            task_defaults: The options of tasks that do not set their own; see `NewStage`.
            idempotency_key: Identifies this call; see `create_job`. If the call is repeated, the first stage is
                returned as it was created.
        """
        new = NewStage(
            stage_type, data=data, metadata=metadata, waiting=waiting, weight=weight, task_defaults=task_defaults
        )
        trace = trace_in(job)
        encoder = StageEncoder(trace)
        fields = encoder.fields(new)
        await require(self._client, encoder.required_features | key_features(idempotency_key))
        response = await self._requests.post_stage(job_path(job), fields, trace, idempotency_key)
        return read_created(stage_model(stage_type), response, fields, new_stage(id_of(job)))

    @overload
    async def create_tasks(
        self,
        stage: Stage[TaskT, ResultT, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        /,
        *,
        idempotency_key: str | None = None,
    ) -> list[Task[TaskT, ResultT, TaskMetadataT]]: ...
    @overload
    async def create_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        *,
        idempotency_key: str | None = None,
    ) -> list[Task[TaskT, ResultT, TaskMetadataT]]: ...

    async def create_tasks(
        self, stage: AnyStage, stage_type: Any = None, tasks: Any = None, *, idempotency_key: str | None = None
    ) -> list[Any]:
        """Create tasks in a stage, in the order given: all of them, or none. For many tasks, use `stream_tasks`.

        >>> await producer.create_tasks(stage, [ThumbnailTask(url=url) for url in urls])

        Args:
            stage: The stage, or its id.
            stage_type: The type of the stage; needed only with an id.
            tasks: Each task as its data or a `NewTask`.
            idempotency_key: Identifies this call; see `create_job`. If the call is repeated, the first tasks are
                returned as they were created.
        """
        stage_type, tasks = split_type(stage_type, tasks)
        known = type_for_tasks(stage, stage_type)
        trace = trace_in(stage)
        encoder = TaskEncoder(known, trace)
        given = list(tasks)
        documents = [encoder.encode(index, task) for index, task in enumerate(given)]
        await require(self._client, encoder.required_features | key_features(idempotency_key))
        if not documents and not await self._client.capabilities():
            return []  # the original manager fails with an empty list
        response = await self._requests.post_tasks(
            stage_path(stage), json_array(documents), trace, idempotency_key=idempotency_key
        )
        created = read_created_tasks(task_model(known), response, documents, id_of(stage))
        return in_order(created, [_data_of(task) for task in given])

    @overload
    async def stream_tasks(
        self,
        stage: Stage[TaskT, Any, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]] | AsyncIterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        /,
        *,
        batch: int | None = None,
        in_flight: int = 4,
        on_progress: Callable[[StreamProgress], object] | None = None,
    ) -> int: ...
    @overload
    async def stream_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]] | AsyncIterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        *,
        batch: int | None = None,
        in_flight: int = 4,
        on_progress: Callable[[StreamProgress], object] | None = None,
    ) -> int: ...

    async def stream_tasks(  # noqa: PLR0913 the options of a stream
        self,
        stage: AnyStage,
        stage_type: Any = None,
        tasks: Any = None,
        *,
        batch: int | None = None,
        in_flight: int = 4,
        on_progress: Callable[[StreamProgress], object] | None = None,
    ) -> int:
        """Create any number of tasks in a stage, with only a few requests in memory, and return their number.

        >>> stage = await producer.create_stage(job, thumbnails, waiting=True)
        >>> await producer.stream_tasks(stage, (ThumbnailTask(url=url) for url in read_urls()))
        >>> await producer.start_stage(stage)

        Args:
            stage: The stage, or its id. Create it with `waiting=True`: otherwise it may complete with the first batches
                before the last one is created.
            stage_type: The type of the stage; needed only with an id.
            tasks: Each task as its data or a `NewTask`. They are consumed only as fast as they are sent.
            batch: The maximum number of tasks in a request; a request is also limited to 1 MB. None: 4,000 if the
                manager has the feature `minimal-answers`, otherwise 1,000.
            in_flight: The maximum number of requests at the same time, default 4. With 1 the tasks are created in
                order; with more, batches may overtake each other.
            on_progress: Called after each batch. If it returns an awaitable, that is awaited.

        Raises:
            StreamError: the stream stopped before its end. It says which tasks were created, and its `__cause__` is the
                reason.
            ConfigurationError: `batch` or `in_flight` is less than 1.
        """
        stage_type, tasks = split_type(stage_type, tasks)
        known = type_for_tasks(stage, stage_type)
        trace = trace_in(stage)
        features = await self._client.capabilities()
        minimal = "minimal-answers" in features
        prefer = "return=minimal" if minimal else None
        path = stage_path(stage)
        # Such a manager reads the trace from the header of the request. A trace in each task would double its work.
        encoder = TaskEncoder(known, {} if minimal and trace.keys() == {"traceparent"} else trace)

        def encode(position: int, task: Any) -> bytes:  # noqa: ANN401 the encoder checks it
            document = encoder.encode(position, task)
            check_features(encoder.required_features, features)
            return document

        async def send(body: bytes) -> None:
            await self._requests.post_tasks(path, body, trace, prefer)

        if batch is None:
            batch = LARGE_BATCH_SIZE if minimal else BATCH_SIZE
        stream = TaskStream(encode, send, batch=batch, in_flight=in_flight, on_progress=on_progress)
        return await stream.run(tasks)


async def create_tasks_once(
    client: JobnikClient,
    stage_id: UUID,
    stage_type: AnyStageType,
    tasks: Iterable[Any],
    new_key: Callable[[bytes], str],
) -> int:
    """Create tasks in one request whose idempotency key depends on its content, and return their number.

    Args:
        client: The connection to the manager.
        stage_id: The stage.
        stage_type: The type of the stage.
        tasks: The tasks.
        new_key: Returns the key for a content.
    """
    encoder = TaskEncoder(stage_type, {})
    encoded = [encoder.encode(index, task) for index, task in enumerate(tasks)]
    body = json_array(encoded)
    await require(client, encoder.required_features | {"idempotency-keys"})
    key = new_key(b"%b%b" % (stage_id.bytes, body))
    await Requests(client).post_tasks(stage_path(stage_id), body, trace_in(), "return=minimal", key)
    return len(encoded)


def _data_of(task: Any) -> Any:  # noqa: ANN401 the encoder has checked it
    return task.data if isinstance(task, NewTask) else task  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] likewise


def _typed(
    stages: Iterable[Stage[Any, Any, Any, Any, Any]], new: Iterable[NewStage]
) -> tuple[Stage[Any, Any, Any, Any, Any], ...]:
    """Return the stages of a job with the types that they were created with."""
    types = {stage.stage_type.name: stage.stage_type for stage in new}
    return tuple(_with_type(stage, types.get(stage.type)) for stage in stages)


def _with_type(
    stage: Stage[Any, Any, Any, Any, Any], stage_type: AnyStageType | None
) -> Stage[Any, Any, Any, Any, Any]:
    if stage_type is None:
        return stage
    try:
        return stage_model(stage_type).model_validate(stage.model_dump())
    except ValidationError:  # another producer created it with other models
        return stage
