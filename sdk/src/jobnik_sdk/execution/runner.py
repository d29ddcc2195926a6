"""The base of all runners: attempts, their time limits, their cancellation, and handlers that ignore it."""

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.lifespans import Lifespan
from jobnik_sdk.execution.outcomes import Outcome
from jobnik_sdk.observability import metrics
from jobnik_sdk.observability.logging import RuntimeLogger

CANCELLATION_TIMEOUT: Final = timedelta(seconds=5)
"""How long a cancelled handler may take to end before it is abandoned."""

_log: Final = RuntimeLogger(__name__)


OnOutcome: TypeAlias = Callable[[Outcome], None]


class RunningAttempt:
    """An attempt in progress.

    `on_outcome` is called once, with the outcome. `on_finished` is called once, when no code of the handler runs any
    more. They are called together, except for a handler that ignores cancellation: its attempt gets its outcome when it
    is abandoned, and finishes when the handler ends, if ever.
    """

    __slots__ = (
        *("_on_finished", "_on_outcome", "_runner", "abandoned", "abandon_timer", "context"),
        *("finished", "has_outcome", "loop", "timeout_timer", "variables"),
    )

    def __init__(
        self,
        runner: "Runner",
        context: TaskContext[Any],
        variables: contextvars.Context,
        on_outcome: OnOutcome,
        on_finished: Callable[[], None],
    ) -> None:
        self._runner = runner
        self.loop = runner.loop
        self._on_outcome = on_outcome
        self._on_finished = on_finished
        self.context = context
        self.variables = variables
        self.has_outcome = False
        self.abandoned = False
        self.finished = False
        self.abandon_timer: asyncio.TimerHandle | None = None
        self.timeout_timer: asyncio.TimerHandle | None = None

    def start_timeout(self) -> None:
        """Start the time limit, unless it has been started before."""
        limit = self.context.timeout
        if limit is not None and self.timeout_timer is None and not self.has_outcome:
            request = self.context.cancellation.request
            self.timeout_timer = self.loop.call_later(limit.total_seconds(), request, outcomes.TIMEOUT)

    def set_outcome(self, outcome: Outcome) -> None:
        """Set the outcome, unless it has been set before."""
        if not self.has_outcome:
            self.has_outcome = True
            if self.timeout_timer is not None:
                self.timeout_timer.cancel()
            self._on_outcome(outcome)

    def finish(self, outcome: Outcome) -> None:
        """Record that the handler's code has stopped running, and set the outcome if there is none yet."""
        self.finished = True
        # The context must not lead back to this object: only a garbage collection frees the memory of a cycle.
        self.context.cancellation.remove_callback(self.cancel)
        if self.abandon_timer is not None:
            self.abandon_timer.cancel()
        self.set_outcome(outcome)
        self._on_finished()

    def cancel(self) -> None:
        """Make the runner interrupt the handler; from any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._runner.cancel, self)


class Runner(ABC):
    """Runs a handler, for any number of attempts at the same time.

    A handler that still runs `cancellation_timeout` after its cancellation is abandoned.
    """

    _starts_timeout_immediately = True
    """Whether the time limit of an attempt starts together with it; otherwise `_start` starts it later."""

    def __init__(self, handler: AnyHandler, cancellation_timeout: timedelta) -> None:
        self._handler = handler
        # Created before the first handler is abandoned, so that rates start from zero.
        self._abandoned = metrics.ABANDONED.labels(metrics.stage_label(handler.stage_type.name))
        self._cancellation_seconds = cancellation_timeout.total_seconds()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._attempts: set[RunningAttempt] = set()
        self._attempt_finished = asyncio.Event()
        self._lifespan = None if handler.lifespan is None else self._new_lifespan()
        self._resource: tuple[()] | tuple[Any] = ()
        """The third argument of the function, if the handler has a lifespan in the worker's process."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of all attempts. It is cached, because asking for it takes a system call."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    async def open(self) -> None:
        """Enter the lifespan of the handler, unless each of its processes does so. Call it before the first attempt.

        Raises:
            ConfigurationError: the lifespan does not return a context manager of the kind that the style needs.
            Exception: whatever the lifespan raises.
        """
        if self._lifespan is not None:
            self._resource = (await self._lifespan.open(),)

    def start(
        self,
        data: BaseModel,
        context: TaskContext[Any],
        variables: contextvars.Context,
        on_outcome: OnOutcome,
        on_finished: Callable[[], None],
    ) -> None:
        """Start an attempt. Exceptions become its outcome; nothing is raised.

        The attempt ends when the handler does, or when the handler is abandoned after a cancellation. When
        `context.timeout` is over, the attempt is cancelled.

        Args:
            data: The data of the task.
            context: The context of the attempt.
            variables: The context variables that the handler runs with.
            on_outcome: Called with the outcome.
            on_finished: Called when the handler's code has stopped running: right after `on_outcome`, unless the
                handler was abandoned.
        """
        attempt = RunningAttempt(self, context, variables, on_outcome, on_finished)
        self._attempts.add(attempt)
        try:
            self._start(attempt, data)
        except Exception as error:  # noqa: BLE001 no more threads or processes, or data that cannot be pickled
            self._finish(attempt, outcomes.for_exception(error, context))
            return
        context.cancellation.on_request(attempt.cancel)
        if self._starts_timeout_immediately:
            attempt.start_timeout()

    async def run(
        self, data: BaseModel, context: TaskContext[Any], on_finished: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Run the handler with the current context variables, and return the outcome; see `start`.

        If this coroutine is cancelled, it cancels the attempt and raises immediately.
        """
        result: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def on_outcome(outcome: Outcome) -> None:
            if not result.done():  # otherwise this coroutine was cancelled
                result.set_result(outcome)

        self.start(data, context, contextvars.copy_context(), on_outcome, on_finished)
        try:
            return await result
        except asyncio.CancelledError:
            context.cancellation.request("the worker was cancelled")
            raise

    async def close(self, *, wait: bool = True) -> None:
        """Cancel all attempts, wait until they end or are abandoned, and release everything else.

        Args:
            wait: False if the attempts have had their time: then they are abandoned at once.
        """
        attempts = [attempt for attempt in self._attempts if not attempt.abandoned]
        for attempt in attempts:
            attempt.context.cancellation.request("the worker was closed")
            self.cancel(attempt)
            if not wait and not attempt.finished:
                self._abandon(attempt)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._cancellation_seconds):
                while not all(attempt.finished or attempt.abandoned for attempt in attempts):
                    self._attempt_finished.clear()
                    await self._attempt_finished.wait()
        await self._close()
        if self._lifespan is not None and self._resource:
            await self._lifespan.close()

    def cancel(self, attempt: RunningAttempt) -> None:
        """Interrupt the handler, and abandon it if it does not end in time."""
        if attempt.finished or attempt.abandon_timer is not None:
            return
        attempt.abandon_timer = attempt.loop.call_later(self._cancellation_seconds, self._abandon, attempt)
        self._interrupt(attempt)

    def _abandon(self, attempt: RunningAttempt) -> None:
        context, stack = attempt.context, self._stack(attempt)
        attempt.abandoned = True
        if attempt.abandon_timer is not None:
            attempt.abandon_timer.cancel()
        self._abandoned.inc()
        attempt.set_outcome(outcomes.for_cancellation(context, stack))
        self._kill(attempt)
        _log.warning(
            "handler ignored cancellation, abandoned",
            reason=context.cancellation.reason,
            stack=stack,
            advice="let the handler end when context.cancellation is requested, or use the style PROCESS",
            **context.ids,
        )

    def _finish(self, attempt: RunningAttempt, outcome: Outcome) -> None:
        """Record that the handler's code has stopped running for this attempt."""
        self._attempts.discard(attempt)
        attempt.finish(outcome)
        self._attempt_finished.set()

    def _new_lifespan(self) -> Lifespan | None:
        """Return the lifespan of the handler in the worker's process; None if each of its processes has its own."""
        return None

    @abstractmethod
    def _start(self, attempt: RunningAttempt, data: BaseModel) -> None:
        """Start the handler; call `_finish` when it has ended."""

    @abstractmethod
    def _interrupt(self, attempt: RunningAttempt) -> None:
        """Interrupt the handler."""

    @abstractmethod
    def _stack(self, attempt: RunningAttempt) -> str:
        """Return the current stack of the handler; empty if it is unknown."""

    def _kill(self, attempt: RunningAttempt) -> None:  # noqa: B027 only processes can be killed
        """End an abandoned handler by force, if possible."""

    async def _close(self) -> None:  # noqa: B027 coroutines hold nothing
        """Stop threads or processes."""
