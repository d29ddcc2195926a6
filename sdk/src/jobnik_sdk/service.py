"""A whole worker process: signals, probes, metrics, graceful stop, exit code."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

import structlog

from jobnik_sdk.probes import ProbeServer
from jobnik_sdk.worker.worker import Worker

_TICK_SECONDS: Final = 1.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


def run(
    *workers: Worker,
    probe_port: int = 8080,
    probe_host: str = "0.0.0.0",  # noqa: S104 the kubelet and Prometheus come from other machines
) -> int:
    """Run workers as this process's only purpose, and return its exit code; their clients are closed in the end.

    The first SIGTERM or SIGINT stops them gracefully: running tasks are finished and reported, then the code is 0. A
    second one ends the process at once. Probes and metrics are served on `probe_port`; 0 takes a free one. The code is
    1 where the process cannot go on: the port is taken, or there is a fault in the SDK.
    """
    try:
        server = ProbeServer(lambda: all(worker.ready for worker in workers), host=probe_host, port=probe_port)
    except OSError as error:
        _log.error("probes cannot be served", host=probe_host, port=probe_port, reason=error.strerror)
        return 1
    try:
        with server as probes, _stopping_on_signals(workers):
            _log.info("probes and metrics are served", host=probe_host, port=probes.port)
            asyncio.run(_work(workers, probes))
    except Exception:  # noqa: BLE001 the last place that can say why the process ends
        _log.exception("worker crashed")
        return 1
    return 0


async def _work(workers: Sequence[Worker], probes: ProbeServer) -> None:
    ticking = asyncio.create_task(_tick(probes))
    try:
        async with asyncio.TaskGroup() as running:
            for worker in workers:
                running.create_task(worker.run())
    finally:
        ticking.cancel()
        for client in {worker.client for worker in workers}:
            await client.aclose()


async def _tick(probes: ProbeServer) -> None:
    while True:
        probes.tick()
        await asyncio.sleep(_TICK_SECONDS)


@contextmanager
def _stopping_on_signals(workers: Sequence[Worker]) -> Generator[None]:
    signalled = False

    def answer(number: int, _frame: FrameType | None) -> None:
        nonlocal signalled
        if signalled:
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(128 + number)
        signalled = True
        for worker in workers:
            worker.stop()

    # Not the event loop's own signal handling: the second signal has to count even while the loop is blocked.
    before = {number: signal.signal(number, answer) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
