"""Creates jobs, stages and tasks: encodes them, sends them, and reads what was created."""

from collections.abc import AsyncIterable, Callable, Collection, Iterable
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.definitions import AnyStageType, JobType, NewStage, NewTask, Priority, StageOptions
from jobnik_sdk.model.entities import CreatedJob, Stage, Task, created_job_model, stage_model, task_model
from jobnik_sdk.producer.bodies import (
    JobOptions,
    StageEncoder,
    TaskEncoder,
    job_fields,
    json_array,
    json_object,
    unique_fields,
)
from jobnik_sdk.producer.created import in_order, read_created, read_created_tasks
from jobnik_sdk.producer.paths import AnyJob, AnyStage, explicit_trace, id_of, job_path, stage_path, trace_in
from jobnik_sdk.producer.requests import NEW_JOB, OK, Requests, check_features, key_features, new_stage
from jobnik_sdk.producer.streams import StreamOptions, TaskStream
from jobnik_sdk.producer.types import type_for_tasks

BATCH_SIZE: Final = 1_000
"""The default number of tasks in a request of a stream."""

LARGE_BATCH_SIZE: Final = 4_000
"""The default number of tasks in a request of a stream if the manager does not have to return the created tasks."""

IN_FLIGHT: Final = 4
"""The default number of requests of a stream at the same time."""


class Creations:
    """Creates entities for a producer, whose methods describe the arguments."""

    def __init__(self, client: JobnikClient, requests: Requests) -> None:
        self._client = client
        self._requests = requests

    async def job(
        self, job_type: JobType[Any, Any], data: object, metadata: object, options: JobOptions
    ) -> CreatedJob[Any, Any]:
        """Create a job, with its stages and tasks."""
        traceparent, stages = options.get("traceparent"), list(options.get("stages", ()))
        trace = trace_in() if traceparent is None else explicit_trace(traceparent)
        fields = job_fields(job_type, data, metadata, options.get("priority", Priority.MEDIUM), trace)
        unique = unique_fields(options.get("unique_key"), options.get("unique_for"))
        encoder = StageEncoder(trace)
        trees = [encoder.fields_and_tasks(stage, f"stages[{index}].") for index, stage in enumerate(stages)]
        key = options.get("idempotency_key")
        required = encoder.required_features | key_features(key)
        await self.require(required | {"unique-jobs"} if unique else required)
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
        return job.model_copy(update={"is_new": is_new, "stages": _typed(job.stages, stages)})

    async def stage(
        self, job: AnyJob, stage_type: AnyStageType, data: object, metadata: object, options: StageOptions
    ) -> Stage[Any, Any, Any, Any, Any]:
        """Create a stage."""
        trace = trace_in(job)
        encoder = StageEncoder(trace)
        fields = encoder.fields(stage_type, data, metadata, options)
        await self.require(encoder.required_features)
        response = await self._requests.post_stage(job_path(job), fields, trace)
        return read_created(stage_model(stage_type), response, fields, new_stage(id_of(job)))

    async def tasks(
        self, stage: AnyStage, stage_type: AnyStageType | None, tasks: Iterable[Any]
    ) -> list[Task[Any, Any, Any]]:
        """Create tasks in one request."""
        known = type_for_tasks(stage, stage_type)
        trace = trace_in(stage)
        encoder = TaskEncoder(known, trace)
        given: list[Any] = list(tasks)
        documents = [encoder.encode(index, task) for index, task in enumerate(given)]
        await self.require(encoder.required_features)
        if not documents and not await self._client.capabilities():
            return []  # the original manager fails with an empty list
        response = await self._requests.post_tasks(stage_path(stage), json_array(documents), trace)
        created = read_created_tasks(task_model(known), response, documents, id_of(stage))
        return in_order(created, [_data_of(task) for task in given])

    async def tasks_once(
        self, stage_id: UUID, stage_type: AnyStageType, tasks: Iterable[Any], new_key: Callable[[bytes], str]
    ) -> None:
        """Create tasks in one request whose idempotency key depends on its content.

        Args:
            stage_id: The stage.
            stage_type: The type of the stage.
            tasks: The tasks.
            new_key: Returns the key for a content.
        """
        encoder = TaskEncoder(stage_type, {})
        body = json_array([encoder.encode(index, task) for index, task in enumerate(tasks)])
        await self.require(encoder.required_features | {"idempotency-keys"})
        key = new_key(b"%b%b" % (stage_id.bytes, body))
        await self._requests.post_tasks(stage_path(stage_id), body, trace_in(), "return=minimal", key)

    async def stream(
        self,
        stage: AnyStage,
        stage_type: AnyStageType | None,
        tasks: Iterable[Any] | AsyncIterable[Any],
        options: StreamOptions,
    ) -> int:
        """Create any number of tasks in several requests, and return their number."""
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

        batch = options.get("batch")
        if batch is None:
            batch = LARGE_BATCH_SIZE if minimal else BATCH_SIZE
        in_flight, on_progress = options.get("in_flight", IN_FLIGHT), options.get("on_progress")
        stream = TaskStream(encode, send, batch=batch, in_flight=in_flight, on_progress=on_progress)
        return await stream.run(tasks)

    async def require(self, required: Collection[str]) -> None:
        """Check that the manager has these features.

        Raises:
            UnsupportedError: it lacks one.
        """
        if required:
            check_features(required, await self._client.capabilities())


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
