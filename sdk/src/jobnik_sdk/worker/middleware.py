"""Middleware: code that runs around every call of a handler.

>>> async def log_failures(task: BaseModel, context: TaskContext[Any], call_next: CallNext) -> Outcome:
...     started = time.monotonic()
...     outcome = await call_next()
...     if isinstance(outcome, Failed):
...         context.logger.warning("handler failed", seconds=time.monotonic() - started)
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
"""Calls the next middleware, or the handler, and returns the outcome. Call it once. It never raises the handler's
exception."""

Middleware: TypeAlias = Callable[[Any, TaskContext[Any], CallNext], Awaitable[Outcome]]
"""A coroutine function that runs around the calls of handlers of any style. It receives the task's data, the context
and `call_next`, and returns the outcome of the attempt. It runs on the event loop. An exception that it raises fails
the attempt. Context variables that it sets are visible in coroutines and threads, but not in processes. A time limit
starts with the handler, not with the middleware."""


class MiddlewareChain:
    """Runs each attempt through all middleware, in a separate asyncio task; the first middleware is the outermost.

    Args:
        middleware: The middleware, from the outermost to the innermost.
        runner: Runs the handler.
    """

    def __init__(self, middleware: Sequence[Middleware], runner: Runner) -> None:
        self._middleware = tuple(middleware)
        self._runner = runner
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self,
        data: BaseModel,
        context: TaskContext[Any],
        variables: contextvars.Context,
        on_outcome: Callable[[Outcome], None],
        on_finished: Callable[[], None],
    ) -> None:
        """Run the handler inside its middleware; see `Runner.start`."""
        invocation = _Invocation(self._runner, data, context)
        running = self._run(invocation, on_outcome, on_finished)
        task = asyncio.get_running_loop().create_task(running, context=variables)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        invocation.task = task
        context.cancellation.on_request(invocation.cancel)

    async def _run(
        self, invocation: "_Invocation", on_outcome: Callable[[Outcome], None], on_finished: Callable[[], None]
    ) -> None:
        try:
            outcome = outcomes.validated(await invocation.chain(self._middleware)())
        except GeneratorExit as error:
            if not invocation.loop.is_running():
                raise  # the loop is closed, and Python destroys this coroutine
            outcome = outcomes.for_exception(error, invocation.context)
        except BaseException as error:  # noqa: BLE001 middleware may raise anything
            outcome = outcomes.for_exception(error, invocation.context)
        invocation.has_outcome = True
        # The context must not lead back to the invocation: only a garbage collection frees the memory of a cycle.
        invocation.context.cancellation.remove_callback(invocation.cancel)
        on_outcome(outcome)
        await invocation.handler_finished.wait()
        on_finished()


class _Invocation:
    """One attempt that passes through the middleware."""

    def __init__(self, runner: Runner, data: BaseModel, context: TaskContext[Any]) -> None:
        self._runner = runner
        self._data = data
        self.loop = asyncio.get_running_loop()
        self._in_handler = False
        self.context = context
        self.task: asyncio.Task[None] | None = None
        self.has_outcome = False
        self.handler_finished = asyncio.Event()
        self.handler_finished.set()

    def chain(self, middleware: Sequence[Middleware]) -> CallNext:
        """Return a function that calls the first middleware, whose `call_next` calls the others."""
        if not middleware:
            return self._call_handler
        first, *others = middleware
        return lambda: first(self._data, self.context, self.chain(others))

    def cancel(self) -> None:
        """Cancel the middleware, from any thread. While the handler runs, the runner cancels the handler instead."""
        self.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None and not self._in_handler and not self.has_outcome:
            self.task.cancel()

    async def _call_handler(self) -> Outcome:
        self._in_handler = True
        self.handler_finished.clear()
        try:
            return await self._runner.run(self._data, self.context, self.handler_finished.set)
        finally:
            self._in_handler = False
