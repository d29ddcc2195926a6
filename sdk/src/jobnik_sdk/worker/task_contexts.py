"""Creates the context that a handler receives, from a claimed task and its stage and job."""

from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import to_json

from jobnik_sdk.execution.access import Access
from jobnik_sdk.execution.context import JobInfo, StageInfo, TaskContext, UnfrozenContext
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.model.definitions import EMPTY, Priority
from jobnik_sdk.model.entities import JobOfTask, StageOfTask
from jobnik_sdk.model.payloads import first_validation_error
from jobnik_sdk.worker.lru_cache import LruCache
from jobnik_sdk.worker.task_source import CACHED_STAGES, Assignment

_MISSING: Final[dict[str, Any]] = {}


class _ParsedStage(NamedTuple):
    """A stage and its job: the JSON that was parsed, and what it contains."""

    stage_json: dict[str, Any]
    job_json: dict[str, Any]
    job: JobInfo
    stage: StageInfo[Any, Any]
    validation_error: str


class TaskContexts:
    """Creates the contexts of a handler's attempts.

    Tasks that are claimed together usually belong to one stage. Every claim carries the stage again; it is parsed only
    when it has changed.
    """

    def __init__(self, handler: AnyHandler, access: Access) -> None:
        self._handler = handler
        self._access = access
        self._stage_type = handler.stage_type
        self._stages: LruCache[str, _ParsedStage] = LruCache(CACHED_STAGES)
        self._last: _ParsedStage | None = None  # of the last task, because the next one usually belongs to it as well

    def create(self, task: Assignment[Any, Any], traceparent: str) -> tuple[TaskContext[Any], str]:
        """Return the context of an attempt with this traceparent, and a validation error or an empty string."""
        parsed = self._stage_and_job(task)
        context = UnfrozenContext(
            job=parsed.job,
            stage=parsed.stage,
            task_id=task.id,
            attempt=task.attempts + 1,
            max_attempts=task.max_attempts,
            metadata=task.metadata,
            traceparent=traceparent,
            timeout=self._handler.attempt_timeout(task.timeout),
            checkpoint=task.checkpoint,
            access=self._access,
        ).frozen()
        return context, task.validation_error or parsed.validation_error

    def _stage_and_job(self, task: Assignment[Any, Any]) -> _ParsedStage:
        stage, job = task.stage or _MISSING, task.job or _MISSING
        last = self._last
        if last is not None and last.stage_json is stage and last.job_json is job:
            return last
        cached = self._stages.get(task.stage_id)
        if cached is not None and cached.stage_json == stage and cached.job_json == job:
            # From now on, tasks of this claim are recognised by the identity of the documents.
            self._last = cached._replace(stage_json=stage, job_json=job)
            return cached
        try:
            parsed = _ParsedStage(stage, job, _parse_job(task.job), *self._parse_stage(task))
        except ValidationError as error:  # the response is not as expected, which fails the tasks of this stage only
            field, reason = first_validation_error(error)
            parsed = _ParsedStage(stage, job, _parse_job(None), self._unknown_stage(task), f"stage.{field}: {reason}")
        self._stages.put(task.stage_id, parsed)
        self._last = parsed
        return parsed

    def _unknown_stage(self, task: Assignment[Any, Any]) -> StageInfo[Any, Any]:
        try:
            stage_id = UUID(task.stage_id)
        except ValueError:
            stage_id = UUID(int=0)
        return StageInfo(stage_id, self._stage_type.name, 0, EMPTY, EMPTY)

    def _parse_stage(self, task: Assignment[Any, Any]) -> tuple[StageInfo[Any, Any], str]:
        if task.stage is None:
            error = task.validation_error or "stage: the manager did not send it."
            return self._unknown_stage(task), error
        stage = StageOfTask.model_validate(task.stage)
        try:
            # As JSON, which a model may read differently from Python values: base64, for example.
            data = self._stage_type.data.model_validate_json(to_json(stage.data))
            metadata = self._stage_type.metadata.model_validate_json(to_json(stage.metadata))
        except ValidationError as error:
            field, reason = first_validation_error(error)
            return StageInfo(stage.id, stage.type, stage.order, EMPTY, EMPTY), f"stage.{field}: {reason}"
        return StageInfo(stage.id, stage.type, stage.order, data, metadata), ""


def _parse_job(document: dict[str, Any] | None) -> JobInfo:
    if document is None:  # the job is not read for a task that does not fit its models
        return JobInfo(UUID(int=0), "", Priority.MEDIUM, {}, {})
    job = JobOfTask.model_validate(document)
    return JobInfo(job.id, job.name, job.priority, job.data, job.metadata)
