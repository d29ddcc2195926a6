"""Creating work, watching it and steering it: jobs, their stages, the stages' tasks."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final, TypedDict, Unpack, overload
from urllib.parse import urlencode

from httpx2 import Response

from jobnik_sdk.errors import JobAbortedError, JobFailedError, JobnikError, UnsupportedError, WaitTimeoutError
from jobnik_sdk.http.client import JobnikClient, read_many, read_one
from jobnik_sdk.model.arguments import check_duration, check_kind, check_names
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
    created_job_of,
    job_of,
    stage_of,
    task_of,
)
from jobnik_sdk.observability import metrics
from jobnik_sdk.producer.bodies import Origin, StageWriter, TaskWriter, job_parts, joined, listed, uniqueness
from jobnik_sdk.producer.failures import failed_task
from jobnik_sdk.producer.pages import pages
from jobnik_sdk.producer.paths import (
    AnyJob,
    AnyStage,
    AnyTask,
    check_type,
    id_of,
    job_path,
    origin_of,
    stage_path,
    stated_origin,
    task_path,
)
from jobnik_sdk.producer.streams import StreamProgress, TaskStream
from jobnik_sdk.producer.watching import watch

BATCH: Final = 1_000
"""Tasks in one request of a stream."""
LARGE_BATCH: Final = 4_000
"""The same where they need not come back."""
IN_FLIGHT: Final = 4
"""Requests of a stream at the same time."""

_FOUND: Final = 200
"""A unique job that was there already; a new one is answered 201."""
_NO_TASKS: Final = b"[]"

_ADVICE: Final = {
    "retry-policy": "leave out what tasks say besides data, metadata and max_attempts",
    "task-defaults": "leave out task_defaults, and say it on each task",
    "weighted-progress": "leave out the weight of stages",
    "unique-jobs": "leave out unique_key, and look yourself whether there is such a job",
    "attempts": "do without the attempts",
}


class JobOptions(TypedDict, total=False):
    """How a job is created; see `Producer.create_job`."""

    priority: Priority
    stages: Iterable[NewStage]
    unique_key: str | None
    unique_for: timedelta | None
    traceparent: str | None


class Producer:
    """Creates jobs, stages and tasks, reads them, watches them and steers them.

    Each payload is checked against its model before anything is sent. A job belongs to the current trace
    (see `use_trace`), else to a new one; stages and tasks belong to the trace of the job or stage that is given, or
    where only its id is given to the current one.

    Every method raises `InvalidPayloadError` for a payload that does not fit, `UnsupportedError` for what this manager
    cannot do, `UnreachableError` where no answer came, and a subclass of `AnswerError` where the manager refused. After
    the first two nothing was sent.
    """

    def __init__(self, client: JobnikClient) -> None:
        check_kind("A producer's client", client, JobnikClient)
        self._client = client

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
        """Create a job, with its stages and their tasks where they are given; it starts when it has a stage with tasks.

        Args:
            job_type: Whose job it is.
            data: What it is about.
            metadata: Which may be changed later.
            options:
                `priority`: how urgent it is, MEDIUM unless said otherwise.
                `stages`: its first stages, in their order. A manager with the feature `job-tree` gets all in one
                request, and creates all or nothing. Otherwise they are created one by one, and none starts before all
                are there; if that breaks in the middle the job is aborted.
                `unique_key`: 1 to 200 characters. While there is a job with the same key, no other is created: it is
                the one that is returned, with `is_new` False. It needs the feature `unique-jobs`.
                `unique_for`: how long after its creation a job keeps others with its key from being created; without
                it, until it has ended.
                `traceparent`: the trace that it belongs to.
        """
        check_names("create_job()", options, JobOptions.__optional_keys__)
        traceparent, stages = options.get("traceparent"), list(options.get("stages", ()))
        here = origin_of() if traceparent is None else stated_origin(traceparent)
        parts = job_parts(job_type, data, metadata, options.get("priority", Priority.MEDIUM), here)
        unique = uniqueness(options.get("unique_key"), options.get("unique_for"))
        writer = StageWriter(here)
        trees = [writer.tree_parts(stage, f"stages[{index}].") for index, stage in enumerate(stages)]
        await self._require(writer.needed | ({"unique-jobs"} if unique else set()))
        parts |= unique
        at_once = bool(trees) and "job-tree" in await self._client.capabilities()
        if at_once:
            parts["stages"] = listed([joined(stage | {"tasks": tasks}) for stage, tasks in trees])
        answer = await self._post_job(parts, here)
        is_new = answer.status_code != _FOUND
        if trees and not at_once:
            path = job_path(read_one(Job[Empty, Empty], answer).id)
            if is_new:
                await self._fill(path, trees, here)
            answer = await self._client.request("GET", f"{path}?should_return_stages=true")
        return read_one(created_job_of(job_type), answer).model_copy(update={"is_new": is_new})

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
        """Create the next stage of a job; the options are those of `NewStage`."""
        check_names("create_stage()", options, StageOptions.__optional_keys__)
        here = origin_of(job)
        writer = StageWriter(here)
        parts = writer.parts(stage_type, data, metadata, options)
        await self._require(writer.needed)
        return read_one(stage_of(stage_type), await self._post_stage(f"{job_path(job)}/stage", parts, here))

    async def create_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]],
    ) -> list[Task[TaskT, TaskMetadataT, ResultT]]:
        """Create tasks in a stage, all of them or none, in the order given; each is its data or a `NewTask`."""
        check_type(stage, stage_type)
        here = origin_of(stage)
        writer = TaskWriter(stage_type, here)
        body = listed([writer.write(index, task) for index, task in enumerate(tasks)])
        await self._require(writer.needed)
        return read_many(task_of(stage_type), await self._post_tasks(f"{stage_path(stage)}/tasks", body, here))

    async def stream_tasks(  # noqa: PLR0913 the options of a stream belong in one place
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]] | AsyncIterable[TaskT | NewTask[TaskT, TaskMetadataT]],
        *,
        batch: int | None = None,
        in_flight: int = IN_FLIGHT,
        on_progress: Callable[[StreamProgress], None] | None = None,
    ) -> int:
        """Create any number of tasks in a stage in the memory of a few requests, and return how many there were.

        Args:
            stage: Where they belong; it should be waiting, or an early batch may end it before the last is there.
            stage_type: Its type.
            tasks: Read as they are sent, no faster.
            batch: The most tasks in one request, which has fewer where they would be more than 1 MB together. None:
                4,000 where the manager answers with their number alone, else 1,000.
            in_flight: The most requests at the same time. With 1 the tasks keep their order; more are faster, and let
                batches overtake each other.
            on_progress: Called after each batch.

        Raises:
            StreamError: it broke off; it says what was created, and its `__cause__` why.
        """
        check_type(stage, stage_type)
        here = origin_of(stage)
        features = await self._client.capabilities()
        quick = "minimal-answers" in features
        prefer = "return=minimal" if quick else None
        path = f"{stage_path(stage)}/tasks"
        # Such a manager takes the trace from the request's head: to read it with each task costs as much as the rest.
        writer = TaskWriter(stage_type, {} if quick and here.keys() == {"traceparent"} else here)

        def write(position: int, task: TaskT | NewTask[TaskT, TaskMetadataT]) -> bytes:
            document = writer.write(position, task)
            _check(writer.needed, features)
            return document

        async def send(body: bytes) -> None:
            await self._post_tasks(path, body, here, prefer)

        if batch is None:
            batch = LARGE_BATCH if quick else BATCH
        stream = TaskStream(write, send, batch=batch, in_flight=in_flight, on_progress=on_progress)
        return await stream.run(tasks)

    async def wait_for_job(
        self,
        job: AnyJob,
        job_type: JobType[DataT, MetadataT],
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109 it is the wait that has an end, whatever the job does
        on_progress: Callable[[Job[DataT, MetadataT]], None] | None = None,
    ) -> Job[DataT, MetadataT]:
        """Wait until a job is completed, and return what it became; `on_progress` gets it at first and at each change.

        A manager that cannot be reached in between is waited for, too: see `watch_job`.

        Raises:
            JobFailedError: it has failed; the error says by which task, and why.
            JobAbortedError: it was aborted.
            WaitTimeoutError: it has not ended within `timeout` (None: without limit).
        """
        if timeout is not None:
            check_duration("timeout", timeout)
        limit = asyncio.timeout(None if timeout is None else timeout.total_seconds())
        ended: Job[DataT, MetadataT] | None = None
        try:
            async with limit, aclosing(self.watch_job(job, job_type)) as changes:
                async for ended in changes:
                    if on_progress is not None:
                        on_progress(ended)
        except TimeoutError:
            if not limit.expired():
                raise
        match ended:
            case Job(status=JobStatus.COMPLETED):
                return ended
            case Job(status=JobStatus.FAILED):
                raise JobFailedError(ended, await failed_task(self._client, ended.id))
            case Job(status=JobStatus.ABORTED):
                raise JobAbortedError(ended)
            case _:
                raise WaitTimeoutError(f"The job {id_of(job)} has not ended within {timeout}, and goes on.")

    async def watch_job(
        self, job: AnyJob, job_type: JobType[DataT, MetadataT]
    ) -> AsyncGenerator[Job[DataT, MetadataT]]:
        """Yield a job as it is, and again whenever its status or progress has changed, until it has ended, however.

        It looks ten times a second at first, and more and more seldom: each 5 s from a minute on. Where the manager has
        the feature `weighted-progress`, the job's `progress` has a fraction and an estimate. Once it has been seen, a
        manager that cannot be reached is asked again and again.
        """
        weighted = "weighted-progress" in await self._client.capabilities()
        path = f"{job_path(job)}?should_return_progress=true" if weighted else job_path(job)

        async def read() -> Job[DataT, MetadataT]:
            return read_one(job_of(job_type), await self._client.request("GET", path))

        async with aclosing(watch(id_of(job), read)) as changes:
            async for change in changes:
                yield change

    async def get_job(self, job: AnyJob, job_type: JobType[DataT, MetadataT]) -> Job[DataT, MetadataT]:
        """Read a job."""
        return read_one(job_of(job_type), await self._client.request("GET", job_path(job)))

    async def get_stage(
        self, stage: AnyStage, stage_type: StageType[Any, Any, Any, DataT, MetadataT]
    ) -> Stage[DataT, MetadataT]:
        """Read a stage."""
        return read_one(stage_of(stage_type), await self._client.request("GET", stage_path(stage)))

    async def get_summary(self, stage: AnyStage) -> Summary:
        """Read how many tasks of a stage are in each status."""
        return read_one(Summary, await self._client.request("GET", f"{stage_path(stage)}/summary"))

    async def get_task(
        self, task: AnyTask, stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> Task[TaskT, TaskMetadataT, ResultT]:
        """Read a task: its result, why its last attempt failed, and its progress, too, where the manager keeps them."""
        return read_one(task_of(stage_type), await self._client.request("GET", task_path(task)))

    async def get_tasks(
        self, stage: AnyStage, stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> list[Task[TaskT, TaskMetadataT, ResultT]]:
        """Read all tasks of a stage at once, in the order in which they were added; `list_tasks` is for many."""
        return read_many(task_of(stage_type), await self._client.request("GET", f"{stage_path(stage)}/tasks"))

    async def get_attempts(self, task: AnyTask) -> list[Attempt]:
        """Read the attempts at a task, oldest first; it needs the feature `attempts`."""
        await self._require({"attempts"})
        return read_many(Attempt, await self._client.request("GET", f"{task_path(task)}/attempts"))

    def list_jobs(self, job_type: JobType[DataT, MetadataT]) -> AsyncGenerator[Job[DataT, MetadataT]]:
        """Yield all jobs of a type, oldest first.

        They are read in pages as they are taken, in the memory of one page, if the manager has the feature `lists`. So
        do the other methods that begin with `list`.
        """
        return pages(self._client, f"/v1/jobs?{urlencode({'job_name': job_type.name})}", job_of(job_type))

    def list_stages(
        self, job: AnyJob, stage_type: StageType[Any, Any, Any, DataT, MetadataT]
    ) -> AsyncGenerator[Stage[DataT, MetadataT]]:
        """Yield the stages of this type in a job, in their order."""
        query = urlencode({"job_id": id_of(job), "stage_type": stage_type.name})
        return pages(self._client, f"/v1/stages?{query}", stage_of(stage_type))

    def list_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        status: TaskStatus | None = None,
    ) -> AsyncGenerator[Task[TaskT, TaskMetadataT, ResultT]]:
        """Yield the tasks of a stage, with `status` those in that status, in the order in which they were added."""
        path = f"{stage_path(stage)}/tasks"
        if status is not None:
            path = f"/v1/tasks?{urlencode({'stage_id': id_of(stage), 'status': status.value})}"
        return pages(self._client, path, task_of(stage_type))

    async def start_stage(self, stage: AnyStage) -> None:
        """Let a stage that was created waiting start; all stages before it have to be completed."""
        await self._steer("start_stage", "PUT", f"{stage_path(stage)}/status", {"status": StageStatus.PENDING})

    async def pause_job(self, job: AnyJob) -> None:
        """Hand out no more tasks of a job; those in progress may still be finished."""
        await self._steer("pause_job", "PUT", f"{job_path(job)}/status", {"status": JobStatus.PAUSED})

    async def resume_job(self, job: AnyJob) -> None:
        """Hand out the tasks of a paused job again."""
        await self._steer("resume_job", "PUT", f"{job_path(job)}/status", {"status": JobStatus.PENDING})

    async def abort_job(self, job: AnyJob) -> None:
        """End a job for good, with its stages and tasks that are not finished."""
        await self._steer("abort_job", "PUT", f"{job_path(job)}/status", {"status": JobStatus.ABORTED})

    async def set_priority(self, job: AnyJob, priority: Priority) -> None:
        """Change how urgent a job is, which counts for its waiting tasks at once."""
        await self._steer("set_priority", "PATCH", f"{job_path(job)}/priority", {"priority": Priority(priority).value})

    async def delete_job(self, job: AnyJob) -> None:
        """Remove a finished job with its stages and tasks."""
        await self._steer("delete_job", "DELETE", job_path(job), None)

    async def _steer(self, name: str, method: str, path: str, body: dict[str, str] | None) -> None:
        with metrics.operation(name):
            await self._client.request(method, path, json=body)

    async def _require(self, needed: Collection[str]) -> None:
        if needed:
            _check(needed, await self._client.capabilities())

    async def _post_job(self, parts: dict[str, bytes], origin: Origin) -> Response:
        with metrics.operation("create_job", metrics.JOB_CREATE_DURATION):
            answer = await self._client.request(
                "POST", "/v1/jobs", json=joined(parts), traceparent=origin["traceparent"]
            )
        if answer.status_code != _FOUND:
            metrics.GUIDE_JOBS_CREATED.inc()
        return answer

    async def _post_stage(self, path: str, parts: dict[str, bytes], origin: Origin) -> Response:
        with metrics.operation("create_stage", metrics.STAGE_CREATE_DURATION):
            return await self._client.request("POST", path, json=joined(parts), traceparent=origin["traceparent"])

    async def _post_tasks(self, path: str, body: bytes, origin: Origin, prefer: str | None = None) -> Response:
        with metrics.operation("create_tasks", metrics.TASK_CREATE_DURATION):
            return await self._client.request("POST", path, json=body, traceparent=origin["traceparent"], prefer=prefer)

    async def _fill(self, path: str, trees: list[tuple[dict[str, bytes], bytes]], origin: Origin) -> None:
        """Create what is in a job, one after the other."""
        try:
            # The first stage is held back, so that nothing starts, and nothing can end, before all is there.
            (first, _), held = trees[0], {"startAsWaiting": b"true"}
            stages: list[Stage[Empty, Empty]] = []
            for parts, tasks in trees:
                body = parts if stages else parts | held
                stages.append(read_one(Stage[Empty, Empty], await self._post_stage(f"{path}/stage", body, origin)))
                if tasks != _NO_TASKS:
                    await self._post_tasks(f"{stage_path(stages[-1])}/tasks", tasks, origin)
            if first["startAsWaiting"] != held["startAsWaiting"]:
                await self.start_stage(stages[0])
        except BaseException as error:
            await self._abort_remains(path, error)
            raise

    async def _abort_remains(self, path: str, why: BaseException) -> None:
        try:
            await self._steer("abort_job", "PUT", f"{path}/status", {"status": JobStatus.ABORTED})
            why.add_note(f"The job at {path} had been created, and was aborted.")
        except JobnikError as error:
            why.add_note(f"The job at {path} had been created, and could not be aborted: {error}")


def _check(needed: Collection[str], features: Collection[str]) -> None:
    for feature in needed:
        if feature not in features:
            raise UnsupportedError(feature, _ADVICE[feature])
