"""Runs a worker as a process: settings, logging, tracing, probes, signals, graceful stop and exit code."""

import asyncio
import errno
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, Final, NoReturn, Self

import structlog
from typing_extensions import override

from jobnik_sdk.errors import ConfigurationError, SettingsError
from jobnik_sdk.execution import supervisor
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.observability.logging import configure_logging, flush_logs
from jobnik_sdk.observability.probes import Health, ProbeServer
from jobnik_sdk.observability.secrets import mask_url
from jobnik_sdk.service import tracing
from jobnik_sdk.worker.container import Container, container_of, opened
from jobnik_sdk.worker.settings import WorkerSettings, environment, misspelled

_YOUNG_OBJECTS: Final = 100_000
"""How many new objects trigger a garbage collection: some megabytes."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
STOP_MARGIN_SECONDS = 5.0
"""How long after the drain timeout a process that is still running is ended by force."""
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


def run(container: Container | Sequence[AnyHandler]) -> int:
    """Run a worker in this process until it is stopped, and return the exit code.

    >>> if __name__ == "__main__":
    ...     raise SystemExit(run([Handler(thumbnails, make_thumbnail, concurrency=4)]))

    Without a container, pass the handlers. Their worker has the `WorkerSettings` of the environment.

    `container` is any object with the methods `settings()`, which returns `WorkerSettings`, and `worker()`, which
    returns the `Worker`: a container of dependency-injector, or a class of your own. Each method is called once.

    A container of dependency-injector initializes its `Resource` providers on the worker's event loop, before the
    worker is created, and shuts them down after the worker's last report. In a class of your own, `worker()` can be an
    async context manager that yields the worker. The worker's client is closed at the end.

    The settings configure logging, tracing, and where probes and metrics are served. The first SIGTERM or SIGINT stops
    the worker gracefully, within `worker_drain_seconds`. A second one ends the process at once; its exit code is 128
    plus the number of the signal.

    If this is the first process of a container (PID 1), it starts the same command line again as its child. The first
    process itself then only passes signals on and reaps orphans.

    The exit code is 0 after a graceful stop, and 2 if settings or other environment variables are missing or invalid;
    standard error then names them. It is 1 if the process cannot continue: its port is in use, the worker did
    not stop in time, or an unexpected error occurred.
    """
    container = container_of(container)
    _open_standard_streams()
    if supervisor.is_needed():
        supervisor.exec_init()
    threads_before = set(threading.enumerate())
    with _StopSignals() as signals:
        try:
            settings = container.settings()
            configure_logging(settings.log_level)
            _warn_of_misspelled_settings(type(settings))
            _export_opentelemetry_variables(type(settings))
            tracing.check_provider(os.environ)
            url = settings.telemetry_tracing_url
            with ExitStack() as stack:
                if tracing.is_enabled(settings.telemetry_tracing_enabled, url, os.environ):
                    stack.enter_context(tracing.tracing(url, settings.flush_timeout))
                code = _serve(container, settings, signals)
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")
            return 2
    _exit_if_threads_hang(code, settings.flush_timeout, threads_before)
    _exit_if_output_fails(code)
    return code


def _serve(container: Container, settings: WorkerSettings, signals: "_StopSignals") -> int:
    host, port, health = settings.probe_host, settings.probe_port, Health()
    try:
        server = ProbeServer(health, host=host, port=port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise SettingsError(
                f"PROBE_HOST and PROBE_PORT: cannot listen on {mask_url(host)!r}, port {port}: {error.strerror}."
            ) from None
        advice = "set PROBE_HOST and PROBE_PORT to an address that is free; port 0 selects a free port"
        _log.error("cannot serve probes", host=host, port=port, reason=error.strerror, advice=advice)
        return 1
    try:
        with server:
            _log.info("serving probes and metrics", host=host, port=server.port)
            signals.start_watchdog(settings.worker_drain_seconds)
            _run_event_loop(_run_worker(container, health, signals))
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 the last place where the reason can be logged
        _log.exception("worker crashed")
        return 1
    return 0


def _tune_garbage_collection() -> None:
    """Exclude all loaded code from garbage collection, and collect less often; this halves a worker's CPU time.

    A claim of many tasks creates thousands of objects that soon die together, so a collection after every 700 new ones
    finds nothing to free.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _open_standard_streams() -> None:
    """Open standard input, output and error if they are closed.

    Otherwise, the next files would get their numbers, and programs that a handler starts would read from or write to a
    connection of the worker.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
            os.set_inheritable(number, True)  # noqa: FBT003 declared so
    # Python sets a stream that was closed when it started to None.
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _run_event_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine as `asyncio.run` does, but continue if a handler stops the event loop meanwhile.

    A handler can stop it with `loop.stop()`, or with a callback that raises SystemExit or KeyboardInterrupt.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)
        while not task.done():
            try:
                loop.run_until_complete(task)
            except (RuntimeError, SystemExit, KeyboardInterrupt) as error:
                if task.done() or loop.is_closed():
                    raise
                _log.warning("event loop stopped by a handler, continuing", reason=f"{type(error).__name__}: {error}")


async def _run_worker(container: Container, health: Health, signals: "_StopSignals") -> None:
    asyncio.get_running_loop().set_default_executor(_DetachedExecutor())
    async with AsyncExitStack() as stack:
        with _cancelled_by(signals):
            worker = await stack.enter_async_context(opened(container))
        if signals.stop_requested:
            _log.info("stopped before the worker was created")
            return
        health.watch(worker)
        worker.on_tick(health.tick)
        signals.call(worker.stop)
        _tune_garbage_collection()
        await worker.run()


@contextmanager
def _cancelled_by(signals: "_StopSignals") -> Generator[None]:
    """Cancel the `with` block of a coroutine on a signal. The block then ends early, without an exception."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    is_open = True

    def cancel() -> None:
        if is_open and task is not None:
            task.cancel()

    signals.call(lambda: loop.call_soon_threadsafe(cancel))
    try:
        yield
    except asyncio.CancelledError:
        if not signals.stop_requested:
            raise
    finally:
        is_open = False


class _StopSignals:
    """Handles SIGTERM and SIGINT within a `with` block, also before the worker has been created."""

    def __init__(self) -> None:
        self._stop: Callable[[], object] | None = None
        self.stop_requested = False
        self._signalled = threading.Event()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        # Not the event loop's own signal handling: a second signal must work even while the loop is blocked.
        self._previous_handlers = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._signalled.set()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def start_watchdog(self, timeout_seconds: float) -> None:
        """After a signal, end the process by force if it takes longer than this, plus a margin, to stop."""
        watchdog = threading.Thread(target=self._enforce_timeout, args=(timeout_seconds,), name="jobnik-stop")
        watchdog.daemon = True
        watchdog.start()

    def call(self, stop: Callable[[], object]) -> None:
        """Call `stop` on a signal, or now if a signal has already arrived. It replaces the previous function."""
        self._stop = stop
        if self.stop_requested:
            stop()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.stop_requested:
            _exit_now(128 + number)
        self.stop_requested = True
        if self._stop is not None:
            self._stop()
        self._signalled.set()

    def _enforce_timeout(self, timeout_seconds: float) -> None:
        """End the process if it does not stop in time, for example because a handler blocks the event loop."""
        self._signalled.wait()
        if not self._ended.wait(timeout_seconds + STOP_MARGIN_SECONDS):
            _log.error("worker did not stop in time, exiting", timeout_seconds=timeout_seconds)
            _exit_now(1)


class _DetachedExecutor(ThreadPoolExecutor):
    """The executor of `asyncio.to_thread`; unlike asyncio's own, it does not wait for threads that hang."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="jobnik-to-thread")

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def _exit_if_threads_hang(code: int, timeout: timedelta, threads_before: AbstractSet[threading.Thread]) -> None:
    """Exit now if threads of handlers still run after `timeout`, because Python would wait for them forever.

    These are the threads of `asyncio.to_thread`, and others that are not daemons and did not exist before.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    threads = [thread for thread in set(threading.enumerate()) - threads_before if not thread.daemon]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        _log.warning("thread abandoned", threads=[thread.name for thread in threads if thread.is_alive()])
        _exit_now(code)


def _exit_if_output_fails(code: int) -> None:
    """Exit now if standard output or error is blocked, full or closed.

    At its end, Python would wait for them, or replace the exit code with 120.
    """
    if not flush_logs():
        _end_process(code)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _end_process(code)


def _exit_now(code: int) -> NoReturn:
    flush_logs()
    _end_process(code)


def _end_process(code: int) -> NoReturn:
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def _warn_of_misspelled_settings(settings: type[WorkerSettings]) -> None:
    for variable, setting in misspelled(settings).items():
        _log.warning("unknown setting", variable=variable, did_you_mean=setting)


def _export_opentelemetry_variables(settings: type[WorkerSettings]) -> None:
    """Copy OpenTelemetry's variables from `.env` to the environment, the only place where it looks for them."""
    for name, value in environment(settings).items():
        if name.startswith("OTEL_"):
            os.environ.setdefault(name, value)
