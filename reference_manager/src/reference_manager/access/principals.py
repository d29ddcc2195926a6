"""Scopes, and the sender of a request: a token, or anyone."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from uuid import UUID


class Scope(StrEnum):
    """What a token may do."""

    VIEWER = "viewer"
    PRODUCER = "producer"
    WORKER = "worker"
    ADMIN = "admin"


MEANINGS: Final = {
    Scope.VIEWER: "Read everything except tokens: jobs, stages, tasks, histories, workers, queues and metrics.",
    Scope.PRODUCER: "Read everything a viewer may. Create, change, abort and delete jobs, stages and tasks.",
    Scope.WORKER: "Read everything a viewer may. Claim and report tasks, send heartbeats, deregister a worker, add "
    "tasks to a stage, and replace metadata.",
    Scope.ADMIN: "Everything, including tokens and orders to drain a worker.",
}
"""What each scope permits, for the reference."""


@dataclass(slots=True, eq=False)
class Principal:
    """The sender of a request."""

    name: str
    """The name of the token; empty without one."""
    scopes: frozenset[Scope]
    stage_types: frozenset[str] | None = None
    """The stage types that a worker is limited to; None: not limited."""
    job_names: frozenset[str] | None = None
    """The job names that a producer is limited to; None: not limited."""
    token_id: UUID | None = None
    digest: bytes = field(default=b"", repr=False)
    expires_at: float | None = None
    """In seconds, by the clock of the registry."""
    used: bool = False
    """Whether the token was used since that was last recorded."""
    ended: bool = False
    """Whether the token was revoked or has expired, as far as the registry has noticed. A claim may wait meanwhile."""


ANONYMOUS: Final = Principal("", frozenset())
"""The sender of a request without a token, to a path that needs none."""
