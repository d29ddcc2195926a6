"""A worker: handlers at work on the tasks of a manager, until it is told to stop."""

import asyncio
import inspect
import os
import platform
import secrets
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, TypeVar

import structlog
from pydantic import BaseModel

from jobnik_sdk.errors import AnswerError, ConfigurationError, JobnikError
from jobnik_sdk.execution.access import WorkerAccess
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.http.retries import INITIAL_DELAY, MAX_DELAY, backoff
from jobnik_sdk.model.arguments import check_duration, check_instance
from jobnik_sdk.observability import metrics
from jobnik_sdk.worker.events import Event, Listener
from jobnik_sdk.worker.heartbeat import HEARTBEATS_PER_LEASE, Heartbeat, Held, Instructions, WorkerView
from jobnik_sdk.worker.leased_source import LeasedTaskSource
from jobnik_sdk.worker.middleware import Middleware
from jobnik_sdk.worker.part_a_source import PartATaskSource
from jobnik_sdk.worker.poller import Poller, PollerDependencies
from jobnik_sdk.worker.task_source import TaskSource

Done = TypeVar("Done")

POLL_INITIAL_DELAY: Final = timedelta(seconds=1)
POLL_MAX_DELAY: Final = timedelta(seconds=60)
LEASE: Final = timedelta(seconds=30)
DRAIN_TIMEOUT: Final = timedelta(seconds=25)
DRAIN_SHARE: Final = 0.7
"""Of the time to drain: how much is left to handlers, before they are cancelled."""
REPORT_SHARE: Final = 0.9
"""Of the time to drain: how much may pass until all is reported or handed back. The rest is for the goodbye; without it
the leases bring back what is left."""
NOT_FOUND: Final = 404
TICK: Final = 1.0
"""Seconds between two signs of life of the event loop."""
LEASES: Final = frozenset({"claim", "settle", "leases", "heartbeat"})
"""What a manager must have for a worker to use its leases."""

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class _Capabilities(BaseModel):
    features: frozenset[str]


class Worker:
    """Works for `handlers` until it is stopped, with whatever the manager can do.

    Each handler has its own slots; a task is claimed only when one more can start. Where the manager lends tasks for a
    time, a heartbeat keeps them; where it does not, tasks are claimed and reported one by one. The handlers do not see
    the difference.

    A handler that raises fails that attempt alone; so does a task whose data does not fit the stage type. A report that
    cannot be delivered is said again until the manager decides. What a handler returns is checked against the stage
    type's `result`.

    Args:
        client: To the manager.
        handlers: What it works on: one for each stage type.
        middleware: Surrounds each call of a handler, the first outermost; see `jobnik_sdk.worker.events`.
        listeners: Are told what happens, one after the other.
        lease: How long a task stays this worker's without a heartbeat, 30 s unless said otherwise: the time after which
            others take over from a worker that was killed.
        drain_timeout: How long `stop` may take, 25 s unless said otherwise. Handlers that need longer are cancelled,
            and their tasks go back.
        poll_initial_delay: The longest first wait after trouble, or on an empty queue where the manager cannot wait
            itself; 1 s unless said otherwise. It doubles each time, and a random part of it is waited.
        poll_max_delay: The longest of all, 60 s unless said otherwise.

    Raises:
        ConfigurationError: there are no handlers, or two for one stage type, or a listener is a coroutine function.
    """

    def __init__(  # noqa: PLR0913 the options of a worker belong in one place
        self,
        client: JobnikClient,
        handlers: Sequence[AnyHandler],
        *,
        middleware: Sequence[Middleware] = (),
        listeners: Sequence[Listener] = (),
        lease: timedelta = LEASE,
        drain_timeout: timedelta = DRAIN_TIMEOUT,
        poll_initial_delay: timedelta = POLL_INITIAL_DELAY,
        poll_max_delay: timedelta = POLL_MAX_DELAY,
    ) -> None:
        names = [handler.stage_type.name for handler in handlers]
        if not names:
            raise ConfigurationError("A worker has at least one handler.")
        if len(set(names)) < len(names):
            raise ConfigurationError(
                f"Each stage type has one handler in a worker, and these have: {', '.join(names)}."
            )
        for listener in listeners:
            if inspect.iscoroutinefunction(listener):
                raise ConfigurationError(f"A listener is a plain function (def), which {listener!r} is not.")
        check_instance("A worker's client", client, JobnikClient)
        for name, duration in (("lease", lease), ("drain_timeout", drain_timeout)):
            check_duration(name, duration)
        self.client = client
        self.handlers = tuple(handlers)
        self.id: Final = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
        """New at every start: no other process ever has it."""
        self._middleware = tuple(middleware)
        self._listeners = tuple(listeners)
        self._lease = lease
        self._drain_timeout = drain_timeout.total_seconds()
        self._poll_delays = (poll_initial_delay, poll_max_delay)
        self._pollers: Sequence[Poller] = ()
        self._heartbeat: Heartbeat | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked = asyncio.Event()
        self._stopping = False
        self._contacted = False
        self._ticked = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether the manager has answered once and still does, and the worker has not been told to stop."""
        return self._contacted and not self._stopping and self._can_keep()

    @property
    def polling(self) -> bool:
        """Whether each handler that may claim has tried lately, failed or not."""
        return all(poller.polling for poller in self._pollers)

    def stop(self) -> None:
        """Claim no more; `run` returns when what is in hand is finished and reported, or given back.

        It may be called at any time, more than once, from a signal handler or another thread; there is no way back.
        """
        self._stopping = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the worker has ended already
                self._loop.call_soon_threadsafe(self._stop_asked.set)

    async def run(self) -> None:
        """Work until `stop` is called; cancelled instead, it drops the running tasks and reports none of them."""
        self._loop = asyncio.get_running_loop()
        if self._stopping:
            self._stop_asked.set()
        names = [handler.stage_type.name for handler in self.handlers]
        _log.info("worker started", worker=self.id, stage_types=names, manager=self.client.base_url)
        self._tick(self._loop)
        try:
            source = await self._unless_stopped(self._open_source())
            if source is not None:
                await self._work(source, names)
        finally:
            self._loop = None
        _log.info("worker stopped", worker=self.id)

    async def _work(self, source: TaskSource, names: Sequence[str]) -> None:
        dependencies = PollerDependencies(
            source,
            self._poll_delays,
            self._can_keep,
            self._note_contact,
            self._middleware,
            self._emit if self._listeners else None,
            WorkerAccess(self.client),
        )
        self._pollers = [Poller(handler, dependencies) for handler in self.handlers]
        if isinstance(source, LeasedTaskSource):
            view = WorkerView(self._held, lambda: self._stopping, lambda: self._ticked, self._on_instructions)
            http = self.client.blocking(self._lease / HEARTBEATS_PER_LEASE)
            self._heartbeat = Heartbeat(http, self.id, names, self._lease, view)
            self._heartbeat.start()
        try:
            async with asyncio.TaskGroup() as claiming:
                for poller in self._pollers:
                    claiming.create_task(poller.work())
                await self._stop_asked.wait()
                for poller in self._pollers:
                    poller.stop()
            await self._drain(source)
        finally:
            await asyncio.gather(*(poller.close() for poller in self._pollers))
            await self._stop_heartbeat()

    async def _drain(self, source: TaskSource) -> None:
        """Finish what is in hand; what takes too long is cancelled, and goes back."""
        held = len(self._held())
        metrics.DRAINING.inc()
        _log.info("worker drains", worker=self.id, tasks=held, seconds=self._drain_timeout)
        begun = asyncio.get_running_loop().time()
        drained = asyncio.gather(*(poller.drained() for poller in self._pollers))
        try:
            async with asyncio.timeout_at(begun + self._drain_timeout * DRAIN_SHARE):
                await asyncio.shield(drained)
        except TimeoutError:
            for poller in self._pollers:
                poller.cancel("drain")
            with suppress(TimeoutError):
                async with asyncio.timeout_at(begun + self._drain_timeout * REPORT_SHARE):
                    await drained
        metrics.DRAINING.dec()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(begun + self._drain_timeout):
                await self._stop_heartbeat()  # first, since a beat after the goodbye would take it back
                await source.leave()

    async def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            await asyncio.to_thread(self._heartbeat.stop)

    async def _unless_stopped(self, work: Coroutine[Any, Any, Done]) -> Done | None:
        """Return what `work` gives; None if the worker is stopped before."""
        working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._stop_asked.wait())
        try:
            await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            stopped.cancel()

    async def _open_source(self) -> TaskSource:
        """Find out what the manager can do, however long that takes."""
        delays = backoff(INITIAL_DELAY, MAX_DELAY)
        while True:
            try:
                answer = await self.client.request("GET", "/v1/capabilities", retry=False)
                features = read_one(_Capabilities, answer).features
            except JobnikError as error:
                if not (isinstance(error, AnswerError) and error.status == NOT_FOUND):
                    _log.warning("the manager cannot be asked yet", manager=self.client.base_url, reason=str(error))
                    await asyncio.sleep(next(delays))
                    continue
                features = frozenset[str]()
            self._contacted = True
            if features >= LEASES:
                return LeasedTaskSource(self.client, self.id, self._lease)
            _log.warning("the manager lends no tasks: a worker that is killed keeps them until they are stale")
            return PartATaskSource(self.client)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Show that the event loop turns, for as long as the worker runs."""
        if self._loop is loop:
            self._ticked = time.monotonic()
            loop.call_later(TICK, self._tick, loop)

    def _can_keep(self) -> bool:
        return self._heartbeat is None or self._heartbeat.healthy

    def _note_contact(self) -> None:
        self._contacted = True

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 a listener may raise anything, and only listens
                _log.exception("a listener failed", listener=repr(listener), event_type=type(event).__name__)

    def _held(self) -> Sequence[Held]:
        return [held for poller in self._pollers for held in poller.held]

    def _on_instructions(self, instructions: Instructions) -> None:
        """What the manager has to say, from the heart's thread."""
        if self._loop is not None and (instructions.lost or instructions.cancel or instructions.drain):
            with suppress(RuntimeError):  # the loop is closed: the worker has ended already
                self._loop.call_soon_threadsafe(self._apply, instructions)

    def _apply(self, instructions: Instructions) -> None:
        for poller in self._pollers:
            poller.cancel("lease lost", instructions.lost)
            poller.cancel("job aborted", instructions.cancel)
        if instructions.drain and not self._stopping:
            _log.info("the manager orders this worker to drain", worker=self.id)
            self.stop()
