"""Idempotency keys: they identify a request, so that its repetition creates nothing.

Two requests are the same if their bodies are equal after validation, apart from trace contexts. The order of the
members of an object does not matter, nor whether a default is written out. A task's ``maxAttempts`` has no default
here, because its default depends on the stage.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import cast
from uuid import UUID

from reference_manager.domain.commands import JsonObject, NewJob, NewStage, NewTasks
from reference_manager.engine.errors import KeyReusedError
from reference_manager.store.pool import Record, encode

_TRACE = {"traceparent", "tracestate"}
"""Not part of the identity of a request, because a client that repeats it later does so in another trace."""


def unless_reused(row: Record) -> Record:
    """Return the row of a query that takes a key. Raise KeyReusedError if another request used the key."""
    if row["reused"]:
        raise KeyReusedError
    return row


def job_key(key: str, job: NewJob) -> Mapping[str, object]:
    """Return the key of a request to create a job as parameters of ``job_create_once``."""
    parts = ["job", job.name, job.priority, job.unique, _sorted(job.data), _sorted(job.user_metadata)]
    if job.stages is not None:
        parts.append([[*_stage(stage), *_tasks(tasks)] for stage, tasks in job.stages])
    return {"key": key, "digest": _digest(parts)}


def stage_key(key: str, job_id: UUID, stage: NewStage) -> Mapping[str, object]:
    """Return the key of a request to add a stage as parameters of ``stage_create_once``."""
    return {
        "key": key,
        "digest": _digest(["stage", job_id, *_stage(stage)]),
        "user_metadata": encode(stage.user_metadata),
    }


def tasks_key(key: str, stage_id: UUID, tasks: NewTasks) -> Mapping[str, object]:
    """Return the key of a request to add tasks as parameters of ``task_add_once``."""
    return {"key": key, "digest": _digest(["tasks", stage_id, *_tasks(tasks)])}


def _stage(stage: NewStage) -> Sequence[object]:
    options = (float(stage.weight), _as_floats(stage.task_defaults))
    return [stage.type, stage.start_as_waiting, *options, _sorted(stage.data), _sorted(stage.user_metadata)]


def _tasks(tasks: NewTasks) -> Sequence[object]:
    options = [_as_floats(_untraced(one)) for one in tasks.options or ()]
    return [_sorted(tasks.data), _sorted(tasks.user_metadata), options if any(options) else None]


def _sorted(value: object) -> object:
    """Return a JSON value with the members of its objects in the order of their names."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {name: _sorted(members[name]) for name in sorted(members)}
    if isinstance(value, list):
        return [_sorted(item) for item in cast("list[object]", value)]
    return value


def _untraced(options: JsonObject | None) -> JsonObject:
    return {name: value for name, value in (options or {}).items() if name not in _TRACE}


def _as_floats(options: object) -> object:
    """Return options whose numbers are all floats: a default may be 1 where a request has 1.0."""
    if isinstance(options, dict):
        return {name: _as_floats(value) for name, value in cast("dict[str, object]", options).items()}
    return float(options) if isinstance(options, int) else options


def _digest(parts: Sequence[object]) -> UUID:
    """Return 128 bits of a hash of the JSON of a request."""
    return UUID(bytes=blake2b(encode(parts).encode(), digest_size=16).digest())
