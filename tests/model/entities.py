"""Jobs, stages and tasks as the model keeps them, and the answers that they are seen in.

The manager chooses ids and times. The model has names for them instead, such as ``task-3``; whoever compares learns the
value behind a name where it is first seen.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

Json: TypeAlias = Any
Body: TypeAlias = dict[str, Json]

PRIORITIES = ("VERY_HIGH", "HIGH", "MEDIUM", "LOW", "VERY_LOW")
FINAL = ("COMPLETED", "FAILED", "ABORTED")


class Id(str):
    """The name of an id: what has it and a number, such as ``task-3``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, repr=False)
class Time:
    """The name of a moment: the same name is the same moment, in every answer."""

    name: str
    unlike: "Time | None" = None
    """An earlier moment, which this one is not."""

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Passing(Time):
    """The name of a moment that may be another one in the next answer."""

    __slots__ = ()


class Wording:
    """A text for people, which may be any."""

    def __repr__(self) -> str:
        return "<a message>"


Chosen: TypeAlias = Id | Time | Wording
"""What the manager chooses, as the model has it."""


class Answer(NamedTuple):
    """An HTTP answer: its status, and its JSON, which is None where there is no body."""

    status: int
    body: Json


@dataclass(slots=True, kw_only=True)
class Entity:
    """What jobs, stages and tasks have in common."""

    id: Id
    status: str
    data: Json
    user_metadata: Json
    traceparent: str

    @property
    def ended(self) -> bool:
        """Whether its status is final."""
        return self.status in FINAL

    def json(self) -> Body:
        """The fields that all three have, the times in both spellings."""
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
            "traceparent": self.traceparent,
        }


@dataclass(slots=True, kw_only=True)
class Job(Entity):
    """A job."""

    name: str
    priority: str
    stages: list["Stage"] = field(default_factory=list["Stage"])

    @property
    def open(self) -> bool:
        """Whether its tasks may be handed out."""
        return self.status in ("PENDING", "IN_PROGRESS")

    def json(self, *, with_stages: bool = False) -> Body:
        """The job as it is answered."""
        stages = {"stages": [stage.json() for stage in self.stages]} if with_stages else {}
        return (
            Entity.json(self)
            | {"name": self.name, "priority": self.priority, "percentage": share(self.stages)}
            | stages
        )


@dataclass(slots=True, kw_only=True)
class Stage(Entity):
    """A stage."""

    job: Job
    type: str
    order: int
    tasks: list["Task"] = field(default_factory=list["Task"])
    start_time: Time | None = None
    end_time: Time | None = None
    place: int | None = None
    """Its place in the queue: the number of the oldest task that waited when it joined; None if it is not in there."""

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
        """Whether its tasks may be handed out."""
        return self.status in ("PENDING", "IN_PROGRESS") and self.job.open

    def summary(self) -> Body:
        """How many of its tasks have each status."""
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
            | tasks
        )


@dataclass(slots=True, kw_only=True)
class Task(Entity):
    """A task."""

    stage: Stage
    number: int
    """Higher than that of any task that was there before."""
    max_attempts: int
    attempts: int = 0
    claims: int = 0
    start_time: Time | None = None
    end_time: Time | None = None

    @property
    def waiting(self) -> bool:
        """Whether it is to be claimed, once its stage is open."""
        return self.status in ("PENDING", "RETRIED")

    def json(self) -> Body:
        """The task as it is answered."""
        return Entity.json(self) | {
            "stageId": self.stage.id,
            "attempts": self.attempts,
            "maxAttempts": self.max_attempts,
            "startTime": self.start_time,
            "endTime": self.end_time,
        }


def share(parts: Iterable[Entity]) -> int:
    """The percentage of them that is completed, rounded down; 0 if there are none."""
    completed = [part.status == "COMPLETED" for part in parts]
    return 100 * sum(completed) // max(len(completed), 1)
