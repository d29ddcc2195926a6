"""Idempotency keys: they identify a request, so that its repetition creates nothing."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any
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


def job_key(key: str, job: NewJob, encoded: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the key of a request to create a job as parameters of ``job_create_once``.

    Args:
        key: The idempotency key.
        job: The job.
        encoded: The parameters of ``job_create``.
    """
    parts = [encode(["job", job.name, job.priority, job.unique]), encoded["data"], encoded["user_metadata"]]
    if job.stages is not None:
        parts.append(encode([[stage.type, stage.start_as_waiting, stage.weight] for stage, _ in job.stages]))
        names = ("datas", "metadatas", "defaults", "task_datas", "task_metadatas")
        parts += [part for name in names for part in encoded[name]]
        parts += [_options(tasks) for _, tasks in job.stages]
    return {"key": key, "digest": _digest(parts)}


def stage_key(key: str, job_id: UUID, stage: NewStage) -> Mapping[str, object]:
    """Return the key of a request to add a stage as parameters of ``stage_create_once``."""
    options = [stage.type, stage.start_as_waiting, stage.weight, stage.task_defaults]
    metadata = encode(stage.user_metadata)
    parts = [encode(["stage", job_id, *options]), encode(stage.data), metadata]
    return {"key": key, "digest": _digest(parts), "user_metadata": metadata}


def tasks_key(key: str, stage_id: UUID, tasks: NewTasks, encoded: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the key of a request to add tasks as parameters of ``task_add_once``; ``encoded`` are those of it."""
    parts = [encode(["tasks", stage_id]), encoded["data"], encoded["user_metadata"], _options(tasks)]
    return {"key": key, "digest": _digest(parts)}


def _options(tasks: NewTasks) -> str | None:
    """Encode the options of tasks without their trace contexts. None: no task has any."""
    options = [_untraced(one) for one in tasks.options or ()]
    return encode(options) if any(options) else None


def _untraced(options: JsonObject | None) -> JsonObject:
    return {name: value for name, value in (options or {}).items() if name not in _TRACE}


def _digest(parts: Sequence[str | None]) -> UUID:
    """Return 128 bits of a hash of texts and their lengths, without which the texts could run together."""
    digest = blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if part is not None else b""
        digest.update(b"%d:" % (-1 if part is None else len(content)))
        digest.update(content)
    return UUID(bytes=digest.digest())
