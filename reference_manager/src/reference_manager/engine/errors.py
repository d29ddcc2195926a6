"""Why the engine refuses. Beside these, ``domain`` has its own for moves that no state machine permits.

EngineError
├── NotFoundError       there is no such job, stage or task
├── InFiniteStateError  it has ended, and what has ended stays as it is
├── NotFiniteError      it has not ended yet
└── OvertakenError      somebody else settled the task at the same moment
"""

from enum import StrEnum
from typing import TypeVar

Found = TypeVar("Found")


class EngineError(Exception):
    """The engine did nothing; ``code`` is the protocol's word for the reason."""

    code: str


class NotFoundError(EngineError):
    """There is no such job, stage or task."""

    def __init__(self, entity: str, message: str | None = None) -> None:
        self.code = f"{entity.upper()}_NOT_FOUND"
        super().__init__(message or f"There is no such {entity}")


class InFiniteStateError(EngineError):
    """The job or stage has ended."""

    def __init__(self, entity: str, status: StrEnum, *, of_job: StrEnum | None = None) -> None:
        self.code = f"{entity.upper()}_IN_FINITE_STATE"
        whose = f"job of this {entity} is {of_job}" if of_job else f"{entity} is {status}"
        super().__init__(f"The {whose}: nothing can be added any more")


class NotFiniteError(EngineError):
    """The job has not ended."""

    def __init__(self, status: StrEnum) -> None:
        self.code = "JOB_NOT_IN_FINITE_STATE"
        super().__init__(f"The job is {status}: abort it first, or wait until it has ended")


class OvertakenError(EngineError):
    """Somebody else settled the task while this call was under way."""

    def __init__(self) -> None:
        self.code = "TASK_STATUS_UPDATE_FAILED"
        super().__init__("Somebody else changed the task at the same moment")


def existing(found: Found | None, entity: str) -> Found:
    """What was found, or NotFoundError for this kind of entity."""
    if found is None:
        raise NotFoundError(entity)
    return found
