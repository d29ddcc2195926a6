"""Middleware: code that runs around every call of a handler.

>>> async def log_failures(task: BaseModel, context: TaskContext[Any], call_next: CallNext) -> Outcome:
...     started = time.monotonic()
...     outcome = await call_next()
...     if isinstance(outcome, Failed):
...         context.logger.warning("handler failed", after=time.monotonic() - started)
...     return outcome
>>> Worker(client, [handler], middleware=[log_failures])
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel

from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.outcomes import Outcome
from jobnik_sdk.execution.runner import Runner

CallNext: TypeAlias = Callable[[], Awaitable[Outcome]]
"""Calls the next middleware, or the handler, and returns the outcome. Call it once. It raises nothing that the handler
raises."""

Middleware: TypeAlias = Callable[[Any, TaskContext[Any], CallNext], Awaitable[Outcome]]
"""Runs around the calls of handlers of any style: takes the task's data, the context and `call_next`, and returns the
outcome of the attempt. It runs on the event loop. An exception that it raises fails the attempt. Context variables that
it sets are visible to coroutines and threads, but not to processes. A time limit counts from the start of the handler,
not of the middleware."""


class MiddlewareChain:
    """Runs each attempt through all middleware, the first outermost, in an asyncio task of its own."""

    def __init__(self, middleware: Sequence[Middleware], runner: Runner) -> None:
        self._middleware = tuple(middleware)
        self._runner = runner
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self,
        data: BaseModel,
        context: TaskContext[Any],
        around: contextvars.Context,
        ended: Callable[[Outcome], None],
        freed: Callable[[], None],
    ) -> None:
        """Run the handler within its middleware; see `Runner.start`."""
        invocation = _Invocation(self._runner, data, context)
        task = asyncio.get_running_loop().create_task(self._pass(invocation, ended, freed), context=around)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        context.cancellation.on_request(lambda: invocation.cancel(task))

    async def _pass(
        self, invocation: "_Invocation", ended: Callable[[Outcome], None], freed: Callable[[], None]
    ) -> None:
        try:
            outcome = outcomes.validated(await invocation.call(self._middleware)())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 middleware may raise anything
            outcome = outcomes.for_exception(error, invocation.context)
        invocation.finished = True
        ended(outcome)
        await invocation.freed.wait()
        freed()


class _Invocation:
    """An attempt on its way through the middleware, and back."""

    def __init__(self, runner: Runner, data: BaseModel, context: TaskContext[Any]) -> None:
        self._runner = runner
        self._data = data
        self._loop = asyncio.get_running_loop()
        self._inside = False
        self.context = context
        self.finished = False
        self.freed = asyncio.Event()
        self.freed.set()

    def call(self, middleware: Sequence[Middleware]) -> CallNext:
        """What calls the first of these, which gets what calls the others."""
        if not middleware:
            return self._call_handler
        first, *others = middleware
        return lambda: first(self._data, self.context, self.call(others))

    def cancel(self, task: asyncio.Task[None]) -> None:
        """End what the middleware does; from any thread. The handler's end is the runner's to see to."""
        self._loop.call_soon_threadsafe(lambda: None if self._inside or self.finished else task.cancel())

    async def _call_handler(self) -> Outcome:
        self._inside = True
        self.freed.clear()
        try:
            return await self._runner.run(self._data, self.context, self.freed.set)
        finally:
            self._inside = False
