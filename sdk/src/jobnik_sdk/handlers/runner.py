"""What runs a handler, whatever its style: attempts, their time limit, their cancellation and those that ignore it."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import structlog
from pydantic import BaseModel

from jobnik_sdk.context import TaskContext
from jobnik_sdk.handlers import endings
from jobnik_sdk.handlers.endings import Ending
from jobnik_sdk.handlers.handler import AnyHandler

GRACE: Final = timedelta(seconds=5)
"""How long a handler may take to end after it was asked to."""

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class Attempt:
    """An attempt that is under way: `answer` is how it ended, `over` is set when nothing of it runs any more.

    The two come together, unless a handler ignores its cancellation: then it is left behind.
    """

    __slots__ = ("_loop", "_runner", "answer", "context", "left_behind", "over", "patience")

    def __init__(self, runner: "Runner", context: TaskContext[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._runner = runner
        self._loop = loop
        self.context = context
        self.answer: asyncio.Future[Ending] = loop.create_future()
        self.over = asyncio.Event()
        self.left_behind = False
        self.patience: asyncio.TimerHandle | None = None

    def call(self, ending: Ending) -> None:
        """Answer, unless that was done already."""
        if not self.answer.done():
            self.answer.set_result(ending)

    def ask_to_end(self) -> None:
        """Bring the cancellation to the handler; from any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._runner.cancel, self)


class Runner(ABC):
    """Runs a handler on one task after the other, on as many at the same time as it is asked to.

    A handler that was asked to end has `grace` to do so.
    """

    def __init__(self, handler: AnyHandler, grace: timedelta) -> None:
        self._handler = handler
        self._grace = grace.total_seconds()
        self._attempts: dict[TaskContext[Any], Attempt] = {}

    async def run(self, data: BaseModel, context: TaskContext[Any]) -> Ending:
        """Run the handler, and return how the attempt ended: nothing that the handler does is raised.

        It ends when the handler does; when `context.cancellation` is requested, after the grace at the latest. After
        `context.timeout` it requests that itself.

        Cancelled itself, it asks the handler to end and raises at once.
        """
        loop = asyncio.get_running_loop()
        cancellation, timer = context.cancellation, None
        self._attempts[context] = attempt = Attempt(self, context, loop)
        try:
            self._start(attempt, data)
        except Exception as error:  # noqa: BLE001 there may be no more threads or processes, or data that cannot be pickled
            self._end(attempt, endings.of_error(error, context))
        cancellation.on_request(attempt.ask_to_end)
        if context.timeout is not None:
            timer = loop.call_later(context.timeout.total_seconds(), cancellation.request, endings.TIMEOUT)
        try:
            return await attempt.answer
        except asyncio.CancelledError:
            cancellation.request("the worker was cancelled")
            raise
        finally:
            if timer is not None:
                timer.cancel()
            cancellation.forget(attempt.ask_to_end)

    async def settled(self, context: TaskContext[Any]) -> None:
        """Wait until nothing of an attempt runs any more: at once, unless `run` had to leave a handler behind."""
        attempt = self._attempts.get(context)
        if attempt is not None:
            await attempt.over.wait()

    async def close(self) -> None:
        """Ask what is under way to end, and give back threads and processes when it has, or after the grace."""
        waited_for = [attempt for attempt in self._attempts.values() if not attempt.left_behind]
        for attempt in waited_for:
            attempt.context.cancellation.request("the worker was closed")
            attempt.ask_to_end()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                for attempt in waited_for:
                    await attempt.over.wait()
        await self._give_back()

    def cancel(self, attempt: Attempt) -> None:
        """Bring the cancellation to the handler, and wait for its end no longer than the grace."""
        if attempt.over.is_set() or attempt.patience is not None:
            return
        loop = asyncio.get_running_loop()
        attempt.patience = loop.call_later(self._grace, self._leave_behind, attempt)
        self._interrupt(attempt)

    def _leave_behind(self, attempt: Attempt) -> None:
        context, stack = attempt.context, self._stack(attempt)
        reason = context.cancellation.reason
        _log.warning("handler ignores its cancellation", reason=reason, stack=stack, **context.ids)
        attempt.left_behind = True
        attempt.call(endings.interrupted(context, stack))
        self._abandon(attempt)

    def _end(self, attempt: Attempt, ending: Ending) -> None:
        """Say that nothing of an attempt runs any more."""
        del self._attempts[attempt.context]
        if attempt.patience is not None:
            attempt.patience.cancel()
        attempt.over.set()
        attempt.call(ending)

    @abstractmethod
    def _start(self, attempt: Attempt, data: BaseModel) -> None:
        """Begin an attempt; `_end` is called when it is over."""

    @abstractmethod
    def _interrupt(self, attempt: Attempt) -> None:
        """Bring the cancellation to the handler."""

    @abstractmethod
    def _stack(self, attempt: Attempt) -> str:
        """Return where the handler is, in words; empty if nobody knows."""

    def _abandon(self, attempt: Attempt) -> None:  # noqa: B027 most cannot
        """End by force what can be."""

    async def _give_back(self) -> None:  # noqa: B027 coroutines hold nothing
        """Give back threads or processes."""
