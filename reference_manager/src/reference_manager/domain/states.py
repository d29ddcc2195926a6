"""The statuses and priorities of the protocol; their values are what goes over the wire and into the database."""

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class StageStatus(StrEnum):
    """Where a stage stands."""

    CREATED = "CREATED"
    WAITING = "WAITING"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class TaskStatus(StrEnum):
    """Where a task stands."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    RETRIED = "RETRIED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class Outcome(StrEnum):
    """What an attempt ended with. EXPIRED and TIMED_OUT are the manager's words, the others a worker's."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    RELEASED = "RELEASED"
    SNOOZED = "SNOOZED"
    EXPIRED = "EXPIRED"
    TIMED_OUT = "TIMED_OUT"


class Priority(StrEnum):
    """A job's priority, the most urgent first; the order of the members is the order of the queue."""

    VERY_HIGH = "VERY_HIGH"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    VERY_LOW = "VERY_LOW"
