"""The types and models of entities: those that the caller passes, or else those that an entity was read with."""

from collections.abc import AsyncIterable
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from jobnik_sdk.errors import InvalidPayloadError
from jobnik_sdk.model.arguments import check_instance, check_items
from jobnik_sdk.model.definitions import AnyStageType, JobType, StageType
from jobnik_sdk.model.entities import (
    Job,
    Stage,
    Task,
    job_model,
    model_of_job,
    model_of_task,
    stage_model,
    stage_type_of,
    task_model,
)
from jobnik_sdk.producer.paths import AnyJob, AnyStage, AnyTask, id_of


def model_for_job(job: AnyJob, job_type: JobType[Any, Any] | None) -> type[Job[Any, Any]]:
    """Return the model to read a job with."""
    id_of(job)  # raises an error for anything but a job or an id
    if job_type is None:
        return model_of_job(_entity(job, Job, "job_type"))
    check_instance("job_type", job_type, JobType)
    return job_model(job_type)


def model_for_stage(stage: AnyStage, stage_type: AnyStageType | None) -> type[Stage[Any, Any, Any, Any, Any]]:
    """Return the model to read a stage with."""
    stage_type = _known_type(stage, stage_type)
    return Stage[Any, Any, Any, Any, Any] if stage_type is None else stage_model(stage_type)


def model_for_task(task: AnyTask, stage_type: AnyStageType | None) -> type[Task[Any, Any, Any]]:
    """Return the model to read a task with."""
    if stage_type is None:
        return model_of_task(_entity(task, Task, "stage_type"))
    check_instance("stage_type", stage_type, StageType)
    return task_model(stage_type)


def model_for_tasks(stage: AnyStage, stage_type: AnyStageType | None) -> type[Task[Any, Any, Any]]:
    """Return the model to read the tasks of a stage with."""
    stage_type = _known_type(stage, stage_type)
    return Task[Any, Any, Any] if stage_type is None else task_model(stage_type)


def type_for_tasks(stage: AnyStage, stage_type: AnyStageType | None) -> AnyStageType:
    """Return the type of a stage in which tasks are created.

    Raises:
        InvalidPayloadError: the stage is of another type, whose handlers could not read the tasks.
        TypeError: no type is given, and the stage was read as plain JSON.
    """
    known = _known_type(stage, stage_type)
    if known is None:
        raise TypeError("Pass stage_type: this stage was read without its type")
    if isinstance(stage, Stage) and stage.type != known.name:
        raise InvalidPayloadError("stage_type", f"the stage is of type {stage.type!r}, not {known.name!r}.")
    return known


def split_type(stage_type: Any, tasks: Any) -> tuple[AnyStageType | None, Any]:  # noqa: ANN401 in either order
    """Return the stage type and the tasks from two arguments, the first of which may be omitted.

    Raises:
        TypeError: the tasks are no iterable.
    """
    found = (stage_type, tasks) if tasks is not None else (None, stage_type)
    if not isinstance(found[1], AsyncIterable):
        check_items("tasks", found[1], "tasks")
    return found


def _known_type(stage: AnyStage, stage_type: AnyStageType | None) -> AnyStageType | None:
    if stage_type is None:
        return stage_type_of(_entity(stage, Stage, "stage_type"))
    check_instance("stage_type", stage_type, StageType)
    return stage_type


def _entity(given: BaseModel | UUID, kind: type[Any], missing: str) -> Any:  # noqa: ANN401 each caller knows it
    if not isinstance(given, kind):
        raise TypeError(f"Pass {missing}: only a {kind.__name__.lower()} itself has a type, not {given!r}")
    return given
