"""A whole worker process: settings, logs, traces, probes, signals, graceful stop, exit code."""

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from types import FrameType
from typing import Final, NoReturn, Protocol, Self

import structlog
from typing_extensions import override

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.observability.logging import configure_logging
from jobnik_sdk.observability.probes import Health, ProbeServer
from jobnik_sdk.service import tracing
from jobnik_sdk.service.settings import WorkerSettings, environment, misspelled
from jobnik_sdk.worker.worker import Worker

_YOUNG_OBJECTS: Final = 100_000
"""Between two looks of the garbage collector at new objects: some megabytes."""
_TICK_SECONDS: Final = 1.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
STOP_MARGIN_SECONDS = 5.0
"""Seconds after its time to drain at which a process that does not end is ended."""
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class Container(Protocol):
    """What a process is made of: a container of dependency-injector has this shape, and so may a class of your own."""

    def settings(self) -> WorkerSettings:
        """Read the settings, once."""
        ...

    def worker(self) -> Worker:
        """Make the worker, once; its client is closed in the end."""
        ...


def run(container: Container) -> int:
    """Run a worker as this process's only purpose, and return its exit code.

    `container` is anything with the methods `settings()`, which returns `WorkerSettings`, and `worker()`, which returns
    the `Worker`: a container of dependency-injector, or a class of your own. Each is called once; in the end the
    worker's client is closed.

    The settings say how it logs, where its traces go, and where probes and metrics are served. The first SIGTERM or
    SIGINT stops the worker gracefully, within `worker_drain_seconds`; a second one ends the process at once, with 128
    and the signal's number.

    The code is 0 after a graceful stop; 2 if a setting is missing or wrong, which standard error then names; 1 if the
    process cannot go on: the port is taken, it could not be stopped in time, or there is a fault in it.
    """
    with _Stop() as stop:
        try:
            settings = container.settings()
            configure_logging(settings.log_level)
            _look_at_environment(type(settings))
            url = settings.telemetry_tracing_url
            with ExitStack() as stack:
                if tracing.wanted(settings.telemetry_tracing_enabled, url, os.environ):
                    stack.enter_context(tracing.tracing(url, settings.flush_timeout))
                code = _serve(container, settings, stop)
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")
            return 2
    _exit_despite_threads(code, settings.flush_timeout)
    return code


def _serve(container: Container, settings: WorkerSettings, stop: "_Stop") -> int:
    host, port, vitals = settings.probe_host, settings.probe_port, Health()
    try:
        server = ProbeServer(vitals, host=host, port=port)
    except OSError as error:
        advice = "set PROBE_HOST and PROBE_PORT to an address that is free; the port 0 takes any"
        _log.error("probes cannot be served", host=host, port=port, reason=error.strerror, advice=advice)
        return 1
    try:
        with server:
            _log.info("probes and metrics are served", host=host, port=server.port)
            worker = container.worker()
            vitals.watch(worker)
            stop.is_of(worker, settings.worker_drain_seconds)
            _spare_the_garbage_collector()
            asyncio.run(_work(worker, vitals))
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 the last place that can say why the process ends
        _log.exception("worker crashed")
        return 1
    return 0


def _spare_the_garbage_collector() -> None:
    """Let it look at what tasks leave, and not at all that was loaded: else it takes half of a worker's time.

    A claim of many tasks makes some thousand objects in one go, which all die soon: it need not look after each 700.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


async def _work(worker: Worker, vitals: Health) -> None:
    asyncio.get_running_loop().set_default_executor(_DetachedExecutor())
    ticking = asyncio.create_task(_tick(vitals))
    try:
        await worker.run()
    finally:
        ticking.cancel()
        await worker.client.aclose()


async def _tick(vitals: Health) -> None:
    while True:
        vitals.tick()
        await asyncio.sleep(_TICK_SECONDS)


class _Stop:
    """What SIGTERM and SIGINT do within a `with` block; those count, too, that come before there is a worker."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._asked = False
        self._signalled = threading.Event()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        # Not the event loop's own signal handling: the second signal has to count even while the loop is blocked.
        self._before = {number: signal.signal(number, self._answer) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._signalled.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def is_of(self, worker: Worker, seconds: float) -> None:
        """Say which worker is to be stopped, once there is one, and how long that may take."""
        self._worker = worker
        threading.Thread(target=self._insist, args=(seconds,), name="jobnik-stop", daemon=True).start()
        if self._asked:
            worker.stop()

    def _answer(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            _exit_now(128 + number)
        self._asked = True
        if self._worker is not None:
            self._worker.stop()
        self._signalled.set()

    def _insist(self, seconds: float) -> None:
        """End a process that a signal has not ended: a handler that blocks the event loop holds up everything."""
        self._signalled.wait()
        if not self._over.wait(seconds + STOP_MARGIN_SECONDS):
            _log.error("the worker could not be stopped in time", seconds=seconds)
            _exit_now(1)


class _DetachedExecutor(ThreadPoolExecutor):
    """What `asyncio.to_thread` runs on; unlike asyncio's own, it does not wait in the end for threads that hang."""

    PREFIX: Final = "jobnik-to-thread"

    def __init__(self) -> None:
        super().__init__(thread_name_prefix=self.PREFIX)

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def _exit_despite_threads(code: int, patience: timedelta) -> None:
    """End the process, where Python would wait for a thread of `asyncio.to_thread` that does not end."""
    deadline = time.monotonic() + patience.total_seconds()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(_DetachedExecutor.PREFIX)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        _log.warning("a thread is left behind", threads=[thread.name for thread in threads if thread.is_alive()])
        _exit_now(code)


def _exit_now(code: int) -> NoReturn:
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def _look_at_environment(settings: type[WorkerSettings]) -> None:
    for variable, meant in misspelled(settings).items():
        _log.warning("this variable is no setting", variable=variable, meant=meant)
    for name, value in environment(settings).items():
        if name.startswith("OTEL_"):  # which OpenTelemetry looks for in the environment alone
            os.environ.setdefault(name, value)
