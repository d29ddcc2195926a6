"""What runs a handler, whatever its style: attempts, their time limit, their cancellation and those that ignore it."""

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, TypeAlias

import structlog
from pydantic import BaseModel

from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.outcomes import Outcome

GRACE: Final = timedelta(seconds=5)
"""How long a handler may take to end after it was asked to."""

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


Ended: TypeAlias = Callable[[Outcome], None]


class Attempt:
    """An attempt that is under way: `ended` is called with how it ended, `freed` when nothing of it runs any more.

    The two come together, unless a handler ignores its cancellation: then it is left behind.
    """

    __slots__ = (
        *("_ended", "_freed", "_runner", "answered", "around", "context", "abandoned", "loop"),
        *("finished", "grace_timer", "timer"),
    )

    def __init__(
        self,
        runner: "Runner",
        context: TaskContext[Any],
        around: contextvars.Context,
        ended: Ended,
        freed: Callable[[], None],
    ) -> None:
        self._runner = runner
        self.loop = runner.loop
        self._ended = ended
        self._freed = freed
        self.context = context
        self.around = around
        self.answered = False
        self.abandoned = False
        self.finished = False
        self.grace_timer: asyncio.TimerHandle | None = None
        self.timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Let its time run, from now on or since this was said first."""
        limit = self.context.timeout
        if limit is not None and self.timer is None and not self.answered:
            request = self.context.cancellation.request
            self.timer = self.loop.call_later(limit.total_seconds(), request, outcomes.TIMEOUT)

    def call(self, outcome: Outcome) -> None:
        """Say how it ended, unless that was done already."""
        if not self.answered:
            self.answered = True
            if self.timer is not None:
                self.timer.cancel()
            self._ended(outcome)

    def end(self, outcome: Outcome) -> None:
        """Say that nothing of it runs any more."""
        self.finished = True
        if self.grace_timer is not None:
            self.grace_timer.cancel()
        self.call(outcome)
        self._freed()

    def ask_to_end(self) -> None:
        """Bring the cancellation to the handler; from any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._runner.cancel, self)


class Runner(ABC):
    """Runs a handler on one task after the other, on as many at the same time as it is asked to.

    A handler that was asked to end has `grace` to do so.
    """

    _begins_at_once = True
    """Whether an attempt's time runs as soon as it is started; else `_start` sees to it."""

    def __init__(self, handler: AnyHandler, grace: timedelta) -> None:
        self._handler = handler
        self._grace = grace.total_seconds()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._attempts: set[Attempt] = set()
        self._news = asyncio.Event()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of all attempts: that of the first, since asking for it each time takes a system call."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def start(
        self,
        data: BaseModel,
        context: TaskContext[Any],
        around: contextvars.Context,
        ended: Ended,
        freed: Callable[[], None],
    ) -> None:
        """Run the handler within `around`, and call `ended` with how the attempt ended: nothing it does is raised.

        It ends when the handler does; when `context.cancellation` is requested, after the grace at the latest. After
        `context.timeout` this requests that itself. `freed` is called when nothing of it runs any more: at once after
        `ended`, unless a handler had to be left behind.
        """
        attempt = Attempt(self, context, around, ended, freed)
        self._attempts.add(attempt)
        try:
            self._start(attempt, data)
        except Exception as error:  # noqa: BLE001 there may be no more threads or processes, or data that cannot be pickled
            self._end(attempt, outcomes.of_error(error, context))
            return
        context.cancellation.on_request(attempt.ask_to_end)
        if self._begins_at_once:
            attempt.begin()

    async def run(
        self, data: BaseModel, context: TaskContext[Any], freed: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Run the handler in the current context, and return how the attempt ended; see `start`.

        Cancelled itself, it asks the handler to end and raises at once.
        """
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def ended(outcome: Outcome) -> None:
            if not answer.done():  # nobody waits any more
                answer.set_result(outcome)

        self.start(data, context, contextvars.copy_context(), ended, freed)
        try:
            return await answer
        except asyncio.CancelledError:
            context.cancellation.request("the worker was cancelled")
            raise

    async def close(self) -> None:
        """Ask what is under way to end, and give back threads and processes when it has, or after the grace."""
        waited_for = [attempt for attempt in self._attempts if not attempt.abandoned]
        for attempt in waited_for:
            attempt.context.cancellation.request("the worker was closed")
            attempt.ask_to_end()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                while not all(attempt.finished for attempt in waited_for):
                    self._news.clear()
                    await self._news.wait()
        await self._give_back()

    def cancel(self, attempt: Attempt) -> None:
        """Bring the cancellation to the handler, and wait for its end no longer than the grace."""
        if attempt.finished or attempt.grace_timer is not None:
            return
        attempt.grace_timer = attempt.loop.call_later(self._grace, self._abandon_attempt, attempt)
        self._interrupt(attempt)

    def _abandon_attempt(self, attempt: Attempt) -> None:
        context, stack = attempt.context, self._stack(attempt)
        reason = context.cancellation.reason
        _log.warning("handler ignores its cancellation", reason=reason, stack=stack, **context.ids)
        attempt.abandoned = True
        attempt.call(outcomes.interrupted(context, stack))
        self._abandon(attempt)

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        """Say that nothing of an attempt runs any more."""
        self._attempts.discard(attempt)
        attempt.end(outcome)
        self._news.set()

    @abstractmethod
    def _start(self, attempt: Attempt, data: BaseModel) -> None:
        """Begin an attempt; `_end` is called when it is finished."""

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
