"""What clients ask to be created, already validated."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from reference_manager.domain.states import Priority, StageStatus, TaskStatus

JsonObject = Mapping[str, object]


class Trace(NamedTuple):
    """The W3C trace context that an entity belongs to."""

    traceparent: str
    tracestate: str | None


NO_TRACE = Trace("00-00000000000000000000000000000000-0000000000000000-00", None)
"""What belongs to no trace."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to create."""

    name: str
    data: JsonObject
    priority: Priority
    user_metadata: JsonObject
    trace: Trace


@dataclass(frozen=True, slots=True)
class NewStage:
    """A stage to add to a job."""

    type: str
    data: JsonObject
    user_metadata: JsonObject
    start_as_waiting: bool
    trace: Trace


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to add to a stage."""

    data: JsonObject
    user_metadata: JsonObject
    max_attempts: int
    trace: Trace


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; None matches all, dates are inclusive."""

    name: str | None = None
    priority: Priority | None = None
    from_date: datetime | None = None
    end_date: datetime | None = None


@dataclass(frozen=True, slots=True)
class StageFilter:
    """Which stages to list; None matches all."""

    job_id: UUID | None = None
    type: str | None = None
    status: StageStatus | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; None matches all, dates are inclusive."""

    stage_id: UUID | None = None
    stage_type: str | None = None
    status: TaskStatus | None = None
    from_date: datetime | None = None
    end_date: datetime | None = None
