"""Runs a worker as a process: settings, logging, tracing, probes, signals, graceful stop and exit code."""

import asyncio
import errno
import gc
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Coroutine, Generator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from typing import Any, Final, NoReturn

import structlog
from typing_extensions import override

from jobnik_sdk.errors import ConfigurationError, SettingsError
from jobnik_sdk.execution import supervisor
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.processes.guarded import fill_standard_files
from jobnik_sdk.observability.log_writer import FLUSH_SECONDS
from jobnik_sdk.observability.logging import configure_logging, flush_logs
from jobnik_sdk.observability.probes import Health, ProbeServer
from jobnik_sdk.observability.secrets import mask_url
from jobnik_sdk.service import tracing
from jobnik_sdk.service.signals import StopSignals
from jobnik_sdk.worker.container import CLOSE_TIMEOUT, Container, container_of, opened
from jobnik_sdk.worker.settings import WorkerSettings, environment, misspelled

_YOUNG_OBJECTS: Final = 100_000
"""How many new objects trigger a garbage collection: some megabytes."""
STOP_MARGIN_SECONDS = 10.0
"""How long the end of the process may take after `worker_drain_seconds`. Then it is ended by force.

It is the sum of the limits for what can hang: the lifespans of handlers and their processes, the container, the tasks
and threads that handlers left behind, and the last log lines.
"""
TASKS_SECONDS: Final = 0.5
"""How long cancelled tasks of handlers and resources may take to end, before they are abandoned."""
THREADS_SECONDS: Final = 0.5
"""How long threads that handlers left running may take to end, before they are abandoned."""
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
    the worker gracefully, within `worker_drain_seconds` and at most 10 s for what must be closed. A second one ends the
    process at once; its exit code is 128 plus the number of the signal. While the settings are being read, the first
    signal ends the process at once, with exit code 0.

    If this is the first process of a container (PID 1), it starts the same command line again as its child. The first
    process itself then only passes signals on and reaps orphans.

    The exit code is 0 after a graceful stop, and 2 if settings or other environment variables are missing or invalid;
    standard error then names them. It is 1 if the process cannot continue: its port is in use, the worker did
    not stop in time, or an unexpected error occurred.

    `run` does not return, and ends the process with its exit code instead, if the end of Python would wait for
    something that hangs: a task, a thread or a process that a handler left running, or a standard output that nobody
    reads. Functions that are registered with `atexit` are then not called.

    Raises:
        ConfigurationError: this is not the main thread, or an event loop is running in it. Use `Worker.run` there.
    """
    container = container_of(container)
    _check_caller()
    _open_standard_streams()
    if supervisor.is_needed():
        supervisor.exec_init()
    threads_before = set(threading.enumerate())
    runner = asyncio.Runner()
    with StopSignals(_exit_now) as signals:
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
                code = _serve(container, settings, signals, runner)
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")
            code = 2
        _exit_if_tasks_hang(code, runner)
        _exit_if_threads_hang(code, threads_before)
        _exit_if_processes_hang(code)
        _exit_if_output_fails(code)
    return code


def _serve(container: Container, settings: WorkerSettings, signals: StopSignals, runner: asyncio.Runner) -> int:
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
            signals.start_watchdog(settings.worker_drain_seconds + STOP_MARGIN_SECONDS - FLUSH_SECONDS)
            _run_event_loop(runner.get_loop(), _run_worker(container, health, signals))
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 the last place where the reason can be logged
        _log.exception("worker crashed")
        return 1
    return 0


def _check_caller() -> None:
    """Raise an error unless this is the main thread and no event loop is running in it."""
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(
            "run(...) works only in the main thread, because Python handles signals there. "
            "In another thread, call asyncio.run(worker.run()), and worker.stop() to end it."
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        "run(...) starts an event loop, but one is running in this thread already. "
        "On a running event loop, await worker.run(), and call worker.stop() to end it."
    )


def _tune_garbage_collection() -> None:
    """Exclude all loaded code from garbage collection, and collect less often; this halves a worker's CPU time.

    A claim of many tasks creates thousands of objects that soon die together, so a collection after every 700 new ones
    finds nothing to free.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _open_standard_streams() -> None:
    """Open standard input, output and error if they are closed."""
    fill_standard_files()
    # Python sets a stream that was closed when it started to None.
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _run_event_loop(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine as `asyncio.run` does, but do not wait for tasks that ignore their cancellation."""
    try:
        _complete(loop, main)
    finally:
        _complete(loop, _end_tasks(loop))


def _complete(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, and continue if a handler stops the event loop meanwhile.

    A handler can stop it with `loop.stop()`, or with a callback that raises SystemExit or KeyboardInterrupt.
    """
    task = loop.create_task(coroutine)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (RuntimeError, SystemExit, KeyboardInterrupt) as error:
            if task.done() or loop.is_closed():
                raise
            _log.warning("event loop stopped by a handler, continuing", reason=f"{type(error).__name__}: {error}")
    task.result()


async def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel all other tasks; once they have ended, close the asynchronous generators. Both have a time limit."""
    with suppress(TimeoutError):
        async with asyncio.timeout(TASKS_SECONDS):
            while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            # Not before, because a generator cannot be closed while a task waits in it.
            await asyncio.wait({loop.create_task(loop.shutdown_asyncgens())})


async def _run_worker(container: Container, health: Health, signals: StopSignals) -> None:
    """Run the worker of a container, but do not wait for a container that does not end."""
    asyncio.get_running_loop().set_default_executor(_DetachedExecutor())
    stopped = asyncio.Event()
    running = asyncio.create_task(_run_open_worker(container, health, signals, stopped))
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    # The container ends itself after `CLOSE_TIMEOUT`, unless it ignores that.
    await asyncio.wait((running,), timeout=CLOSE_TIMEOUT.total_seconds() + TASKS_SECONDS)
    if running.done():
        running.result()
    else:
        _log.warning("resources did not close in time, abandoned", timeout_seconds=CLOSE_TIMEOUT.total_seconds())


async def _run_open_worker(container: Container, health: Health, signals: StopSignals, stopped: asyncio.Event) -> None:
    """Open a container, run its worker, set `stopped`, and close the container."""
    async with AsyncExitStack() as stack:
        with _cancelled_by(signals, stopped):
            worker = await stack.enter_async_context(opened(container))
        if signals.stop_requested:
            _log.info("stopped before the worker was created")
            return
        health.watch(worker)
        worker.on_tick(health.tick)
        signals.call(worker.stop)
        _tune_garbage_collection()
        try:
            await worker.run()
        finally:
            stopped.set()


@contextmanager
def _cancelled_by(signals: StopSignals, stopped: asyncio.Event) -> Generator[None]:
    """Cancel the `with` block of a coroutine on a signal, and set `stopped`. The block then ends early."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    is_open = True

    def cancel() -> None:
        if is_open and not stopped.is_set() and task is not None:
            stopped.set()
            task.cancel()

    signals.call(lambda: loop.call_soon_threadsafe(cancel))
    try:
        yield
    except asyncio.CancelledError:
        if not signals.stop_requested:
            raise
    finally:
        is_open = False


class _DetachedExecutor(ThreadPoolExecutor):
    """The executor of `asyncio.to_thread`; unlike asyncio's own, it does not wait for threads that hang."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="jobnik-to-thread")

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def _exit_if_tasks_hang(code: int, runner: asyncio.Runner) -> None:
    """Close the event loop; exit now if a task still runs, because that would wait for it forever."""
    if tasks := asyncio.all_tasks(runner.get_loop()):
        _log.warning("task abandoned", tasks=[task.get_name() for task in tasks])
        _exit_now(code)
    runner.close()


def _exit_if_threads_hang(code: int, threads_before: AbstractSet[threading.Thread]) -> None:
    """Exit now if threads of handlers still run after a moment, because Python would wait for them forever.

    These are the threads of `asyncio.to_thread`, and others that are not daemons and did not exist before.
    """
    deadline = time.monotonic() + THREADS_SECONDS
    threads = [thread for thread in set(threading.enumerate()) - threads_before if not thread.daemon]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        _log.warning("thread abandoned", threads=[thread.name for thread in threads if thread.is_alive()])
        _exit_now(code)


def _exit_if_processes_hang(code: int) -> None:
    """Kill the processes of multiprocessing that handlers have left, and exit: Python would wait for them forever."""
    if processes := multiprocessing.active_children():
        _log.warning("process abandoned", processes=[process.name for process in processes])
        _exit_now(code)


def _exit_if_output_fails(code: int) -> None:
    """Exit now if standard output or error is blocked, full or closed.

    At its end, Python would wait for them, or replace the exit code with 120.
    """
    if not flush_logs() or not _flush_streams():
        _end_process(code)


def _flush_streams() -> bool:
    """Write what the program has printed; return False if that fails or takes too long."""
    flushed = threading.Event()

    def flush() -> None:
        with suppress(OSError, ValueError):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            flushed.set()

    thread = threading.Thread(target=flush, name="jobnik-flush", daemon=True)
    thread.start()
    thread.join(FLUSH_SECONDS)
    return flushed.is_set()


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
