"""The heartbeat of a worker and its progress, on connections that lose or refuse requests."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from jobnik_sdk import Empty, JobInfo, Priority, StageInfo, TaskContext
from jobnik_sdk.execution.progress import ProgressUpdate
from jobnik_sdk.observability.spans import AttemptSpan
from jobnik_sdk.worker import heartbeat as heartbeats
from jobnik_sdk.worker.heartbeat import Heartbeat, WorkerView
from jobnik_sdk.worker.progress_sender import ProgressSender
from jobnik_sdk.worker.task_source import Assignment, TaskInProgress
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


class Manager(httpx2.BaseTransport):
    """Records heartbeats, and answers each with the status that `status` returns for its running tasks."""

    def __init__(self, status: Callable[[list[dict[str, Any]]], int] = lambda _running: 200) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._status = status
        self._changed = threading.Condition()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Respond."""
        body = json.loads(request.content)
        status = self._status(body["running"])
        with self._changed:
            self.bodies.append(body)
            self._changed.notify_all()
        return httpx2.Response(status, content=NO_INSTRUCTIONS)

    def wait_for(self, requests: int) -> list[dict[str, Any]]:
        """Wait for this many requests, and return their bodies."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.bodies) >= requests, 10)
            return self.bodies[:requests]

    def connect(self) -> httpx2.Client:
        """Return a connection."""
        return httpx2.Client(base_url="http://manager", transport=self)


def _running(lease: int) -> TaskInProgress:
    task = Assignment[Empty, Empty](
        id=UUID(int=lease), stage_id="", attempts=0, max_attempts=3, data=Empty(), metadata=Empty(), lease_id=lease
    )
    context = TaskContext(
        job=JobInfo(UUID(int=1), "gallery", Priority.HIGH, {}, {}),
        stage=StageInfo(UUID(int=2), "pictures", 1, Empty(), Empty()),
        task_id=task.id,
        attempt=1,
        max_attempts=3,
        metadata=Empty(),
        traceparent="",
    )
    return TaskInProgress(task, context, AttemptSpan(None, ""))


def _view(tasks: Sequence[TaskInProgress]) -> WorkerView:
    return WorkerView(lambda: tasks, lambda: False, time.monotonic, lambda _instructions: None)


LEASE = timedelta(seconds=0.3)


def test_a_heartbeat_fits_into_the_limits_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat has at most 100 stage types, and only the leases of tasks; many leases take several requests."""
    monkeypatch.setattr(heartbeats, "MAX_LEASES", 2)
    monkeypatch.setattr("platform.node", lambda: "h" * 300)
    tasks = [_running(lease) for lease in range(1, 6)]
    tasks[0].context.progress(0.5)
    tasks[1].context.save_checkpoint("large")
    manager = Manager()
    heartbeat = Heartbeat(manager.connect(), "w", [str(number) for number in range(101)], LEASE, _view(tasks))
    heartbeat.start()
    bodies = manager.wait_for(3)
    heartbeat.stop()
    assert [[task["leaseId"] for task in body["running"]] for body in bodies] == [[1, 2], [3, 4], [5]]
    assert {len(body["stageTypes"]) for body in bodies} == {100}
    assert {len(body["host"]) for body in bodies} == {255}
    assert {frozenset(task) for body in bodies for task in body["running"]} == {frozenset({"taskId", "leaseId"})}


def test_a_heartbeat_that_is_too_large_for_a_proxy_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller requests follow until they are accepted."""
    monkeypatch.setattr(heartbeats, "MAX_LEASES", 4)
    monkeypatch.setattr(heartbeats, "MIN_LEASES", 2)
    manager = Manager(lambda running: 413 if len(running) > 2 else 200)
    heartbeat = Heartbeat(manager.connect(), "w", ["any"], LEASE, _view([_running(lease) for lease in range(4)]))
    heartbeat._max_leases = 4  # pyright: ignore[reportPrivateUsage]
    heartbeat.start()
    bodies = manager.wait_for(3)
    heartbeat.stop()
    assert [len(body["running"]) for body in bodies] == [4, 2, 2]


def test_a_late_heartbeat_is_logged() -> None:
    """If the thread does not run for most of a lease, the log says what to do."""
    manager = Manager()
    with capture_logs() as logs:
        heartbeat = Heartbeat(manager.connect(), "w", ["any"], LEASE, _view([]))
        heartbeat._answered_at -= 1  # pyright: ignore[reportPrivateUsage]
        heartbeat.start()
        manager.wait_for(1)
        heartbeat.stop()
    line = next(line for line in logs if line["event"] == "heartbeat late")
    assert line["seconds_since_answer"] >= 1
    assert "PROCESS" in line["advice"]


def test_progress_is_sent_beside_the_heartbeat_and_only_if_it_is_new() -> None:
    """A request has all running tasks, because the manager counts them; progress that it has is not sent again."""
    first, second = _running(1), _running(2)
    manager = Manager()
    sender = ProgressSender(manager.connect(), "w", ["any"], LEASE, _view([first, second]))
    first.context.progress(0.5, "half", timedelta())
    sender.start()
    manager.wait_for(1)
    second.context.save_checkpoint({"page": 1})
    manager.wait_for(2)
    first.context.progress(0.75)
    bodies = manager.wait_for(3)
    sender.stop()
    ids = [{"taskId": str(UUID(int=lease)), "leaseId": lease} for lease in (1, 2)]
    assert [body["running"] for body in bodies] == [
        [ids[0] | {"progress": {"fraction": 0.5, "message": "half", "etaSeconds": 0}}, ids[1]],
        [ids[0], ids[1] | {"checkpoint": {"page": 1}}],
        [ids[0] | {"progress": {"fraction": 0.75, "message": "", "etaSeconds": None}}, ids[1]],
    ]


@pytest.mark.parametrize("status", [400, 413])
def test_progress_that_is_refused_is_dropped_alone(status: int) -> None:
    """The progress of other tasks is delivered, and the log names the task."""
    tasks = [_running(lease) for lease in range(1, 6)]
    manager = Manager(lambda running: status if any("bad" in str(task) for task in running) else 200)
    for task in tasks:
        task.context.progress(0.5, "bad" if task.task.lease_id == 4 else "")
    sender = ProgressSender(manager.connect(), "w", ["any"], LEASE, _view(tasks))
    with capture_logs() as logs:
        sender.start()
        bodies = manager.wait_for(7)
        tasks[0].context.progress(1.0)
        last = manager.wait_for(8)[-1]
        sender.stop()
    accepted = [task["leaseId"] for body in bodies for task in body["running"] if "bad" not in str(body)]
    assert sorted(accepted) == [1, 2, 3, 5]
    assert [task["leaseId"] for task in last["running"] if "progress" in task] == [1]
    (line,) = [line for line in logs if line["event"] == "progress refused"]
    assert line["task_id"] == str(UUID(int=4))


def test_progress_that_was_not_delivered_is_sent_later() -> None:
    """A failure is logged once, and the latest progress follows."""
    task = _running(1)
    statuses = [503, 503, 200]
    manager = Manager(lambda _running: statuses.pop(0))
    task.context.progress(0.5)
    with capture_logs() as logs:
        sender = ProgressSender(manager.connect(), "w", ["any"], LEASE, _view([task]))
        sender.start()
        bodies = manager.wait_for(3)
        sender.stop()
    assert bodies[0]["running"] == bodies[2]["running"]
    assert [line["event"] for line in logs] == ["progress not delivered, retrying"]


def test_an_odd_value_does_not_delay_the_progress_of_others() -> None:
    """Even a value that no handler can record affects only its own task."""
    odd, task = _running(1), _running(2)
    odd.context.state.record_progress(ProgressUpdate(0.5, "\ud800"))
    task.context.progress(0.5)
    manager = Manager()
    sender = ProgressSender(manager.connect(), "w", ["any"], LEASE, _view([odd, task]))
    with capture_logs() as logs:
        sender.start()
        (body,) = manager.wait_for(1)
        sender.stop()
    assert [("progress" in entry) for entry in body["running"]] == [False, True]
    assert [line["event"] for line in logs] == ["progress not sendable"]
