"""The producer: creates, reads, watches and controls jobs, stages and tasks."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final, TypedDict, Unpack, overload
from urllib.parse import urlencode

from jobnik_sdk.errors import JobAbortedError, JobFailedError, WaitTimeoutError
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.arguments import check_duration, check_instance, check_names
from jobnik_sdk.model.definitions import (
    EMPTY,
    DataT,
    Empty,
    JobStatus,
    JobType,
    MetadataT,
    NewStage,
    NewTask,
    Priority,
    ResultT,
    StageOptions,
    StageStatus,
    StageType,
    TaskMetadataT,
    TaskStatus,
    TaskT,
)
from jobnik_sdk.model.entities import (
    Attempt,
    CreatedJob,
    Job,
    Stage,
    Summary,
    Task,
    created_job_model,
    job_model,
    stage_model,
    task_model,
)
from jobnik_sdk.producer.bodies import StageEncoder, TaskEncoder, job_fields, json_array, json_object, unique_fields
from jobnik_sdk.producer.created import in_order, read_created, read_created_tasks
from jobnik_sdk.producer.failures import failed_task
from jobnik_sdk.producer.pages import linked_pages, list_entities
from jobnik_sdk.producer.paths import (
    AnyJob,
    AnyStage,
    AnyTask,
    check_stage_type,
    explicit_trace,
    id_of,
    job_path,
    stage_path,
    task_path,
    trace_in,
)
from jobnik_sdk.producer.requests import NEW_JOB, OK, Requests, check_features, key_features, new_stage
from jobnik_sdk.producer.streams import StreamProgress, TaskStream
from jobnik_sdk.producer.watching import watch

BATCH_SIZE: Final = 1_000
"""The default number of tasks in a request of a stream."""

LARGE_BATCH_SIZE: Final = 4_000
"""The default number of tasks in a request of a stream if the manager does not have to return the created tasks."""

IN_FLIGHT: Final = 4
"""The default number of requests of a stream at the same time."""


class JobOptions(TypedDict, total=False):
    """The options of a job; see `Producer.create_job`."""

    priority: Priority
    stages: Iterable[NewStage]
    unique_key: str | None
    unique_for: timedelta | None
    idempotency_key: str | None
    traceparent: str | None


class Producer:
    """Creates, reads, watches and controls jobs, stages and tasks.

    >>> async with JobnikClient("http://127.0.0.1:8080") as client:
    ...     producer = Producer(client)
    ...     job = await producer.create_job(gallery, GalleryData(owner="ada"), stages=[NewStage(thumbnails, tasks)])
    ...     await producer.wait_for_job(job, gallery, timeout=timedelta(minutes=10))

    Payloads are validated against their models before anything is sent. A job belongs to the current trace (see
    `use_trace`), or else to a new one. Stages and tasks belong to the trace of the job or stage that you pass; if you
    pass only its id, to the current trace.

    Every method can raise these errors:

    - `InvalidPayloadError`: a payload or an option is invalid. Nothing was sent.
    - `UnsupportedError`: the manager lacks a feature. Nothing was sent.
    - `UnreachableError`: the manager did not respond.
    - `AnswerError`, or a subclass of it: the manager responded with an error.
    """

    def __init__(self, client: JobnikClient) -> None:
        check_instance("The client of a producer", client, JobnikClient)
        self._client = client
        self._requests = Requests(client)

    @overload
    async def create_job(
        self, job_type: JobType[Empty, Empty], **options: Unpack[JobOptions]
    ) -> CreatedJob[Empty, Empty]: ...
    @overload
    async def create_job(
        self, job_type: JobType[DataT, Empty], data: DataT, **options: Unpack[JobOptions]
    ) -> CreatedJob[DataT, Empty]: ...
    @overload
    async def create_job(
        self, job_type: JobType[Empty, MetadataT], *, metadata: MetadataT, **options: Unpack[JobOptions]
    ) -> CreatedJob[Empty, MetadataT]: ...
    @overload
    async def create_job(
        self, job_type: JobType[DataT, MetadataT], data: DataT, *, metadata: MetadataT, **options: Unpack[JobOptions]
    ) -> CreatedJob[DataT, MetadataT]: ...

    async def create_job(
        self, job_type: JobType[Any, Any], data: Any = EMPTY, *, metadata: Any = EMPTY, **options: Unpack[JobOptions]
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
        check_names("create_job()", options, JobOptions.__optional_keys__)
        traceparent, stages = options.get("traceparent"), list(options.get("stages", ()))
        trace = trace_in() if traceparent is None else explicit_trace(traceparent)
        fields = job_fields(job_type, data, metadata, options.get("priority", Priority.MEDIUM), trace)
        unique = unique_fields(options.get("unique_key"), options.get("unique_for"))
        encoder = StageEncoder(trace)
        trees = [encoder.fields_and_tasks(stage, f"stages[{index}].") for index, stage in enumerate(stages)]
        key = options.get("idempotency_key")
        required = encoder.required_features | key_features(key)
        await self._require(required | {"unique-jobs"} if unique else required)
        fields |= unique
        in_one_request = bool(trees) and "job-tree" in await self._client.capabilities()
        if in_one_request:
            fields["stages"] = json_array([json_object(stage | {"tasks": tasks}) for stage, tasks in trees])
        response = await self._requests.post_job(fields, trace, key)
        model = created_job_model(job_type)
        is_new = not unique or response.status_code != OK
        fields.pop("stages", None)
        job = read_created(model, response, fields, NEW_JOB) if is_new else read_one(model, response)
        if trees and not in_one_request:
            created = await self._requests.create_stages(job.id, trees, trace) if is_new else []
            job = await self._requests.read_with_stages(model, job, created)
        return job.model_copy(update={"is_new": is_new})

    @overload
    async def create_stage(
        self, job: AnyJob, stage_type: StageType[Any, Any, Any, Empty, Empty], **options: Unpack[StageOptions]
    ) -> Stage[Empty, Empty]: ...
    @overload
    async def create_stage(
        self,
        job: AnyJob,
        stage_type: StageType[Any, Any, Any, DataT, Empty],
        data: DataT,
        **options: Unpack[StageOptions],
    ) -> Stage[DataT, Empty]: ...
    @overload
    async def create_stage(
        self,
        job: AnyJob,
        stage_type: StageType[Any, Any, Any, Empty, MetadataT],
        *,
        metadata: MetadataT,
        **options: Unpack[StageOptions],
    ) -> Stage[Empty, MetadataT]: ...
    @overload
    async def create_stage(
        self,
        job: AnyJob,
        stage_type: StageType[Any, Any, Any, DataT, MetadataT],
        data: DataT,
        *,
        metadata: MetadataT,
        **options: Unpack[StageOptions],
    ) -> Stage[DataT, MetadataT]: ...

    async def create_stage(
        self,
        job: AnyJob,
        stage_type: StageType[Any, Any, Any, Any, Any],
        data: Any = EMPTY,
        *,
        metadata: Any = EMPTY,
        **options: Unpack[StageOptions],
    ) -> Stage[Any, Any]:
        """Create a stage at the end of a job.

        Args:
            job: The job, or its id.
            stage_type: The type of the stage.
            data: The data of the stage itself.
            metadata: The metadata of the stage itself; it can change after the stage is created.
            waiting: True creates a stage that starts when `start_stage` is called. Default False.
            weight: The weight of the stage in the progress of its job; see `NewStage`.
            task_defaults: The options of tasks that do not set their own; see `NewStage`.
        """
        check_names("create_stage()", options, StageOptions.__optional_keys__)
        trace = trace_in(job)
        encoder = StageEncoder(trace)
        fields = encoder.fields(stage_type, data, metadata, options)
        await self._require(encoder.required_features)
        response = await self._requests.post_stage(job_path(job), fields, trace)
        return read_created(stage_model(stage_type), response, fields, new_stage(id_of(job)))

    async def create_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]],
    ) -> list[Task[TaskT, TaskMetadataT, ResultT]]:
        """Create tasks in a stage, in the order given: all of them, or none. For many tasks, use `stream_tasks`.

        >>> await producer.create_tasks(stage, thumbnails, [ThumbnailTask(url=url) for url in urls])

        Args:
            stage: The stage, or its id.
            stage_type: The type of the stage.
            tasks: Each task as its data or a `NewTask`.
        """
        check_stage_type(stage, stage_type)
        trace = trace_in(stage)
        encoder = TaskEncoder(stage_type, trace)
        given = list(tasks)
        documents = [encoder.encode(index, task) for index, task in enumerate(given)]
        await self._require(encoder.required_features)
        if not documents and not await self._client.capabilities():
            return []  # the original manager fails with an empty list
        response = await self._requests.post_tasks(stage_path(stage), json_array(documents), trace)
        created = read_created_tasks(task_model(stage_type), response, documents, id_of(stage))
        return in_order(created, [task.data if isinstance(task, NewTask) else task for task in given])

    async def stream_tasks(  # noqa: PLR0913 all options of a stream in one place
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]] | AsyncIterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        *,
        batch: int | None = None,
        in_flight: int = IN_FLIGHT,
        on_progress: Callable[[StreamProgress], None] | None = None,
    ) -> int:
        """Create any number of tasks in a stage, with only a few requests in memory, and return their number.

        >>> stage = await producer.create_stage(job, thumbnails, waiting=True)
        >>> await producer.stream_tasks(stage, thumbnails, (ThumbnailTask(url=url) for url in read_urls()))
        >>> await producer.start_stage(stage)

        Args:
            stage: The stage, or its id. Create it with `waiting=True`: otherwise it may complete with the first batches
                before the last one is created.
            stage_type: The type of the stage.
            tasks: Each task as its data or a `NewTask`. They are consumed only as fast as they are sent.
            batch: The maximum number of tasks in a request; a request is also limited to 1 MB. None: 4,000 if the
                manager has the feature `minimal-answers`, otherwise 1,000.
            in_flight: The maximum number of requests at the same time, default 4. With 1 the tasks are created in
                order; with more, batches may overtake each other.
            on_progress: Called after each batch.

        Raises:
            StreamError: the stream stopped before its end. It says which tasks were created, and its `__cause__` is the
                reason.
            ConfigurationError: `batch` or `in_flight` is less than 1.
        """
        check_stage_type(stage, stage_type)
        trace = trace_in(stage)
        features = await self._client.capabilities()
        minimal = "minimal-answers" in features
        prefer = "return=minimal" if minimal else None
        path = stage_path(stage)
        # Such a manager reads the trace from the header of the request. A trace in each task would double its work.
        encoder = TaskEncoder(stage_type, {} if minimal and trace.keys() == {"traceparent"} else trace)

        def encode(position: int, task: TaskT | NewTask[TaskT, TaskMetadataT]) -> bytes:
            document = encoder.encode(position, task)
            check_features(encoder.required_features, features)
            return document

        async def send(body: bytes) -> None:
            await self._requests.post_tasks(path, body, trace, prefer)

        if batch is None:
            batch = LARGE_BATCH_SIZE if minimal else BATCH_SIZE
        stream = TaskStream(encode, send, batch=batch, in_flight=in_flight, on_progress=on_progress)
        return await stream.run(tasks)

    async def wait_for_job(
        self,
        job: AnyJob,
        job_type: JobType[DataT, MetadataT],
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109 it limits the wait, not the job
        on_progress: Callable[[Job[DataT, MetadataT]], None] | None = None,
    ) -> Job[DataT, MetadataT]:
        """Wait until a job is completed, and return it.

        >>> job = await producer.wait_for_job(job, gallery, on_progress=lambda job: print(job.percentage))

        The job is polled as in `watch_job`; if the manager becomes unreachable meanwhile, the wait continues.

        Args:
            job: The job, or its id.
            job_type: The type of the job.
            timeout: The maximum time to wait; None: no limit.
            on_progress: Called with the job, first as it is and then after each change.

        Raises:
            JobFailedError: the job has failed; the error contains the failed task.
            JobAbortedError: the job was aborted.
            WaitTimeoutError: the job did not end within `timeout`. It is still running.
        """
        if timeout is not None:
            check_duration("timeout", timeout)
        limit = asyncio.timeout(None if timeout is None else timeout.total_seconds())
        latest: Job[DataT, MetadataT] | None = None
        try:
            async with limit, aclosing(self.watch_job(job, job_type)) as changes:
                async for latest in changes:
                    if on_progress is not None:
                        on_progress(latest)
        except TimeoutError:
            if not limit.expired():
                raise
        match latest:
            case Job(status=JobStatus.COMPLETED):
                return latest
            case Job(status=JobStatus.FAILED):
                raise JobFailedError(latest, await failed_task(self._client, latest.id))
            case Job(status=JobStatus.ABORTED):
                raise JobAbortedError(latest)
            case _:
                raise WaitTimeoutError(f"The job {id_of(job)} did not end within {timeout}. It is still running.")

    async def watch_job(
        self, job: AnyJob, job_type: JobType[DataT, MetadataT]
    ) -> AsyncGenerator[Job[DataT, MetadataT]]:
        """Yield a job as it is, and again after each change of its status or progress, until it ends.

        >>> async for job in producer.watch_job(job_id, gallery):
        ...     print(job.status, job.percentage)

        The job is polled ten times a second at first and gradually less often: every 5 s after a minute. If the manager
        has the feature `weighted-progress`, the job has `progress` with a fraction and an estimate. If the manager
        becomes unreachable after the first response, polling continues.
        """
        weighted = "weighted-progress" in await self._client.capabilities()
        path = f"{job_path(job)}?should_return_progress=true" if weighted else job_path(job)

        async def read() -> Job[DataT, MetadataT]:
            return read_one(job_model(job_type), await self._client.request("GET", path))

        async with aclosing(watch(id_of(job), read)) as changes:
            async for change in changes:
                yield change

    async def get_job(self, job: AnyJob, job_type: JobType[DataT, MetadataT]) -> Job[DataT, MetadataT]:
        """Return a job."""
        return read_one(job_model(job_type), await self._client.request("GET", job_path(job)))

    async def get_stage(
        self, stage: AnyStage, stage_type: StageType[Any, Any, Any, DataT, MetadataT]
    ) -> Stage[DataT, MetadataT]:
        """Return a stage."""
        return read_one(stage_model(stage_type), await self._client.request("GET", stage_path(stage)))

    async def get_summary(self, stage: AnyStage) -> Summary:
        """Return the number of tasks of a stage in each status."""
        return read_one(Summary, await self._client.request("GET", f"{stage_path(stage)}/summary"))

    async def get_task(
        self, task: AnyTask, stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> Task[TaskT, TaskMetadataT, ResultT]:
        """Return a task. A manager with part A only has no `result`, `error` and `progress` of tasks."""
        return read_one(task_model(stage_type), await self._client.request("GET", task_path(task)))

    async def get_tasks(
        self, stage: AnyStage, stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> list[Task[TaskT, TaskMetadataT, ResultT]]:
        """Return all tasks of a stage, in the order in which they were created. For many tasks, use `list_tasks`."""
        tasks = list_entities(self._client, f"{stage_path(stage)}/tasks", task_model(stage_type), limit=None)
        return [task async for task in tasks]

    async def get_attempts(self, task: AnyTask) -> list[Attempt]:
        """Return all attempts at a task, oldest first. Needs the feature `attempts`."""
        await self._require({"attempts"})
        pages = linked_pages(self._client, f"{task_path(task)}/attempts", Attempt)
        return [attempt async for page in pages for attempt in page.items]

    def list_jobs(self, job_type: JobType[DataT, MetadataT]) -> AsyncGenerator[Job[DataT, MetadataT]]:
        """Yield all jobs of a type, oldest first.

        >>> async for job in producer.list_jobs(gallery):
        ...     print(job.id, job.status)

        Like the other `list_` methods, it reads pages of 500 on demand, and keeps one page in memory. If the manager
        lacks the feature `lists`, it reads the whole list at once.
        """
        return list_entities(self._client, f"/v1/jobs?{urlencode({'job_name': job_type.name})}", job_model(job_type))

    async def list_stages(
        self, job: AnyJob, stage_type: StageType[Any, Any, Any, DataT, MetadataT]
    ) -> AsyncGenerator[Stage[DataT, MetadataT]]:
        """Yield the stages of a job that are of this type, in order; see `list_jobs`."""
        query = urlencode({"job_id": id_of(job), "stage_type": stage_type.name})
        stages = [stage async for stage in list_entities(self._client, f"/v1/stages?{query}", stage_model(stage_type))]
        for stage in sorted(stages, key=lambda stage: stage.order):
            yield stage

    def list_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        status: TaskStatus | None = None,
    ) -> AsyncGenerator[Task[TaskT, TaskMetadataT, ResultT]]:
        """Yield the tasks of a stage in the order of their creation, or only those in `status`; see `list_jobs`."""
        path = f"{stage_path(stage)}/tasks"
        if status is not None:
            path = f"/v1/tasks?{urlencode({'stage_id': id_of(stage), 'status': status.value})}"
        return list_entities(self._client, path, task_model(stage_type))

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
        await self._requests.command(
            "set_priority", "PATCH", f"{job_path(job)}/priority", {"priority": Priority(priority).value}
        )

    async def delete_job(self, job: AnyJob) -> None:
        """Delete a finished job, with its stages and tasks."""
        await self._requests.command("delete_job", "DELETE", job_path(job), None)

    async def _require(self, required: Collection[str]) -> None:
        if required:
            check_features(required, await self._client.capabilities())
