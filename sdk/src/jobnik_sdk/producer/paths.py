"""Where entities are, and which trace what is created there belongs to."""

from typing import Any, TypeAlias
from uuid import UUID

from jobnik_sdk.errors import InvalidPayloadError
from jobnik_sdk.model.definitions import StageType
from jobnik_sdk.model.entities import Job, Stage, Task
from jobnik_sdk.observability import trace_context

AnyJob: TypeAlias = Job[Any, Any] | UUID
"""A job, or its id. With the job itself, what is created in it belongs to its trace."""

AnyStage: TypeAlias = Stage[Any, Any] | UUID
"""A stage, or its id. With the stage itself, what is created in it belongs to its trace."""

AnyTask: TypeAlias = Task[Any, Any, Any] | UUID
"""A task, or its id."""


def id_of(entity: AnyJob | AnyStage | AnyTask) -> UUID:
    """Return the id.

    Raises:
        TypeError: it is neither an entity nor an id, but text, for instance.
    """
    if isinstance(entity, UUID):
        return entity
    if not isinstance(entity, Job | Stage | Task):  # pyright: ignore[reportUnnecessaryIsInstance] not everybody checks types
        raise TypeError(f"A job, stage or task is given as itself or by its id, a uuid.UUID, not as {entity!r}")
    return entity.id


def job_path(job: AnyJob) -> str:
    """Return where a job is."""
    return f"/v1/jobs/{id_of(job)}"


def stage_path(stage: AnyStage) -> str:
    """Return where a stage is."""
    return f"/v1/stages/{id_of(stage)}"


def task_path(task: AnyTask) -> str:
    """Return where a task is."""
    return f"/v1/tasks/{id_of(task)}"


def check_type(stage: AnyStage, stage_type: StageType[Any, Any, Any, Any, Any]) -> None:
    """See that tasks come into a stage of their own type, where the stage is known and not its id alone.

    Raises:
        InvalidPayloadError: it is of another type, whose handlers could not read them.
    """
    if isinstance(stage, Stage) and stage.type != stage_type.name:
        raise InvalidPayloadError("stage_type", f"the stage is of type {stage.type!r}, not {stage_type.name!r}.")


def origin_of(parent: AnyJob | AnyStage | None = None) -> dict[str, str]:
    """Return the trace that something new in `parent` belongs to: its own, else the current one, else a new one."""
    if parent is not None and not isinstance(parent, UUID) and trace_context.is_valid(parent.traceparent):
        return trace_context.carried(parent.traceparent, parent.tracestate)
    return trace_context.carried(trace_context.current_traceparent() or trace_context.generate())


def stated_origin(traceparent: str) -> dict[str, str]:
    """Return the trace that somebody has said.

    Raises:
        InvalidPayloadError: it names none.
    """
    if not trace_context.is_valid(traceparent):
        raise InvalidPayloadError("traceparent", f"{traceparent!r} is no W3C traceparent that names a trace.")
    return trace_context.carried(traceparent)
