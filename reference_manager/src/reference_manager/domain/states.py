"""The statuses and priorities of the protocol. The API and the database use the same values."""

from enum import StrEnum


class JobStatus(StrEnum):
    """The status of a job."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class StageStatus(StrEnum):
    """The status of a stage."""

    CREATED = "CREATED"
    WAITING = "WAITING"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class TaskStatus(StrEnum):
    """The status of a task."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    RETRIED = "RETRIED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class Outcome(StrEnum):
    """How an attempt ended. The manager sets EXPIRED and TIMED_OUT; workers report the others."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    RELEASED = "RELEASED"
    SNOOZED = "SNOOZED"
    EXPIRED = "EXPIRED"
    TIMED_OUT = "TIMED_OUT"


class Priority(StrEnum):
    """The priority of a job, from the most to the least urgent. The queue has the same order."""

    VERY_HIGH = "VERY_HIGH"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    VERY_LOW = "VERY_LOW"
