"""Commands of clients, already validated: what to create, claim, report and list."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, NamedTuple, TypeAlias, TypeVar
from uuid import UUID

from reference_manager.domain.payloads import JsonText
from reference_manager.domain.states import JobStatus, Outcome, Priority, StageStatus, TaskStatus


class Trace(NamedTuple):
    """The W3C trace context of an entity."""

    traceparent: str
    tracestate: str | None


DEFAULT_MAX_ATTEMPTS = 3
"""The maximum number of attempts of a task, unless the task or its stage sets another."""


class RetentionRule(NamedTuple):
    """How long jobs are kept after their end, by status; None: they are not deleted."""

    completed: timedelta | None
    failed: timedelta | None
    aborted: timedelta | None
    keep_last: int
    """This number of jobs of each name that ended last are kept in any case."""


NO_TRACE = Trace("00-00000000000000000000000000000000-0000000000000000-00", None)
"""The trace context of an entity that belongs to no trace."""


@dataclass(frozen=True, slots=True)
class NewStage:
    """A stage to add to a job.

    Args:
        type: The stage type, which selects the workers.
        data: The payload of the stage.
        user_metadata: Metadata for users; the manager does not interpret it.
        start_as_waiting: Whether the stage waits until a client releases it.
        trace: The trace context of the stage.
        weight: The share of the stage in the progress of its job, relative to the other stages.
        task_defaults: Default options for the tasks of the stage, with the protocol's names. None: no defaults.
        identity: See ``NewJob``.
    """

    type: str
    data: JsonText
    user_metadata: JsonText
    start_as_waiting: bool
    trace: Trace
    weight: float = 1
    task_defaults: JsonText | None = None
    identity: JsonText = ""


@dataclass(frozen=True, slots=True)
class NewTasks:
    """Tasks to add to a stage, in order. Each JSON list has one item for each task.

    Args:
        number: The number of tasks.
        data: The payloads.
        trace: The trace context of the tasks that do not set their own.
        user_metadata: Metadata for users. None: no task has any.
        options: Options with the protocol's names: ``maxAttempts``, ``timeoutSeconds``, ``retry``, ``availableAt`` or
            ``delaySeconds``, ``traceparent`` and ``tracestate``; null for a task without any. An option that a task
            does not set comes from its stage, otherwise from the manager's defaults. None: no task sets any.
        identity: See ``NewJob``.
    """

    number: int
    data: JsonText
    trace: Trace
    user_metadata: JsonText | None = None
    options: JsonText | None = None
    identity: JsonText = ""


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """A key that prevents duplicate jobs.

    Args:
        key: Any text.
        within: How long after its creation the last job with this key prevents another one. None: until it has ended.
    """

    key: str
    within: timedelta | None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to create.

    Args:
        name: A name for people.
        data: The payload of the job.
        priority: The priority of its tasks.
        user_metadata: Metadata for users; the manager does not interpret it.
        trace: The trace context of the job.
        stages: Its stages in order, each with its tasks. None: the response does not include stages.
        unique: The key that prevents duplicates of the job. None: duplicates are allowed.
        identity: A text that equal requests have in common; empty without an idempotency key. Trace contexts are not
            part of it, because a client that repeats a request later does so in another trace.
    """

    name: str
    data: JsonText
    priority: Priority
    user_metadata: JsonText
    trace: Trace
    stages: Sequence[tuple[NewStage, NewTasks]] | None = None
    unique: UniqueKey | None = None
    identity: JsonText = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A request for tasks of a stage type.

    Args:
        worker_id: The holder of the leases. None: a client without leases, which must report each task within
            ``lease``.
        limit: The maximum number of tasks.
        lease: How long a lease lasts unless it is renewed.
        wait: How long to wait for the first task if none is waiting.
        minimal: Whether to reduce tasks to the fields that a worker needs, and to send each stage with its job once.
    """

    worker_id: str | None
    limit: int
    lease: timedelta
    wait: timedelta = timedelta()
    minimal: bool = False


class Report(NamedTuple):
    """The outcome of an attempt.

    Args:
        task_id: The task.
        lease_id: The lease of the attempt; None for a task that was claimed without a lease.
        worker_id: The holder of the lease; None for a task that was claimed without a lease.
        outcome: How the attempt ended.
        result: The result of a completed task. None: it has none.
        error: The error of a failed attempt, with ``type``, ``message`` and ``stack``.
        retryable: Whether a failed task may be retried.
        delay: How long a task that returns to the queue cannot be claimed. None: the delay of its retry policy after a
            failed attempt, otherwise no delay.
        checkpoint: State for the next attempt. None: keep the stored checkpoint.
    """

    task_id: UUID
    lease_id: int | None
    worker_id: str | None
    outcome: Outcome
    result: JsonText | None = None
    error: JsonText | None = None
    retryable: bool = True
    delay: timedelta | None = None
    checkpoint: JsonText | None = None


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a worker reports as running."""

    task_id: UUID
    lease_id: int
    progress: JsonText | None = None
    checkpoint: JsonText | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker's report about itself and its running tasks."""

    worker_id: str
    stage_types: Sequence[str]
    host: str | None
    version: str | None
    draining: bool
    running: Sequence[RunningTask]


MetadataFilter = Sequence[list[str]]
"""Pairs: the name of a member of ``userMetadata``, and its value: a string, or a number or boolean as JSON shows it."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Selects jobs for a list. None matches all; dates are inclusive."""

    name: str | None = None
    priority: Priority | None = None
    statuses: Sequence[JobStatus] | None = None
    metadata: MetadataFilter | None = None
    from_date: datetime | None = None
    end_date: datetime | None = None


@dataclass(frozen=True, slots=True)
class StageFilter:
    """Selects stages for a list. None matches all."""

    job_id: UUID | None = None
    type: str | None = None
    statuses: Sequence[StageStatus] | None = None
    metadata: MetadataFilter | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Selects tasks for a list. None matches all; dates are inclusive."""

    stage_id: UUID | None = None
    stage_type: str | None = None
    statuses: Sequence[TaskStatus] | None = None
    metadata: MetadataFilter | None = None
    from_date: datetime | None = None
    end_date: datetime | None = None


class AgeKey(NamedTuple):
    """The sort key of a job or a task in a list: its age."""

    created_at: datetime
    seq: int


class StageKey(NamedTuple):
    """The sort key of a stage in a list: by job, then by position in the job."""

    job_id: UUID
    position: int


class SerialKey(NamedTuple):
    """The sort key of an attempt or a status change: a number that grows, and a place."""

    serial: int
    """The lease of the attempt, or the id of the change."""
    place: int
    """The number of the attempt in its task, or the place of the change in its attempt."""


class WorkerKey(NamedTuple):
    """The sort key of a worker in a list: its id. The place is always 0."""

    id: str
    place: int


Key: TypeAlias = AgeKey | StageKey | SerialKey | WorkerKey
KeyT = TypeVar("KeyT", bound=Key)


@dataclass(frozen=True, slots=True)
class PageRequest(Generic[KeyT]):
    """The part of a list to read."""

    limit: int
    """The maximum number of entities."""
    after: KeyT | None = None
    """The sort key after which the page begins. None: the beginning of the list."""
    until: datetime | None = None
    """Excludes entities created later. None: includes all."""
    descending: bool = False
    """Whether the list is read in reverse order."""


@dataclass(frozen=True, slots=True)
class NumberedRequest:
    """The part of a list to read, by its place."""

    skipped: int
    """The number of entities before the page."""
    limit: int
    """The maximum number of entities."""
    descending: bool = False
    """Whether the list is read in reverse order."""
