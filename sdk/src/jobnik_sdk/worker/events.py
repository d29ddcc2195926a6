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
    """An attempt begins."""

    context: TaskContext[Any]


@dataclass(frozen=True, slots=True)
class TaskCompleted:
    """An attempt succeeded after so many seconds; `result` is a JSON document, None where the stage type has none."""

    context: TaskContext[Any]
    seconds: float
    result: bytes | None


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """An attempt failed after so many seconds; whether the task is tried again is the manager's to say."""

    context: TaskContext[Any]
    seconds: float
    outcome: Failed


@dataclass(frozen=True, slots=True)
class TaskSnoozed:
    """A handler put its task off after so many seconds."""

    context: TaskContext[Any]
    seconds: float
    outcome: Snoozed


@dataclass(frozen=True, slots=True)
class TaskCancelled:
    """An attempt was asked to end for this reason, and did, after so many seconds."""

    context: TaskContext[Any]
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerOpened:
    """So much went wrong that nothing of this stage type is claimed for a while."""

    stage_type: str
    breaker: Literal["handler", "dequeue"]


@dataclass(frozen=True, slots=True)
class BreakerClosed:
    """A trial went well: tasks of this stage type are claimed as before."""

    stage_type: str
    breaker: Literal["handler", "dequeue"]


@dataclass(frozen=True, slots=True)
class QueueEmpty:
    """A claim brought nothing, for the first time since one brought something."""

    stage_type: str


Event: TypeAlias = (
    TaskStarted | TaskCompleted | TaskFailed | TaskSnoozed | TaskCancelled | BreakerOpened | BreakerClosed | QueueEmpty
)
"""What a listener is told; look at its class, by `isinstance` or `match`."""

Listener: TypeAlias = Callable[[Event], None]
"""Is told what happens, on the event loop, so it must not block; what it raises is logged and harms nobody."""
