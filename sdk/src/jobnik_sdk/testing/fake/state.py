"""What the fake keeps: jobs, stages, tasks and workers, its clock, and the moves between their statuses."""

import heapq
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from jobnik_sdk.model.definitions import JobStatus, Priority, StageStatus, TaskStatus
from jobnik_sdk.testing.fake.machines import CLIENT, JOB, JOB_OPEN, STAGE, STAGE_OPEN

URGENCY: Final = {priority: place for place, priority in enumerate(Priority)}
_CREATED: Final = "it was created"


class Refused(Exception):  # noqa: N818 it is an answer, and reads so where it is raised
    """A request that is refused, as the protocol says it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Clock:
    """Goes on by itself, and further ahead whenever it is moved."""

    def __init__(self) -> None:
        self._started = datetime.now(UTC) - timedelta(seconds=time.monotonic())

    def now(self) -> datetime:
        """The time of this clock."""
        return self._started + timedelta(seconds=time.monotonic())

    def advance(self, by: timedelta) -> None:
        """Move it ahead."""
        self._started += by


class Trace(NamedTuple):
    """The W3C trace context of an entity."""

    traceparent: str
    tracestate: str | None


class Change(NamedTuple):
    """A change of status."""

    source: str | None
    target: str
    at: datetime
    by: str
    why: str


@dataclass(slots=True, kw_only=True, eq=False)
class Entity:
    """What jobs, stages and tasks have in common; `number` grows from one to the next."""

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
    stages: "list[Stage]" = field(default_factory=list["Stage"])
    changes: list[Change] = field(default_factory=list[Change])


@dataclass(slots=True, kw_only=True, eq=False)
class Stage(Entity):
    """A stage; `ready` is a heap of its tasks that may be claimed, `counts` says how many have each status."""

    job: Job
    type: str
    status: StageStatus
    weight: float = 1
    task_defaults: dict[str, Any] | None = None
    started: datetime | None = None
    ended: datetime | None = None
    tasks: "list[Task]" = field(default_factory=list["Task"])
    ready: "list[tuple[int, Task]]" = field(default_factory=list["tuple[int, Task]"])
    counts: Counter[TaskStatus] = field(default_factory=Counter[TaskStatus])
    changes: list[Change] = field(default_factory=list[Change])

    @property
    def order(self) -> int:
        """Its place in its job, from 1."""
        return self.job.stages.index(self) + 1

    @property
    def previous(self) -> "Stage | None":
        """The stage before it."""
        return self.job.stages[self.order - 2] if self.order > 1 else None

    @property
    def open(self) -> bool:
        """Whether its tasks are handed out."""
        return self.status in STAGE_OPEN and self.job.status in JOB_OPEN

    @property
    def opened(self) -> datetime:
        """Since when its tasks are handed out, if they are."""
        changes = (*self.changes, *self.job.changes)
        return max((self.created, *(change.at for change in changes if change.target == "PENDING")))


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """An attempt at a task under a lease, which lasts `length` from each heartbeat on, but not beyond `deadline`."""

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
    """A task; `attempts` are those that ended and the one under way, `failed` counts those that burnt one.

    `ready` is when it came to wait last.
    """

    stage: Stage
    max_attempts: int
    timeout: timedelta | None = None
    retry: dict[str, Any] | None = None
    status: TaskStatus = TaskStatus.PENDING
    failed: int = 0
    ready: datetime | None = None
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


class State:
    """Everything that the fake knows. Whoever calls holds the fake's lock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.jobs: dict[UUID, Job] = {}
        self.stages: dict[UUID, Stage] = {}
        self.tasks: dict[UUID, Task] = {}
        self.workers: dict[str, WorkerRecord] = {}
        self.keys: dict[str, Job] = {}
        self.leased: dict[int, Task] = {}
        self.stages_by_type: defaultdict[str, list[Stage]] = defaultdict(list)
        self._delayed: list[tuple[datetime, int, Task]] = []
        self._numbers = count(1)
        self.lease_ids = count(1)

    def now(self) -> datetime:
        """The time of the fake's clock."""
        return self.clock.now()

    def fresh(self) -> dict[str, Any]:
        """What every new entity begins with."""
        now = self.now()
        return {"number": next(self._numbers), "created": now, "updated": now}

    def move_job(self, job: Job, target: JobStatus) -> None:
        """Change a job's status, by an edge that its machine has."""
        edge, job.updated = JOB[job.status, target], self.now()
        job.changes.append(Change(job.status, target, job.updated, edge.by, edge.why))
        job.status = target

    def move_stage(self, stage: Stage, target: StageStatus) -> None:
        """Change a stage's status, by an edge that its machine has."""
        edge, stage.updated = STAGE[stage.status, target], self.now()
        stage.changes.append(Change(stage.status, target, stage.updated, edge.by, edge.why))
        stage.status = target

    def move_task(self, task: Task, target: TaskStatus) -> None:
        """Change a task's status, and the counts of its stage."""
        task.stage.counts[task.status] -= 1
        task.stage.counts[target] += 1
        task.status, task.updated = target, self.now()

    def enqueue(self, task: Task, due: datetime | None) -> None:
        """Let a task wait to be claimed, not before it is due."""
        if due is None or due <= self.now():
            self._let_wait(task)
        else:
            heapq.heappush(self._delayed, (due, task.number, task))

    def wake(self) -> None:
        """Let tasks whose moment has come be claimed."""
        while self._delayed and self._delayed[0][0] <= self.now():
            task = heapq.heappop(self._delayed)[2]
            if task.status in {TaskStatus.PENDING, TaskStatus.RETRIED} and task.id in self.tasks:
                self._let_wait(task)

    def _let_wait(self, task: Task) -> None:
        task.ready = self.now()
        heapq.heappush(task.stage.ready, (task.number, task))

    def next_moment(self) -> datetime | None:
        """When something happens by itself: a task is due or a lease is over."""
        moments = [self._delayed[0][0]] if self._delayed else []
        moments += [task.attempts[-1].expires for task in self.leased.values()]
        return min(moments, default=None)

    def claimable(self, stage_type: str) -> Iterator[Task]:
        """Take tasks from their queues: the most urgent job first, then the oldest task."""
        stages = self.stages_by_type.get(stage_type, ())
        while waiting := [stage for stage in stages if stage.ready and stage.open]:
            first = min(waiting, key=lambda stage: (URGENCY[stage.job.priority], stage.ready[0][0]))
            yield heapq.heappop(first.ready)[1]


def created(entity: Job | Stage) -> Change:
    """The first change of a job or stage."""
    return Change(None, entity.status, entity.created, CLIENT, _CREATED)


def retry_delay(retry: dict[str, Any] | None, failed: int) -> timedelta | None:
    """Return how long a task waits after so many failed attempts; None: it has no policy.

    Delay 5, factor 2, longest 60: 5, 10, 20, 40, 60, 60 … seconds, each more or less by up to the jitter's share.
    """
    if retry is None:
        return None
    delay: float = retry["delaySeconds"]
    if retry["strategy"] == "exponential":
        longest: float = retry["maxDelaySeconds"]
        # Growth beyond 100 years changes nothing, and would overflow.
        for _ in range(failed - 1):
            if delay >= longest or not delay or retry["factor"] == 1:
                break
            delay *= retry["factor"]
        delay = min(delay, longest)
    return timedelta(seconds=delay * (1 + retry["jitter"] * random.uniform(-1, 1)))  # noqa: S311 jitter is no secret
