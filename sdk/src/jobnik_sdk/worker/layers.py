"""Middleware round the calls of handlers."""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from jobnik_sdk.context import TaskContext
from jobnik_sdk.handlers import endings
from jobnik_sdk.handlers.endings import Ending
from jobnik_sdk.handlers.runner import Runner
from jobnik_sdk.hooks import Call, Middleware


class Layers:
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
        ended: Callable[[Ending], None],
        freed: Callable[[], None],
    ) -> None:
        """Run the handler within its middleware; see `Runner.start`."""
        passage = _Passage(self._runner, data, context)
        task = asyncio.get_running_loop().create_task(self._pass(passage, ended, freed), context=around)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        context.cancellation.on_request(lambda: passage.cancel(task))

    async def _pass(self, passage: "_Passage", ended: Callable[[Ending], None], freed: Callable[[], None]) -> None:
        try:
            ending = endings.checked(await passage.call(self._middleware)())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 middleware may raise anything
            ending = endings.of_error(error, passage.context)
        passage.over = True
        ended(ending)
        await passage.freed.wait()
        freed()


class _Passage:
    """An attempt on its way through the middleware, and back."""

    def __init__(self, runner: Runner, data: BaseModel, context: TaskContext[Any]) -> None:
        self._runner = runner
        self._data = data
        self._loop = asyncio.get_running_loop()
        self._inside = False
        self.context = context
        self.over = False
        self.freed = asyncio.Event()
        self.freed.set()

    def call(self, middleware: Sequence[Middleware]) -> Call:
        """What calls the first of these, which gets what calls the others."""
        if not middleware:
            return self._call_handler
        first, *others = middleware
        return lambda: first(self._data, self.context, self.call(others))

    def cancel(self, task: asyncio.Task[None]) -> None:
        """End what the middleware does; from any thread. The handler's end is the runner's to see to."""
        self._loop.call_soon_threadsafe(lambda: None if self._inside or self.over else task.cancel())

    async def _call_handler(self) -> Ending:
        self._inside = True
        self.freed.clear()
        try:
            return await self._runner.run(self._data, self.context, self.freed.set)
        finally:
            self._inside = False
