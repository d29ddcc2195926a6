"""Events that a worker emits to its listeners.

>>> Worker(client, [handler], listeners=[print])
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.outcomes import Failed, Snoozed


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """An attempt started."""

    context: TaskContext[Any]


@dataclass(frozen=True, slots=True)
class TaskCompleted:
    """An attempt completed after `seconds`; `result` is a JSON document, or None if the stage type has no result."""

    context: TaskContext[Any]
    seconds: float
    result: bytes | None


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """An attempt failed after `seconds`; the manager decides whether to retry the task."""

    context: TaskContext[Any]
    seconds: float
    outcome: Failed


@dataclass(frozen=True, slots=True)
class TaskSnoozed:
    """A handler snoozed its task after `seconds`."""

    context: TaskContext[Any]
    seconds: float
    outcome: Snoozed


@dataclass(frozen=True, slots=True)
class TaskCancelled:
    """An attempt was cancelled for `reason`, and ended after `seconds`."""

    context: TaskContext[Any]
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerOpened:
    """A circuit breaker opened after repeated failures: the worker claims no tasks of this stage type for a while."""

    stage_type: str
    breaker: Literal["handler", "dequeue"]


@dataclass(frozen=True, slots=True)
class BreakerClosed:
    """A circuit breaker closed after a successful trial: the worker claims tasks of this stage type again."""

    stage_type: str
    breaker: Literal["handler", "dequeue"]


@dataclass(frozen=True, slots=True)
class QueueEmpty:
    """A claim returned no tasks, for the first time since one returned some."""

    stage_type: str


Event: TypeAlias = (
    TaskStarted | TaskCompleted | TaskFailed | TaskSnoozed | TaskCancelled | BreakerOpened | BreakerClosed | QueueEmpty
)
"""An event that a listener receives; use `isinstance` or `match` to distinguish the classes."""

Listener: TypeAlias = Callable[[Event], None]
"""A function that receives every event. It runs on the event loop, so it must not block. An exception that it raises is
logged and has no other effect."""
