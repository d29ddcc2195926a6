"""Idempotency keys: they identify a request, so that its repetition creates nothing.

Two requests are the same if their bodies are equal after validation, apart from trace contexts. The order of the
members of an object does not matter, nor whether a default is written out. A task's ``maxAttempts`` has no default
here, because its default depends on the stage.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from uuid import UUID

from reference_manager.domain.commands import NewJob, NewStage, NewTasks
from reference_manager.engine.errors import KeyReusedError
from reference_manager.store.pool import Record


def unless_reused(row: Record) -> Record:
    """Return the row of a query that takes a key. Raise KeyReusedError if another request used the key."""
    if row["reused"]:
        raise KeyReusedError
    return row


def job_key(key: str, job: NewJob) -> Mapping[str, object]:
    """Return the key of a request to create a job as parameters of ``job_create_once``."""
    parts = ["job", job.identity]
    if job.stages is not None:
        parts.append("stages")
        parts += [part.identity for pair in job.stages for part in pair]
    return {"key": key, "digest": _digest(parts)}


def stage_key(key: str, job_id: UUID, stage: NewStage) -> Mapping[str, object]:
    """Return the key of a request to add a stage as parameters of ``stage_create_once``."""
    digest = _digest(["stage", str(job_id), stage.identity])
    return {"key": key, "digest": digest, "user_metadata": stage.user_metadata}


def tasks_key(key: str, stage_id: UUID, tasks: NewTasks) -> Mapping[str, object]:
    """Return the key of a request to add tasks as parameters of ``task_add_once``."""
    return {"key": key, "digest": _digest(["tasks", str(stage_id), tasks.identity])}


def _digest(parts: Sequence[str]) -> UUID:
    """Return 128 bits of a hash of texts and their lengths, without which the texts could run together."""
    digest = blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8))
        digest.update(encoded)
    return UUID(bytes=digest.digest())
