"""Commands of clients, already validated: what to create, claim, report, list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

from reference_manager.domain.states import Outcome, Priority, StageStatus, TaskStatus

JsonObject = Mapping[str, object]
JsonValue = object
"""Anything that JSON can say; None where nothing is said."""


class Trace(NamedTuple):
    """The W3C trace context that an entity belongs to."""

    traceparent: str
    tracestate: str | None


DEFAULT_MAX_ATTEMPTS = 3
"""How many attempts a task has where neither it nor its stage says."""

NO_TRACE = Trace("00-00000000000000000000000000000000-0000000000000000-00", None)
"""What belongs to no trace."""


@dataclass(frozen=True, slots=True)
class NewStage:
    """A stage to add to a job.

    Args:
        type: Which workers do its tasks.
        data: What it is about.
        user_metadata: What users note on it.
        start_as_waiting: Whether it waits to be released by hand.
        trace: The trace that it belongs to.
        weight: How much of its job's progress it is, compared with the job's other stages.
        task_defaults: Options for its tasks, as they go over the wire: what a task does not say itself.
    """

    type: str
    data: JsonObject
    user_metadata: JsonObject
    start_as_waiting: bool
    trace: Trace
    weight: float = 1
    task_defaults: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class NewTasks:
    """Tasks to add to a stage, in their order: what each of them says, in one sequence for each kind.

    Args:
        data: What they are about.
        trace: The trace of those that do not name their own.
        user_metadata: What users note on them; None: nothing on any.
        options: What else they say, named as on the wire: ``maxAttempts``, ``timeoutSeconds``, ``retry``,
            ``availableAt`` or ``delaySeconds``, ``traceparent`` and ``tracestate``. What a task does not say is as its
            stage says, else as usual. None: nothing, on any.
    """

    data: Sequence[JsonObject]
    trace: Trace
    user_metadata: Sequence[JsonObject] | None = None
    options: Sequence[JsonObject | None] | None = None


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """What a job shares with others of which only one is wanted.

    Args:
        key: Any text.
        within: Not within so long after the creation of the last one; None: not while the last one goes on.
    """

    key: str
    within: timedelta | None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to create.

    Args:
        name: What people call it.
        data: What it is about.
        priority: How urgent its tasks are.
        user_metadata: What users note on it.
        trace: The trace that it belongs to.
        stages: Those that it comes with, in their order, and the tasks of each; None: the answer has no stages.
        unique: The key that it may have to itself; None: there may be any number like it.
    """

    name: str
    data: JsonObject
    priority: Priority
    user_metadata: JsonObject
    trace: Trace
    stages: Sequence[tuple[NewStage, NewTasks]] | None = None
    unique: UniqueKey | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish for tasks of a stage type.

    Args:
        worker_id: Who gets the leases. None: a client that knows none; its tasks must be reported within ``lease``.
        limit: The most tasks.
        lease: How long a lease lasts unless it is renewed.
        wait: How long to wait for the first task if there is none.
        minimal: Whether tasks come without what their worker does not need, and stages and jobs once for all of them.
    """

    worker_id: str | None
    limit: int
    lease: timedelta
    wait: timedelta = timedelta()
    minimal: bool = False


class Report(NamedTuple):
    """How an attempt ended.

    Args:
        task_id: Of which task.
        lease_id: The lease it was done under; None for a task that was claimed without.
        worker_id: Whose lease that is; None for a task that was claimed without.
        outcome: How it ended.
        result: What a completed task gave.
        error: Why a failed one failed: ``type``, ``message``, ``stack``.
        retryable: Whether a failed one may be tried again.
        delay: How long a task that goes back to the queue must wait before it may be claimed; None: after a failed
            attempt as its retry policy says, else not at all.
        checkpoint: What it leaves for the next attempt; None: what was there before.
    """

    task_id: UUID
    lease_id: int | None
    worker_id: str | None
    outcome: Outcome
    result: JsonValue = None
    error: JsonObject | None = None
    retryable: bool = True
    delay: timedelta | None = None
    checkpoint: JsonValue = None


@dataclass(frozen=True, slots=True)
class Running:
    """A task that a worker says it works on."""

    task_id: UUID
    lease_id: int
    progress: JsonObject | None = None
    checkpoint: JsonValue = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a worker says of itself."""

    worker_id: str
    stage_types: Sequence[str]
    host: str | None
    version: str | None
    draining: bool
    running: Sequence[Running]


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


class AgePlace(NamedTuple):
    """The place of a job or a task among the others of its kind, oldest first."""

    created_at: datetime
    seq: int


class StagePlace(NamedTuple):
    """The place of a stage among the others, by job and position."""

    job_id: UUID
    position: int


PlaceT = TypeVar("PlaceT", bound=AgePlace | StagePlace)


@dataclass(frozen=True, slots=True)
class PageRequest(Generic[PlaceT]):
    """Which part of a list to read."""

    limit: int
    """The most entities."""
    after: PlaceT | None = None
    """Only what comes behind this place; None begins at the beginning."""
    until: datetime | None = None
    """Only what was created by then; None: all."""
