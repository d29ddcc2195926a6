"""URL paths of entities, and the traces of entities that are created in them."""

from typing import Any, TypeAlias
from uuid import UUID

from jobnik_sdk.errors import InvalidPayloadError
from jobnik_sdk.model.arguments import shown
from jobnik_sdk.model.entities import Job, Stage, Task
from jobnik_sdk.observability import trace_context

AnyJob: TypeAlias = Job[Any, Any] | UUID
"""A job, or its id. Stages created in a job belong to the job's trace only if the job itself is given."""

AnyStage: TypeAlias = Stage[Any, Any, Any, Any, Any] | UUID
"""A stage, or its id. Tasks created in a stage belong to the stage's trace only if the stage itself is given."""

AnyTask: TypeAlias = Task[Any, Any, Any] | UUID
"""A task, or its id."""


def id_of(entity: AnyJob | AnyStage | AnyTask) -> UUID:
    """Return the id of an entity.

    Raises:
        TypeError: the argument is neither an entity nor a `UUID`; it is a string, for example.
    """
    if isinstance(entity, UUID):
        return entity
    if not isinstance(entity, Job | Stage | Task):  # pyright: ignore[reportUnnecessaryIsInstance] for callers without a type checker
        raise TypeError(f"Pass the job, stage or task itself, or its id as a uuid.UUID, not {shown(entity)}")
    return entity.id


def _id_of(entity: AnyJob | AnyStage | AnyTask, kind: type[Any]) -> UUID:
    known = id_of(entity)
    if not isinstance(entity, kind | UUID):
        given, wanted = type(entity).__name__.partition("[")[0], kind.__name__.lower()
        raise TypeError(f"Pass the {wanted} itself, or its id as a uuid.UUID, not a {given}")
    return known


def job_path(job: AnyJob) -> str:
    """Return the path of a job."""
    return f"/v1/jobs/{_id_of(job, Job)}"


def stage_path(stage: AnyStage) -> str:
    """Return the path of a stage."""
    return f"/v1/stages/{_id_of(stage, Stage)}"


def task_path(task: AnyTask) -> str:
    """Return the path of a task."""
    return f"/v1/tasks/{_id_of(task, Task)}"


def trace_in(parent: AnyJob | AnyStage | None = None) -> dict[str, str]:
    """Return the trace of `parent` for entities created in it, otherwise the current trace, otherwise a new one."""
    if parent is not None:
        id_of(parent)  # raises an error for anything else
    if parent is not None and not isinstance(parent, UUID) and trace_context.is_valid(parent.traceparent):
        return trace_context.fields(parent.traceparent, parent.tracestate)
    return trace_context.fields(trace_context.current_traceparent() or trace_context.generate())


def explicit_trace(traceparent: str) -> dict[str, str]:
    """Return the trace of a traceparent that the caller gave.

    Raises:
        InvalidPayloadError: the traceparent is invalid.
    """
    if not isinstance(traceparent, str):  # pyright: ignore[reportUnnecessaryIsInstance] for callers without a type checker
        raise TypeError(f"traceparent must be text, not {shown(traceparent)}")
    if not trace_context.is_valid(traceparent):
        raise InvalidPayloadError("traceparent", f"not a valid W3C traceparent: {shown(traceparent)}.")
    return trace_context.fields(traceparent)
