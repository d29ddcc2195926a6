"""What a handler knows of the task that it works on, besides the data."""

from dataclasses import dataclass
from typing import Any, Generic
from uuid import UUID

import structlog

from jobnik_sdk import trace
from jobnik_sdk.definitions import TaskMetadataT
from jobnik_sdk.entities import ClaimedTask


@dataclass(frozen=True)
class TaskContext(Generic[TaskMetadataT]):
    """The task in hand: `attempt` counts from 1 to `max_attempts`; `traceparent` is this attempt's own.

    With `task_metadata` in the stage type, annotate it as `TaskContext[ThatModel]` and read it from `metadata`.
    """

    task_id: UUID
    stage_id: UUID
    stage_type: str
    attempt: int
    max_attempts: int
    metadata: TaskMetadataT
    traceparent: str

    @property
    def logger(self) -> structlog.stdlib.BoundLogger:
        """A logger whose lines carry the task's ids and attempt."""
        return structlog.get_logger(self.stage_type, **self.ids)

    @property
    def ids(self) -> dict[str, str | int]:
        """What each log line about this task says, as JSON values."""
        return {
            "task_id": str(self.task_id),
            "stage_id": str(self.stage_id),
            "stage_type": self.stage_type,
            "attempt": self.attempt,
        }


def context_of(task: ClaimedTask[Any, TaskMetadataT]) -> TaskContext[TaskMetadataT]:
    """Return the context of an attempt that begins now, with a span of its own in the task's trace."""
    return TaskContext(
        task_id=task.id,
        stage_id=task.stage_id,
        stage_type=task.stage_type,
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        metadata=task.metadata,
        traceparent=trace.child_of(task.traceparent),
    )


def enter(context: TaskContext[Any]) -> None:
    """Let log lines and requests in the rest of the current context (an asyncio task, a process) speak of this task."""
    structlog.contextvars.bind_contextvars(**context.ids)
    trace.enter(context.traceparent)
