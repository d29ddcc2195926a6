"""The heartbeat of a worker, on a connection that loses requests."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import httpx2
from jobnik_sdk.worker.heartbeat import Heartbeat, WorkerView
from jobnik_sdk.worker.task_source import TaskInProgress
from structlog.testing import capture_logs

NO_INSTRUCTIONS = b'{"lost": [], "cancel": [], "drain": false}'


class LossyTransport(httpx2.BaseTransport):
    """Loses the second heartbeat, and records when each one was sent."""

    def __init__(self) -> None:
        self.sent_at: list[float] = []
        self.third = threading.Event()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Respond, or time out."""
        self.sent_at.append(time.monotonic())
        if len(self.sent_at) == 2:
            raise httpx2.ReadTimeout("no response", request=request)
        if len(self.sent_at) == 3:
            self.third.set()
        return httpx2.Response(200, content=NO_INSTRUCTIONS)


def _heartbeat(
    transport: LossyTransport,
    lease: timedelta,
    tasks_in_progress: Callable[[], Sequence[TaskInProgress]] = tuple,
    last_tick: Callable[[], float] = time.monotonic,
) -> Heartbeat:
    view = WorkerView(tasks_in_progress, lambda: False, last_tick, lambda _instructions: None)
    http = httpx2.Client(base_url="http://manager", transport=transport)
    return Heartbeat(http, "worker-1", ["any"], lease, view)


def test_a_lost_heartbeat_is_soon_followed_by_another() -> None:
    """After a failure, the worker tries more often, so one lost heartbeat does not cost the lease."""
    transport = LossyTransport()
    heartbeat = _heartbeat(transport, timedelta(seconds=1.5))
    heartbeat.start()
    assert transport.third.wait(5)
    heartbeat.stop()
    first, second, third = transport.sent_at
    assert second - first > 0.4
    assert third - second < 0.4


def test_an_unexpected_error_costs_one_heartbeat() -> None:
    """After any error, the next heartbeat is sent."""
    transport = LossyTransport()
    calls: list[bool] = []

    def tasks_in_progress() -> Sequence[TaskInProgress]:
        calls.append(True)
        if len(calls) == 1:
            raise RuntimeError("not now")
        return ()

    heartbeat = _heartbeat(transport, timedelta(seconds=0.3), tasks_in_progress)
    heartbeat.start()
    assert transport.third.wait(5)
    heartbeat.stop()


def test_a_blocked_event_loop_is_logged() -> None:
    """The log line says for how long the loop has been blocked, where, and what to do."""
    transport = LossyTransport()
    with capture_logs() as logs:
        heartbeat = _heartbeat(transport, timedelta(seconds=0.3), last_tick=lambda: time.monotonic() - 7)
        heartbeat.start()
        assert transport.third.wait(5)
        heartbeat.stop()
    line = next(line for line in logs if line["event"] == "event loop blocked")
    assert line["seconds"] == 7.0
    assert "test_a_blocked_event_loop_is_logged" in line["stack"]
    assert "THREAD or PROCESS" in line["advice"]
