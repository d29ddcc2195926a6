"""Jobs, stages and tasks as the model stores them, and their JSON in answers.

The manager chooses ids and times. The model has names for them instead, such as ``task-3``, and `bindings` learns the
value of a name from the first answer that contains it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple, TypeAlias

Json: TypeAlias = Any
Body: TypeAlias = dict[str, Json]

SMALLEST = 1e-6
"""The smallest difference between two fractions of progress that an answer shows."""
PRIORITIES = ("VERY_HIGH", "HIGH", "MEDIUM", "LOW", "VERY_LOW")
MINIMAL = "return=minimal"
"""The preference for a minimal answer."""
FINAL = ("COMPLETED", "FAILED", "ABORTED")


class Id(str):
    """The name of an id: the kind of its entity and a number, such as ``task-3``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, repr=False)
class Time:
    """The name of a time: the same name is the same time in every answer."""

    name: str
    unlike: "Time | None" = field(default=None, compare=False)
    """An earlier time, from which this one must differ."""

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Passing(Time):
    """The name of a time that may differ in the next answer."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """The name of a lease number, which is higher than those of all earlier claims."""

    claim: int
    place: int
    """The position among the tasks of the claim, whose numbers can have any order."""


class Wording:
    """Any text for people."""

    def __repr__(self) -> str:
        return "<a message>"


class Amount:
    """Any number of seconds."""

    def __repr__(self) -> str:
        return "<an amount>"


@dataclass(frozen=True, slots=True)
class Near:
    """A number between 0 and 1, within `SMALLEST`."""

    number: float


@dataclass(frozen=True, slots=True)
class OneOf:
    """Any of these: it depends on the order of events that happen at once."""

    choices: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class AnyOrder:
    """A list in any order."""

    items: tuple[Json, ...]


Chosen: TypeAlias = Id | Time | Lease | Wording | Amount | Near | OneOf | AnyOrder
"""The values that the manager chooses, as the model has them."""


class Answer(NamedTuple):
    """An HTTP answer: its status, its JSON (None without a body), and the preference that was applied."""

    status: int
    body: Json
    applied: str | None = None


@dataclass(slots=True, kw_only=True)
class Entity:
    """The fields that jobs, stages and tasks share."""

    id: Id
    status: str = "CREATED"
    data: Json
    user_metadata: Json
    trace: Body
    """Its trace context as it is answered."""
    changes: list[Body] = field(default_factory=list[Body])
    """Its history as it is answered."""

    @property
    def ended(self) -> bool:
        """Whether its status is final."""
        return self.status in FINAL

    def context(self) -> Body:
        """The fields that a worker receives with a claimed task."""
        return {"id": self.id, "data": self.data, "userMetadata": self.user_metadata} | self.trace

    def json(self) -> Body:
        """The fields in answers that all three share, with both names of the times."""
        created, updated = Time(f"creation of {self.id}"), Passing(f"update of {self.id}")
        return {
            "id": self.id,
            "status": self.status,
            "data": self.data,
            "userMetadata": self.user_metadata,
            "createdAt": created,
            "creationTime": created,
            "updatedAt": updated,
            "updateTime": updated,
        } | self.trace


@dataclass(slots=True, kw_only=True)
class Job(Entity):
    """A job."""

    name: str
    priority: str
    stages: list["Stage"] = field(default_factory=list["Stage"])

    @property
    def open(self) -> bool:
        """Whether its tasks can be claimed."""
        return self.status in ("PENDING", "IN_PROGRESS")

    @property
    def fraction(self) -> float | None:
        """Its progress from 0 to 1, the weighted mean of its stages; None without stages."""
        weights = sum(stage.weight for stage in self.stages)
        return sum(stage.weight * (stage.fraction or 0) for stage in self.stages) / weights if weights else None

    @property
    def advances(self) -> bool:
        """Whether it makes progress, so that the rest can be estimated."""
        return self.status == "IN_PROGRESS"

    def context(self) -> Body:
        """The fields that a worker receives with a claimed task."""
        return Entity.context(self) | {"name": self.name, "priority": self.priority}

    def json(self, *, with_stages: bool = False) -> Body:
        """The job as it is answered."""
        stages = {"stages": [stage.json() for stage in self.stages]} if with_stages else {}
        return (
            Entity.json(self)
            | {"name": self.name, "priority": self.priority, "percentage": share(self.stages)}
            | {"endedAt": Time(f"end of {self.id}") if self.ended else None}
            | stages
        )


@dataclass(slots=True, kw_only=True)
class Stage(Entity):
    """A stage."""

    job: Job
    type: str
    order: int
    weight: float
    task_defaults: Body
    """The defaults for its tasks; may be empty."""
    tasks: list["Task"] = field(default_factory=list["Task"])
    start_time: Time | None = None
    end_time: Time | None = None
    place: "Task | None" = None
    """Its place in the queue: the oldest task that has waited since it joined the queue; None if it is not there."""

    @property
    def previous(self) -> "Stage | None":
        """The stage before it."""
        return self.job.stages[self.order - 2] if self.order > 1 else None

    @property
    def next(self) -> "Stage | None":
        """The stage behind it."""
        return self.job.stages[self.order] if self.order < len(self.job.stages) else None

    @property
    def in_turn(self) -> bool:
        """Whether it is the first, or the stage before it is completed."""
        return self.previous is None or self.previous.status == "COMPLETED"

    @property
    def open(self) -> bool:
        """Whether its tasks can be claimed."""
        return self.status in ("PENDING", "IN_PROGRESS") and self.job.open

    @property
    def fraction(self) -> float | None:
        """Its progress from 0 to 1, including the reported progress of tasks; None without tasks."""
        done = sum(task.status == "COMPLETED" for task in self.tasks)
        reported = sum(task.progress["fraction"] for task in self.tasks if task.at_work and task.progress)
        return (done + reported) / len(self.tasks) if self.tasks else None

    @property
    def advances(self) -> bool:
        """Whether it makes progress, so that the rest can be estimated."""
        return self.status == "IN_PROGRESS" and self.job.open

    def context(self) -> Body:
        """The fields that a worker receives with a claimed task."""
        return Entity.context(self) | {"type": self.type, "order": self.order}

    def context_json(self) -> Body:
        """The stage and its job as a worker receives them with a claimed task."""
        return {"stage": self.context(), "job": self.job.context()}

    def summary(self) -> Body:
        """The number of its tasks by their status."""
        statuses = [task.status for task in self.tasks]
        return {
            "created": 0,
            "pending": statuses.count("PENDING"),
            "inProgress": statuses.count("IN_PROGRESS"),
            "completed": statuses.count("COMPLETED"),
            "failed": statuses.count("FAILED"),
            "retried": statuses.count("RETRIED"),
            "aborted": statuses.count("ABORTED"),
            "total": len(statuses),
        }

    def json(self, *, with_tasks: bool = False) -> Body:
        """The stage as it is answered."""
        weight = {"weight": self.weight} if self.weight != 1 else {}
        defaults = {"taskDefaults": self.task_defaults} if self.task_defaults else {}
        tasks = {"tasks": [task.json() for task in self.tasks]} if with_tasks else {}
        return (
            Entity.json(self)
            | {
                "jobId": self.job.id,
                "type": self.type,
                "order": self.order,
                "summary": self.summary(),
                "percentage": share(self.tasks),
                "startTime": self.start_time,
                "endTime": self.end_time,
            }
            | weight
            | defaults
            | tasks
        )


@dataclass(slots=True, kw_only=True)
class Attempt:
    """An attempt at a task, and the lease that it is made under."""

    lease: Lease
    worker: str | None
    """None: a client without leases."""
    source: str
    """The task's status before it."""
    start_time: Time
    seconds: int
    """How long the lease lasts, unless a heartbeat renews it."""
    expires: Time
    deadline: Time | None
    renewals: int = 0
    end_time: Time | None = None
    outcome: str | None = None
    error: Body | None = None
    settled: str | None = None
    """The status of the task after the report of its worker; None without an accepted report."""

    def json(self, number: int) -> Body:
        """The attempt as it is answered."""
        return {
            "number": number,
            "leaseId": self.lease,
            "workerId": self.worker,
            "startTime": self.start_time,
            "endTime": self.end_time,
            "outcome": self.outcome,
            "error": self.error,
        }


@dataclass(slots=True, kw_only=True)
class Task(Entity):
    """A task."""

    stage: Stage
    number: int
    """Higher than that of any task that was there before."""
    max_attempts: int
    attempts: int = 0
    """The number of failed attempts."""
    tries: list[Attempt] = field(default_factory=list[Attempt])
    """All attempts, oldest first."""
    delay: Json = None
    """For how many seconds, or until when, it cannot be claimed; None without a delay."""
    timeout: int | None
    """Seconds."""
    retry: Body | None
    """Its retry policy."""
    result: Json = None
    error: Body | None = None
    progress: Body | None = None
    end_time: Time | None = None

    @property
    def queued(self) -> bool:
        """Whether it can be claimed sooner or later, once its stage is open."""
        return self.status in ("PENDING", "RETRIED")

    @property
    def waiting(self) -> bool:
        """Whether it can be claimed once its stage is open."""
        return self.queued and self.delay is None

    @property
    def delayed(self) -> bool:
        """Whether it is not yet due."""
        return self.queued and self.delay is not None

    @property
    def pause(self) -> int:
        """For how many seconds it cannot be claimed after the attempt that has just failed."""
        if self.retry is None:
            return 0
        growth = self.retry["factor"] ** (self.attempts - 1) if self.retry["strategy"] == "exponential" else 1
        return round(min(self.retry["delaySeconds"] * growth, self.retry.get("maxDelaySeconds", inf)))

    @property
    def at_work(self) -> Attempt | None:
        """The attempt in progress."""
        return self.tries[-1] if self.status == "IN_PROGRESS" else None

    def json(self) -> Body:
        """The task as it is answered."""
        optional = {
            "timeoutSeconds": self.timeout,
            "retry": self.retry,
            "result": self.result,
            "error": self.error,
            "progress": self.progress,
        }
        return (
            Entity.json(self)
            | {
                "stageId": self.stage.id,
                "attempts": self.attempts,
                "maxAttempts": self.max_attempts,
                "startTime": self.tries[-1].start_time if self.tries else None,
                "endTime": self.end_time,
            }
            | {name: value for name, value in optional.items() if value is not None}
        )

    def claimed_json(self, attempt: Attempt) -> Body:
        """The task in the answer to a claim."""
        return (
            self.json()
            | {
                "leaseId": attempt.lease,
                "leaseExpiresAt": attempt.expires,
            }
            | self.stage.context_json()
        )

    def minimal_json(self, attempt: Attempt) -> Body:
        """The task in the minimal answer to a claim, which has the stage and the job separately."""
        timeout = {"timeoutSeconds": self.timeout} if self.timeout else {}
        retry = {"retry": self.retry} if self.retry else {}
        return (
            Entity.context(self)
            | {
                "stageId": self.stage.id,
                "attempts": self.attempts,
                "maxAttempts": self.max_attempts,
                "leaseId": attempt.lease,
                "waitedSeconds": Amount(),
            }
            | timeout
            | retry
        )

    def attempts_json(self) -> list[Body]:
        """Its attempts as they are answered."""
        return [attempt.json(number) for number, attempt in enumerate(self.tries, 1)]

    def queue_json(self) -> Body:
        """Its place in the queue, in the form of ``tables.sql``."""
        attempt = self.at_work
        held = attempt and {
            "leaseId": attempt.lease,
            "workerId": attempt.worker,
            "seconds": attempt.seconds if attempt.worker else None,
            "expires": attempt.expires if attempt.worker else None,
            "deadline": attempt.deadline,
        }
        return {
            "id": self.id,
            "waits": self.waiting,
            "place": self.stage.place and self.stage.place.id if not self.stage.ended else None,
            "priority": self.stage.job.priority,
            "delay": self.delay if self.queued else None,
            "lease": held,
            "result": self.result,
            "error": self.error,
            "attempts": self.attempts_json(),
        }


def progress(entity: Job | Stage) -> Body:
    """The field ``progress`` of a job or stage; none without stages or tasks."""
    if entity.fraction is None:
        return {}
    left = {"etaSeconds": Amount()} if entity.advances and entity.fraction >= SMALLEST else {}
    return {"progress": {"fraction": Near(entity.fraction)} | left}


def share(parts: Iterable[Entity]) -> int:
    """The percentage that is completed, rounded down; 0 if there are none."""
    completed = [part.status == "COMPLETED" for part in parts]
    return 100 * sum(completed) // max(len(completed), 1)
