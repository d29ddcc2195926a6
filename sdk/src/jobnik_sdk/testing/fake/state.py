"""The state of the fake manager: jobs, stages, tasks, attempts and workers, and a clock."""

import heapq
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from jobnik_sdk.model.definitions import JobStatus, Priority, StageStatus, TaskStatus, retry_delay_seconds
from jobnik_sdk.testing.fake.transitions import CLIENT, JOB_OPEN, STAGE_OPEN

_URGENCY: Final = {priority: place for place, priority in enumerate(Priority)}


class RefusedRequestError(Exception):
    """A request that the manager refuses.

    Args:
        status: The HTTP status of the answer.
        code: The protocol's error code.
        message: What is wrong.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Clock:
    """A clock that runs by itself and can be moved ahead."""

    def __init__(self) -> None:
        self._started = datetime.now(UTC) - timedelta(seconds=time.monotonic())

    def read(self) -> datetime:
        """Return the time of this clock, in UTC."""
        return self._started + timedelta(seconds=time.monotonic())

    def advance(self, by: timedelta) -> None:
        """Move the clock ahead."""
        self._started += by


class Trace(NamedTuple):
    """The W3C trace context of an entity."""

    traceparent: str
    tracestate: str | None


class Change(NamedTuple):
    """A change of status, as the history shows it; `source` is None at the creation."""

    source: str | None
    target: str
    at: datetime
    by: str
    reason: str


@dataclass(slots=True, kw_only=True, eq=False)
class Entity:
    """The fields that jobs, stages and tasks share; `number` grows from one entity to the next."""

    number: int
    created: datetime
    updated: datetime
    data: dict[str, Any]
    metadata: dict[str, Any]
    trace: Trace
    id: UUID = field(default_factory=uuid4)


@dataclass(slots=True, kw_only=True, eq=False)
class Job(Entity):
    """A job."""

    name: str
    priority: Priority
    status: JobStatus = JobStatus.PENDING
    ended: datetime | None = None
    stages: "list[Stage]" = field(default_factory=list["Stage"])
    changes: list[Change] = field(default_factory=list[Change])


@dataclass(slots=True, kw_only=True, eq=False)
class Stage(Entity):
    """A stage.

    Args:
        waiting: A heap of the tasks that can be claimed while the stage is open, with their numbers.
        place: The task whose age is the place of the stage in the queue: the oldest task that has waited since the
            stage joined the queue. None: the stage is not in the queue.
        counts: The number of tasks by their status.
    """

    job: Job
    type: str
    status: StageStatus
    weight: float = 1
    task_defaults: dict[str, Any] | None = None
    started: datetime | None = None
    ended: datetime | None = None
    tasks: "list[Task]" = field(default_factory=list["Task"])
    waiting: "list[tuple[int, Task]]" = field(default_factory=list["tuple[int, Task]"])
    place: "Task | None" = None
    counts: Counter[TaskStatus] = field(default_factory=Counter[TaskStatus])
    changes: list[Change] = field(default_factory=list[Change])

    @property
    def order(self) -> int:
        """Its position in its job, from 1."""
        return self.job.stages.index(self) + 1

    @property
    def previous(self) -> "Stage | None":
        """The stage before it."""
        return self.job.stages[self.order - 2] if self.order > 1 else None

    @property
    def open(self) -> bool:
        """Whether its tasks can be claimed."""
        return self.status in STAGE_OPEN and self.job.status in JOB_OPEN

    @property
    def opened(self) -> datetime:
        """When its tasks could first be claimed, since the last pause of the job; meaningful while it is open."""
        changes = (*self.changes, *self.job.changes)
        return max((self.created, *(change.at for change in changes if change.target == "PENDING")))


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """An attempt at a task, and its lease.

    Args:
        worker_id: None for a client of part A, which has no lease.
        length: How long the lease lasts from the claim, and again from each heartbeat on.
        deadline: When the time limit of the task ends the attempt; the lease does not last longer.
        source: The status of the task before the claim.
        target: The status of the task after the attempt; None while the attempt is in progress, or if it was aborted.
    """

    lease_id: int
    worker_id: str | None
    length: timedelta
    started: datetime
    expires: datetime
    source: TaskStatus
    deadline: datetime | None = None
    fraction: float | None = None
    ended: datetime | None = None
    outcome: str | None = None
    target: TaskStatus | None = None
    error: dict[str, Any] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Task(Entity):
    """A task.

    Args:
        failed: The number of attempts that are used up.
        waiting_since: When it last joined the tasks that can be claimed.
        attempts: All attempts, the one in progress included.
    """

    stage: Stage
    max_attempts: int
    timeout: timedelta | None = None
    retry: dict[str, Any] | None = None
    status: TaskStatus = TaskStatus.PENDING
    failed: int = 0
    waiting_since: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    checkpoint: Any = None
    attempts: list[Attempt] = field(default_factory=list[Attempt])


@dataclass(slots=True, kw_only=True, eq=False)
class WorkerRecord:
    """A worker that has sent a heartbeat."""

    id: str
    started: datetime
    seen: datetime
    stage_types: list[str]
    host: str | None = None
    version: str | None = None
    draining: bool = False
    drain_wanted: bool = False
    running: int = 0


class Creation(NamedTuple):
    """The response to a request with an idempotency key that created something, or found a job with its unique key."""

    at: datetime
    request: str
    """Identifies the request."""
    job: Job
    """The job that was created or found, or in which something was created."""
    response: Any


class State:
    """Everything that the fake manager stores. The caller holds the lock of the transport.

    The time changes only when `tick` is called, so that everything that one request changes has the same time.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.now = self.clock.read()
        """The time of the current request, in UTC."""
        self.jobs: dict[UUID, Job] = {}
        self.stages: dict[UUID, Stage] = {}
        self.tasks: dict[UUID, Task] = {}
        self.workers: dict[str, WorkerRecord] = {}
        self.keys: dict[str, Job] = {}
        """The last job that was created with each unique key, even if it was deleted."""
        self.creations: dict[str, Creation] = {}
        """By idempotency key."""
        self.leased: dict[int, Task] = {}
        """The tasks in progress by the ids of their leases."""
        self.stages_by_type: defaultdict[str, list[Stage]] = defaultdict(list)
        self.delayed: list[tuple[datetime, int, Task]] = []
        """A heap of the tasks that cannot be claimed before a moment, with that moment and their numbers."""
        self.lease_ids = count(1)
        self._numbers = count(1)

    def tick(self) -> datetime:
        """Read the clock; `now` is this time until the next call."""
        self.now = self.clock.read()
        return self.now

    def new_entity_fields(self) -> dict[str, Any]:
        """Return the number and the times of a new entity."""
        return {"number": next(self._numbers), "created": self.now, "updated": self.now}

    def enqueue(self, task: Task, due: datetime | None) -> None:
        """Make a task claimable, at once or when it is due."""
        if due is None or due <= self.now:
            self._let_wait(task)
        else:
            heapq.heappush(self.delayed, (due, task.number, task))

    def wake(self) -> None:
        """Make the delayed tasks that are due claimable."""
        while self.delayed and self.delayed[0][0] <= self.now:
            task = heapq.heappop(self.delayed)[2]
            if task.status in {TaskStatus.PENDING, TaskStatus.RETRIED} and task.id in self.tasks:
                self._let_wait(task)

    def next_moment(self) -> datetime | None:
        """Return the time of the next event without a request: a task becomes due, or a lease expires."""
        moments = [self.delayed[0][0]] if self.delayed else []
        moments += [task.attempts[-1].expires for task in self.leased.values()]
        return min(moments, default=None)

    def take(self, stage_type: str, limit: int) -> list[Task]:
        """Take tasks from the queue of a stage type.

        The job with the highest priority comes first, then the stage that has waited longest, then its oldest task. A
        stage leaves the queue when its last waiting task is taken, and gets a new place when it has tasks again.
        """
        stages = [stage for stage in self.stages_by_type.get(stage_type, ()) if stage.open]
        queue = [(_URGENCY[one.job.priority], one.place.number, one) for one in stages if one.place is not None]
        taken: list[Task] = []
        for _, _, stage in sorted(queue, key=lambda entry: entry[:2]):
            while stage.waiting and len(taken) < limit:
                taken.append(heapq.heappop(stage.waiting)[1])
            if not stage.waiting:
                stage.place = None
            if len(taken) == limit:
                break
        return taken

    def _let_wait(self, task: Task) -> None:
        stage = task.stage
        task.waiting_since = self.now
        heapq.heappush(stage.waiting, (task.number, task))
        if stage.place is None or task.number < stage.place.number:
            stage.place = task


def creation(entity: Job | Stage) -> Change:
    """Return the first change in the history of a job or stage."""
    return Change(None, entity.status, entity.created, CLIENT, "it was created")


def retry_delay(retry: dict[str, Any] | None, failed: int) -> timedelta | None:
    """Return how long a task waits after this number of failed attempts; None if it has no retry policy.

    The delay is changed at random by up to the jitter.
    """
    if retry is None:
        return None
    jitter = 1 + retry["jitter"] * random.uniform(-1, 1)  # noqa: S311 jitter is no secret
    return timedelta(seconds=retry_delay_seconds(retry, failed) * jitter)
