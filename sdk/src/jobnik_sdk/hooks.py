"""What can be hung into a worker: middleware round each handler's call, and listeners to what happens.

>>> async def timed(task: BaseModel, context: TaskContext[Any], call: Call) -> Ending:
...     started = time.monotonic()
...     ending = await call()
...     if isinstance(ending, Failed):
...         context.logger.warning("failed", after=time.monotonic() - started)
...     return ending
>>> Worker(client, [handler], middleware=[timed], listeners=[print])
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from jobnik_sdk.context import TaskContext
from jobnik_sdk.handlers.endings import Cancelled, Completed, Ending, Failed, Snoozed

__all__ = [
    "BreakerClosed",
    "BreakerOpened",
    "Call",
    "Cancelled",
    "Completed",
    "Ending",
    "Event",
    "Failed",
    "Listener",
    "Middleware",
    "QueueEmpty",
    "Snoozed",
    "TaskCancelled",
    "TaskCompleted",
    "TaskFailed",
    "TaskSnoozed",
    "TaskStarted",
]

Call: TypeAlias = Callable[[], Awaitable[Ending]]
"""Calls what a middleware surrounds, once, and says how it ended: nothing that a handler does is raised."""

Middleware: TypeAlias = Callable[[Any, TaskContext[Any], Call], Awaitable[Ending]]
"""Surrounds the calls of handlers of any style: it gets the task's data, the context and the call, and says how the
attempt ended. It runs on the event loop, and what it raises fails the attempt. What it binds to context variables holds
in coroutines and threads, not in processes. A time limit counts from the handler's start."""


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
    failure: Failed


@dataclass(frozen=True, slots=True)
class TaskSnoozed:
    """A handler put its task off after so many seconds."""

    context: TaskContext[Any]
    seconds: float
    snoozed: Snoozed


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
