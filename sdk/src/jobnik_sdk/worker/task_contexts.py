"""What a handler sees of its task, made of what the manager told."""

from collections import OrderedDict
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from jobnik_sdk.execution.access import Access
from jobnik_sdk.execution.context import JobInfo, StageInfo, TaskContext
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.model.definitions import EMPTY, Priority
from jobnik_sdk.model.entities import JobOfTask, StageOfTask
from jobnik_sdk.model.payloads import first_validation_error
from jobnik_sdk.worker.task_source import Assignment

CACHED_STAGES: Final = 100
"""A worker meets few stages at a time."""

_UNTOLD: Final[dict[str, Any]] = {}


class TaskContexts:
    """Makes the contexts of a handler's attempts.

    Tasks that are claimed together mostly belong to one stage. It is told anew with each claim, and read again only
    when something in it has changed.
    """

    def __init__(self, handler: AnyHandler, access: Access) -> None:
        self._handler = handler
        self._access = access
        self._stage_type = handler.stage_type
        self._seen: OrderedDict[object, tuple[object, object, JobInfo, StageInfo[Any, Any], str]] = OrderedDict()

    def of(self, task: Assignment[Any, Any], traceparent: str) -> tuple[TaskContext[Any], str]:
        """Return the context of an attempt at this place in its trace, and what does not fit its models, if any."""
        job, stage, fault = self._around(task)
        context = TaskContext(
            job=job,
            stage=stage,
            task_id=task.id,
            attempt=task.attempts + 1,
            max_attempts=task.max_attempts,
            metadata=task.metadata,
            traceparent=traceparent,
            timeout=self._handler.attempt_timeout(task.timeout),
            checkpoint=task.checkpoint,
            access=self._access,
        )
        return context, task.fault or fault

    def _around(self, task: Assignment[Any, Any]) -> tuple[JobInfo, StageInfo[Any, Any], str]:
        stage, job = task.stage or _UNTOLD, task.job or _UNTOLD
        seen = self._seen.get(task.stage_id)
        if seen is not None and (seen[0] is stage or seen[0] == stage) and (seen[1] is job or seen[1] == job):
            return seen[2:]
        read = (_job(task), *self._stage(task))
        self._seen[task.stage_id] = (stage, job, *read)
        if len(self._seen) > CACHED_STAGES:
            self._seen.popitem(last=False)
        return read

    def _stage(self, task: Assignment[Any, Any]) -> tuple[StageInfo[Any, Any], str]:
        name = self._stage_type.name
        if task.stage is None:
            fault = task.fault or "stage: the manager told nothing of it."
            return StageInfo(UUID(task.stage_id), name, 0, EMPTY, EMPTY), fault
        told = StageOfTask.model_validate(task.stage)
        try:
            data = self._stage_type.data.model_validate(told.data)
            metadata = self._stage_type.metadata.model_validate(told.metadata)
        except ValidationError as error:
            field, reason = first_validation_error(error)
            return StageInfo(told.id, told.type, told.order, EMPTY, EMPTY), f"stage.{field}: {reason}"
        return StageInfo(told.id, told.type, told.order, data, metadata), ""


def _job(task: Assignment[Any, Any]) -> JobInfo:
    if task.job is None:  # nobody asked for it, since the task cannot be read
        return JobInfo(UUID(int=0), "", Priority.MEDIUM, {}, {})
    told = JobOfTask.model_validate(task.job)
    return JobInfo(told.id, told.name, told.priority, told.data, told.metadata)
