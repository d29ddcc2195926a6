"""Errors that the engine raises. Illegal transitions of a state machine are errors of ``domain``.

EngineError
├── NotFoundError           there is no such job, stage, task or worker
│   └── NoWaitingTaskError  no task of the stage type is waiting
├── InFiniteStateError      the job or stage has ended, so that nothing can be added to it
├── NotFiniteError          the job has not ended yet
├── KeyReusedError          another request used the idempotency key
└── ConcurrentChangeError   another client changed the task at the same time

DatabaseError                 the database failed (from ``store``)
├── DatabaseBusyError         the database is busy: the same request may succeed shortly
└── DatabaseUnavailableError  the database cannot be reached or used at present: the same request may succeed later
"""

from enum import StrEnum
from typing import TypeVar

from reference_manager.store.errors import (
    DatabaseBusyError,
    DatabaseError,
    DatabaseUnavailableError,
    LockTimeoutError,
)
from reference_manager.store.pool import Record

__all__ = [
    "ConcurrentChangeError",
    "DatabaseBusyError",
    "DatabaseError",
    "DatabaseUnavailableError",
    "EngineError",
    "InFiniteStateError",
    "KeyReusedError",
    "NoWaitingTaskError",
    "NotFiniteError",
    "NotFoundError",
    "require",
    "unlocked",
]

T = TypeVar("T")


class EngineError(Exception):
    """The engine changed nothing; ``code`` is the error code of the protocol."""

    code: str


class NotFoundError(EngineError):
    """There is no such job, stage, task or worker."""

    def __init__(self, entity: str, message: str | None = None) -> None:
        self.code = f"{entity.upper()}_NOT_FOUND"
        super().__init__(message or f"There is no such {entity}")


class NoWaitingTaskError(NotFoundError):
    """No task of the stage type is waiting."""

    def __init__(self) -> None:
        super().__init__("task", "No task of this type is waiting")


class InFiniteStateError(EngineError):
    """The job or stage has ended."""

    def __init__(self, entity: str, status: StrEnum, *, of_job: StrEnum | None = None) -> None:
        self.code = f"{entity.upper()}_IN_FINITE_STATE"
        whose = f"job of this {entity} is {of_job}" if of_job else f"{entity} is {status}"
        super().__init__(f"The {whose}: nothing more can be added")


class NotFiniteError(EngineError):
    """The job has not ended."""

    def __init__(self, status: StrEnum) -> None:
        self.code = "JOB_NOT_IN_FINITE_STATE"
        super().__init__(f"The job is {status} and cannot be deleted yet: abort it, or wait until it ends")


class KeyReusedError(EngineError):
    """Another request used the idempotency key."""

    def __init__(self) -> None:
        self.code = "IDEMPOTENCY_KEY_REUSED"
        super().__init__("Another request used this Idempotency-Key: use a new key for each request that differs")


class ConcurrentChangeError(EngineError):
    """Another client changed the task during this call."""

    def __init__(self) -> None:
        self.code = "TASK_STATUS_UPDATE_FAILED"
        super().__init__("Another request changed the task at the same time")


def require(value: T | None, entity: str) -> T:
    """Return a value that was looked up. Raise NotFoundError for this kind of entity if it is None."""
    if value is None:
        raise NotFoundError(entity)
    return value


def unlocked(row: Record | None, entity: str) -> Record:
    """Return the row of a statement that takes the lock of a job. Raise LockTimeoutError if another session has it."""
    found = require(row, entity)
    if found["locked"]:
        raise LockTimeoutError("another session has locked the job")
    return found
