"""A worker: runs handlers on the tasks of a manager until it is stopped."""

import asyncio
import inspect
import os
import platform
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from datetime import timedelta
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar, overload

import httpx2

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.execution.access import WorkerAccess
from jobnik_sdk.execution.handler import (
    AnyHandler,
    AsyncFunction,
    AsyncFunctionWithResource,
    Handler,
    HandlerStyle,
    PlainFunction,
    PlainFunctionWithResource,
    ResourceT,
)
from jobnik_sdk.http.circuit_breaker import BreakerPolicy
from jobnik_sdk.http.client import JobnikClient
from jobnik_sdk.model.arguments import check_callable, check_duration, check_instance, check_items
from jobnik_sdk.model.definitions import DataT, MetadataT, ResultT, StageType, TaskMetadataT, TaskT
from jobnik_sdk.model.payloads import fit_text
from jobnik_sdk.observability import metrics
from jobnik_sdk.observability.logging import RuntimeLogger
from jobnik_sdk.worker.events import Event, Listener
from jobnik_sdk.worker.heartbeat import HEARTBEATS_PER_LEASE, Heartbeat, Instructions, WorkerView
from jobnik_sdk.worker.leased_source import LeasedTaskSource
from jobnik_sdk.worker.middleware import Middleware
from jobnik_sdk.worker.poller import Poller, PollerDependencies
from jobnik_sdk.worker.progress_sender import ProgressSender
from jobnik_sdk.worker.settings import WorkerSettings, given_token
from jobnik_sdk.worker.sources import connect
from jobnik_sdk.worker.task_source import TaskInProgress, TaskSource

ValueT = TypeVar("ValueT")
FunctionT = TypeVar("FunctionT")
_Decorator: TypeAlias = Callable[[FunctionT], FunctionT]

POLL_INITIAL_DELAY: Final = timedelta(seconds=1)
POLL_MAX_DELAY: Final = timedelta(seconds=60)
LEASE: Final = timedelta(seconds=30)
_MIN_LEASE, _MAX_LEASE = timedelta(seconds=1), timedelta(hours=1)
"""The limits of the protocol."""
DRAIN_TIMEOUT: Final = timedelta(seconds=25)
HANDLER_SHARE: Final = 0.7
"""The part of the drain timeout after which handlers that still run are cancelled."""
REPORT_SHARE: Final = 0.9
"""The part of the drain timeout until which outcomes are reported. The rest is for deregistering the worker; tasks that
are left then return to the queue when their leases expire."""
TICK_SECONDS: Final = 1.0
"""The interval at which the event loop shows that it is not blocked."""
MIN_BLOCKED_SECONDS: Final = 1.0
"""How late a tick has to be to count as a blocked event loop."""
_LONGEST_HOST: Final = 150
"""The maximum number of characters of the host's name in a worker's id, which may have 200 characters."""

_log: Final = RuntimeLogger(__name__)


class Worker:
    """Runs `handlers` until it is stopped, on any manager.

    Each handler has its own slots, and the worker claims a task only when a slot is free. If the manager supports
    leases, a heartbeat renews them; if not, tasks are claimed and reported one by one. Handlers do not notice the
    difference.

    A handler that raises an exception fails only that attempt, and so does a task whose data does not fit the stage
    type. Results are checked against the stage type's `result`. The worker repeats a report until the manager has
    accepted or refused it.

    >>> worker = Worker.from_settings(settings, [Handler(thumbnails, make_thumbnail, concurrency=4)])
    >>> @worker.handler(pages, concurrency=100)
    ... async def count_words(task: Page, context: TaskContext) -> WordCount: ...

    Args:
        client: The connection to the manager.
        handlers: The handlers, at most one per stage type. `handler` adds others.
        middleware: Functions that run around each call of a handler, the first outermost; see `Middleware`.
        listeners: Functions that receive every event, in this order; see `Event`.
        lease: How long a task stays with this worker without a heartbeat: 1 s to 1 hour (default 30 s). After this
            time, other workers take over the tasks of a worker that was killed.
        drain_timeout: How long `stop` may take (default 25 s). Handlers that need longer are cancelled, and their tasks
            are released.
        poll_initial_delay: The upper limit of the first delay after a failed claim, or after an empty one if the
            manager cannot wait for tasks (default 1 s). The limit doubles each time, and the delay is random below it.
        poll_max_delay: The upper limit of every such delay (default 60 s).

    Raises:
        ConfigurationError: there are two handlers for one stage type, or a listener is a coroutine function.
    """

    def __init__(  # noqa: PLR0913 the options of a worker belong in one place
        self,
        client: JobnikClient,
        handlers: Sequence[AnyHandler] = (),
        *,
        middleware: Sequence[Middleware] = (),
        listeners: Sequence[Listener] = (),
        lease: timedelta = LEASE,
        drain_timeout: timedelta = DRAIN_TIMEOUT,
        poll_initial_delay: timedelta = POLL_INITIAL_DELAY,
        poll_max_delay: timedelta = POLL_MAX_DELAY,
    ) -> None:
        check_items("handlers", handlers, "Handler")
        check_items("middleware", middleware, "functions")
        check_items("listeners", listeners, "functions")
        for one in middleware:
            check_callable("Each middleware", one)
        for listener in listeners:
            check_callable("Each of the listeners", listener)
            if inspect.iscoroutinefunction(listener):
                raise ConfigurationError(
                    f"A listener must be a plain function (def), not a coroutine function: {listener!r}."
                )
        check_instance("A worker's client", client, JobnikClient)
        check_duration("lease", lease, _MIN_LEASE, _MAX_LEASE)
        check_duration("drain_timeout", drain_timeout, timedelta())
        check_duration("poll_initial_delay", poll_initial_delay, timedelta())
        check_duration("poll_max_delay", poll_max_delay, timedelta())
        self.client = client
        self._handlers: dict[str, AnyHandler] = {}
        self._ids: dict[int, str] = {}
        self._middleware = tuple(middleware)
        self._listeners = tuple(listeners)
        self._lease = lease
        self._drain_seconds = drain_timeout.total_seconds()
        self._poll_delays = (poll_initial_delay, poll_max_delay)
        self._pollers: Sequence[Poller] = ()
        self._heartbeat: Heartbeat | None = None
        self._progress_sender: ProgressSender | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requested = asyncio.Event()
        self._stopping = False
        self._stopped_at = 0.0
        self._contacted = False
        self._last_tick = time.monotonic()
        self._tick_callbacks: list[Callable[[], None]] = []
        for handler in handlers:
            self._add_handler(handler)

    @classmethod
    def from_settings(  # noqa: PLR0913 the options of a worker belong in one place
        cls,
        settings: WorkerSettings,
        handlers: Sequence[AnyHandler] = (),
        *,
        client: JobnikClient | None = None,
        middleware: Sequence[Middleware] = (),
        listeners: Sequence[Listener] = (),
        lease: timedelta = LEASE,
    ) -> Self:
        """Return a worker with the address, the delays and the time limits of the settings; see `Worker`.

        Args:
            settings: The settings.
            handlers: The handlers; see `Worker`.
            client: The connection to the manager. Default: a new one to the address in the settings.
            middleware: See `Worker`.
            listeners: See `Worker`.
            lease: See `Worker`.
        """
        check_instance("settings", settings, WorkerSettings)
        return cls(
            JobnikClient(settings.jobnik_base_url, token=given_token(settings)) if client is None else client,
            handlers,
            middleware=middleware,
            listeners=listeners,
            lease=lease,
            drain_timeout=settings.drain_timeout,
            poll_initial_delay=settings.poll_initial_delay,
            poll_max_delay=settings.poll_max_delay,
        )

    @overload
    def handler(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        *,
        style: Literal[HandlerStyle.ASYNC] = HandlerStyle.ASYNC,
        concurrency: int = 1,
        timeout: timedelta | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> _Decorator[AsyncFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT]]: ...

    @overload
    def handler(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        *,
        style: Literal[HandlerStyle.ASYNC] = HandlerStyle.ASYNC,
        concurrency: int = 1,
        timeout: timedelta | None = None,
        lifespan: Callable[[], AbstractAsyncContextManager[ResourceT]],
        circuit_breaker: BreakerPolicy | None = None,
    ) -> _Decorator[AsyncFunctionWithResource[TaskT, TaskMetadataT, DataT, MetadataT, ResourceT, ResultT]]: ...

    @overload
    def handler(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        *,
        style: Literal[HandlerStyle.THREAD, HandlerStyle.PROCESS],
        concurrency: int = 1,
        timeout: timedelta | None = None,
        recycle_after: int | None = None,
        memory_limit: int | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> _Decorator[PlainFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT]]: ...

    @overload
    def handler(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        *,
        style: Literal[HandlerStyle.THREAD, HandlerStyle.PROCESS],
        concurrency: int = 1,
        timeout: timedelta | None = None,
        lifespan: Callable[[], AbstractContextManager[ResourceT]],
        recycle_after: int | None = None,
        memory_limit: int | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> _Decorator[PlainFunctionWithResource[TaskT, TaskMetadataT, DataT, MetadataT, ResourceT, ResultT]]: ...

    def handler(  # noqa: PLR0913 all options of a handler
        self,
        stage_type: StageType[Any, Any, Any, Any, Any],
        *,
        style: HandlerStyle = HandlerStyle.ASYNC,
        concurrency: int = 1,
        timeout: timedelta | None = None,
        lifespan: Callable[[], AbstractAsyncContextManager[Any] | AbstractContextManager[Any]] | None = None,
        recycle_after: int | None = None,
        memory_limit: int | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> _Decorator[Any]:
        """Return a decorator that adds a handler for a stage type, before the worker runs. The function stays as it is.

        >>> @worker.handler(thumbnails, style=HandlerStyle.PROCESS, concurrency=4)
        ... def make_thumbnail(task: ThumbnailTask, context: TaskContext) -> ThumbnailResult: ...

        The arguments, and the errors of the decorator, are those of `Handler`.

        Raises:
            ConfigurationError: the worker has a handler for the stage type already, or is running.
        """
        check_instance("The stage_type of @worker.handler(...)", stage_type, StageType)
        options: dict[str, Any] = {
            "style": style,
            "concurrency": concurrency,
            "timeout": timeout,
            "lifespan": lifespan,
            "recycle_after": recycle_after,
            "memory_limit": memory_limit,
            "circuit_breaker": circuit_breaker,
        }

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            self._add_handler(Handler(stage_type, function, **options))
            return function

        return add

    @property
    def handlers(self) -> tuple[AnyHandler, ...]:
        """The handlers of this worker, in the order in which they were added."""
        return tuple(self._handlers.values())

    @property
    def id(self) -> str:
        """The unique id of this worker. A copy of the worker in a forked process has another id."""
        pid = os.getpid()
        return self._ids.setdefault(pid, f"{fit_text(platform.node(), _LONGEST_HOST)}-{pid}-{secrets.token_hex(4)}")

    @property
    def ready(self) -> bool:
        """Whether lifespans are open, the manager is responding and the worker is not stopping."""
        return bool(self._pollers) and self._contacted and not self._stopping and self._may_claim()

    @property
    def polling(self) -> bool:
        """Whether every handler that may claim tasks has tried to do so recently, even if the claim failed."""
        return all(poller.polling for poller in self._pollers)

    def on_tick(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop once a second while the worker runs; it is late if the loop is blocked."""
        self._tick_callbacks.append(callback)

    def stop(self) -> None:
        """Stop claiming; `run` returns when all tasks in progress have been reported or released.

        You can call this at any time, repeatedly, from a signal handler or from another thread. A stopped worker cannot
        be started again.
        """
        if not self._stopping:
            self._stopped_at = time.monotonic()
            self._stopping = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the worker has ended already
                self._loop.call_soon_threadsafe(self._stop_requested.set)

    async def run(self) -> None:
        """Process tasks until `stop` is called. If `run` is cancelled, it drops the running tasks without a report.

        Raises `ConfigurationError` if the worker has no handlers, or is running already.
        """
        if self._loop is not None:
            raise ConfigurationError("This worker is running already. To run two workers, create another one.")
        if not self._handlers:
            raise ConfigurationError("A worker needs at least one handler.")
        for handler in self.handlers:
            handler.check_importable()
        self._loop = asyncio.get_running_loop()
        if self._stopping:
            self._stop_requested.set()
        _log.info("worker started", worker=self.id, stage_types=list(self._handlers), manager=self.client.base_url)
        self._last_tick = time.monotonic()
        self._tick(self._loop)
        try:
            source = await self._run_unless_stopped(connect(self.client, self.id, self._lease, len(self._handlers)))
            if source is not None:
                self._contacted = True
                await self._process_tasks(source)
        finally:
            self._loop = None
        _log.info("worker stopped", worker=self.id)

    def _add_handler(self, handler: AnyHandler) -> None:
        check_instance("Each of the handlers", handler, Handler)
        name = handler.stage_type.name
        if name in self._handlers:
            raise ConfigurationError(f"A worker can have only one handler per stage type, but {name!r} has two.")
        if self._loop is not None:
            raise ConfigurationError(f"The worker is running: add the handler for {name!r} before it starts.")
        self._handlers[name] = handler

    async def _process_tasks(self, source: TaskSource) -> None:
        dependencies = PollerDependencies(
            source=source,
            poll_delays=self._poll_delays,
            may_claim=self._may_claim,
            on_contact=self._on_contact,
            middleware=self._middleware,
            emit=self._emit if self._listeners else None,
            access=WorkerAccess(self.client),
        )
        pollers = [Poller(handler, dependencies) for handler in self.handlers]
        drained = False
        try:
            await self._run_unless_stopped(_open(pollers))
            if self._stopping:
                return
            self._pollers = pollers
            if isinstance(source, LeasedTaskSource):
                self._start_heartbeat()
            async with asyncio.TaskGroup() as polling:
                for poller in self._pollers:
                    polling.create_task(poller.run())
                await self._stop_requested.wait()
                loop = asyncio.get_running_loop()
                # A handler that has blocked the event loop since then has used up the time of all handlers.
                blocked = min(time.monotonic() - self._stopped_at, self._drain_seconds * HANDLER_SHARE)
                stopped_at = loop.time() - blocked
                for poller in self._pollers:
                    poller.stop()
                    loop.call_at(stopped_at + self._drain_seconds * HANDLER_SHARE, poller.cancel_claims)
            await self._drain(source, stopped_at)
            drained = True
        finally:
            try:
                await asyncio.gather(*(poller.close(drained=drained) for poller in pollers))
            finally:
                await self._stop_heartbeat()

    async def _drain(self, source: TaskSource, started: float) -> None:
        """Finish the tasks in progress; cancel and release those that take too long after `started`."""
        metrics.DRAINING.inc()
        in_progress = len(self._tasks_in_progress())
        _log.info("worker draining", worker=self.id, tasks=in_progress, timeout_seconds=self._drain_seconds)
        idle = asyncio.gather(*(poller.wait_until_idle() for poller in self._pollers))
        try:
            async with asyncio.timeout_at(started + self._drain_seconds * HANDLER_SHARE):
                await asyncio.shield(idle)
        except TimeoutError:
            for poller in self._pollers:
                poller.cancel("drain")
            with suppress(TimeoutError):
                async with asyncio.timeout_at(started + self._drain_seconds * REPORT_SHARE):
                    await idle
        metrics.DRAINING.dec()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(started + self._drain_seconds):
                await self._stop_heartbeat()  # first, because a later heartbeat would register the worker again
                await source.deregister()

    def _start_heartbeat(self) -> None:
        view = WorkerView(
            self._tasks_in_progress, lambda: self._stopping, lambda: self._last_tick, self._on_instructions
        )
        self._heartbeat = Heartbeat(self._blocking(), self.id, list(self._handlers), self._lease, view)
        self._progress_sender = ProgressSender(self._blocking(), self.id, list(self._handlers), self._lease, view)
        self._heartbeat.start()
        self._progress_sender.start()

    def _blocking(self) -> httpx2.Client:
        return self.client.blocking(self._lease / HEARTBEATS_PER_LEASE)

    async def _stop_heartbeat(self) -> None:
        if self._progress_sender is not None:
            self._progress_sender.stop()
        if self._heartbeat is not None:
            await self._heartbeat.aclose()

    async def _run_unless_stopped(self, coroutine: Coroutine[Any, Any, ValueT]) -> ValueT | None:
        """Return the result of a coroutine; cancel it and return None if the worker is stopped first."""
        running, stopped = asyncio.ensure_future(coroutine), asyncio.ensure_future(self._stop_requested.wait())
        try:
            await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            running.cancel()
            await asyncio.wait((running,))
            return None
        finally:
            running.cancel()
            stopped.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Record that the event loop runs, and schedule the next tick."""
        if self._loop is loop:
            now = time.monotonic()
            if (blocked := now - self._last_tick - TICK_SECONDS) >= MIN_BLOCKED_SECONDS:
                metrics.LOOP_BLOCKED.inc(blocked)
            self._last_tick = now
            for callback in self._tick_callbacks:
                callback()
            loop.call_later(TICK_SECONDS, self._tick, loop)

    def _may_claim(self) -> bool:
        return self._heartbeat is None or self._heartbeat.healthy

    def _on_contact(self) -> None:
        self._contacted = True

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 a listener may raise anything
                _log.exception("listener failed", listener=repr(listener), event_type=type(event).__name__)

    def _tasks_in_progress(self) -> Sequence[TaskInProgress]:
        return [running for poller in self._pollers for running in poller.tasks_in_progress]

    def _on_instructions(self, instructions: Instructions) -> None:
        """Pass the manager's instructions from the heartbeat's thread to the event loop."""
        if self._loop is not None and (instructions.lost or instructions.cancel or instructions.drain):
            with suppress(RuntimeError):  # the loop is closed: the worker has ended already
                self._loop.call_soon_threadsafe(self._apply_instructions, instructions)

    def _apply_instructions(self, instructions: Instructions) -> None:
        for poller in self._pollers:
            poller.lose(instructions.lost)
            poller.cancel("job aborted", instructions.cancel)
        if instructions.drain and not self._stopping:
            _log.info("manager requested a drain", worker=self.id)
            self.stop()


async def _open(pollers: Sequence[Poller]) -> None:
    for poller in pollers:
        await poller.open()
