"""Idempotency keys: they identify a request, so that its repetition creates nothing."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from uuid import UUID

from reference_manager.domain.commands import NewJob, NewStage, NewTasks
from reference_manager.domain.payloads import encode
from reference_manager.engine.errors import KeyReusedError
from reference_manager.store.pool import Record


def unless_reused(row: Record) -> Record:
    """Return the row of a query that takes a key. Raise KeyReusedError if another request used the key."""
    if row["reused"]:
        raise KeyReusedError
    return row


def job_key(key: str, job: NewJob) -> Mapping[str, object]:
    """Return the key of a request to create a job as parameters of ``job_create_once``.

    Args:
        key: The idempotency key.
        job: The job.
    """
    parts: list[str | None] = [encode(["job", job.name, job.priority, job.unique]), job.data, job.user_metadata]
    if job.stages is not None:
        stages, tasks = [stage for stage, _ in job.stages], [tasks for _, tasks in job.stages]
        parts.append(encode([[stage.type, stage.start_as_waiting, stage.weight] for stage in stages]))
        parts += [stage.data for stage in stages]
        parts += [stage.user_metadata for stage in stages]
        parts += [stage.task_defaults for stage in stages]
        parts += [new.data for new in tasks]
        parts += [new.user_metadata for new in tasks]
        parts += [new.identity for new in tasks]
    return {"key": key, "digest": _digest(parts)}


def stage_key(key: str, job_id: UUID, stage: NewStage) -> Mapping[str, object]:
    """Return the key of a request to add a stage as parameters of ``stage_create_once``."""
    options = encode(["stage", job_id, stage.type, stage.start_as_waiting, stage.weight])
    parts = [f"{options[:-1]},{stage.task_defaults or 'null'}]", stage.data, stage.user_metadata]
    return {"key": key, "digest": _digest(parts), "user_metadata": stage.user_metadata}


def tasks_key(key: str, stage_id: UUID, tasks: NewTasks) -> Mapping[str, object]:
    """Return the key of a request to add tasks as parameters of ``task_add_once``."""
    parts = [encode(["tasks", stage_id]), tasks.data, tasks.user_metadata, tasks.identity]
    return {"key": key, "digest": _digest(parts)}


def _digest(parts: Sequence[str | None]) -> UUID:
    """Return 128 bits of a hash of texts and their lengths, without which the texts could run together."""
    digest = blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if part is not None else b""
        digest.update(b"%d:" % (-1 if part is None else len(content)))
        digest.update(content)
    return UUID(bytes=digest.digest())
