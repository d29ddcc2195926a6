"""Events that a worker emits to its listeners, on a scripted manager."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from jobnik_sdk import (
    BreakerClosed,
    BreakerOpened,
    BreakerPolicy,
    ConfigurationError,
    DoNotRetry,
    Event,
    Handler,
    QueueEmpty,
    RetryLater,
    Snooze,
    TaskCompleted,
    TaskContext,
    TaskFailed,
    TaskSnoozed,
    TaskStarted,
    Worker,
)
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests.unit.sdk.script import ScriptedManager, Word, words

Make = Callable[..., dict[str, Any]]
MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
def manager(manager: ScriptedManager, task_json: Make) -> ScriptedManager:
    """A manager with one task."""
    manager.claims.append(task_json(data={"text": "a"}))
    return manager


async def follow(task: Word, _context: TaskContext) -> Word:
    """Do what the task's text says, and return the data as the result."""
    if task.text == "fail":
        raise ValueError(task.text)
    if task.text == "later":
        raise RetryLater(timedelta(seconds=1))
    if task.text == "never":
        raise DoNotRetry("never")
    if task.text == "snooze":
        raise Snooze(timedelta(seconds=1))
    return task


def _worker(
    manager: ScriptedManager,
    *listeners: Any,  # noqa: ANN401 some are wrong on purpose
    circuit_breaker: BreakerPolicy | None = None,
) -> Worker:
    handler = Handler(words, follow, circuit_breaker=circuit_breaker)
    return Worker(
        manager.client, [handler], listeners=listeners, poll_initial_delay=MILLISECOND, poll_max_delay=MILLISECOND
    )


async def test_listeners_receive_the_events_of_attempts(manager: ScriptedManager, task_json: Make) -> None:
    """An attempt emits its start and its outcome. The empty queue is emitted once, however often it is seen."""
    manager.claims += [task_json(data={"text": "fail"}), task_json(data={"text": "snooze"})]
    received: list[Event] = []
    await manager.run_until_empty(_worker(manager, received.append))
    kinds = [type(event) for event in received if not isinstance(event, QueueEmpty)]
    assert kinds == [TaskStarted, TaskCompleted, TaskStarted, TaskFailed, TaskStarted, TaskSnoozed]
    (completed,) = [event for event in received if isinstance(event, TaskCompleted)]
    assert completed.result == b'{"text":"a"}'
    assert sum(isinstance(event, QueueEmpty) for event in received) == 1


async def test_a_listener_that_raises_is_logged(manager: ScriptedManager) -> None:
    """The exception has no other effect, and other listeners receive the event."""
    received: list[Event] = []

    def fail(event: Event) -> None:
        raise ValueError(event)

    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager, fail, received.append))
    assert TaskCompleted in [type(event) for event in received]
    assert "listener failed" in [line["event"] for line in logs]


async def test_a_listener_must_be_a_plain_function(manager: ScriptedManager) -> None:
    """A coroutine function would never be awaited."""

    async def listen(_event: Event) -> None: ...

    with pytest.raises(ConfigurationError, match="A listener must be a plain function"):
        _worker(manager, listen)


async def test_failing_attempts_open_the_breaker_of_the_handler(manager: ScriptedManager, task_json: Make) -> None:
    """After ten failures, the worker claims no more, and the remaining tasks stay in the queue."""
    manager.claims.clear()
    manager.claims += [task_json(data={"text": "fail"}) for _ in range(20)]
    received: list[Event] = []

    def stop_when_opened(event: Event) -> None:
        received.append(event)
        if isinstance(event, BreakerOpened):
            worker.stop()

    worker = _worker(manager, stop_when_opened, circuit_breaker=BreakerPolicy())
    await worker.run()
    assert BreakerOpened("words", "handler") in received
    assert manager.reported == ['{"status":"FAILED"}'] * 10
    labels = {"stage_type": "words", "breaker": "handler"}
    assert REGISTRY.get_sample_value("jobnik_sdk_worker_circuit_breaker_state", labels) == 2


async def test_a_success_after_the_pause_closes_the_breaker(manager: ScriptedManager, task_json: Make) -> None:
    """One attempt is tried at a time, and after its success the worker continues with the others."""
    manager.claims.clear()
    manager.claims += [task_json(data={"text": text}) for text in ("fail", "fail", "a", "b", "c")]
    received: list[Event] = []
    policy = BreakerPolicy(min_calls=2, pause=MILLISECOND)
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager, received.append, circuit_breaker=policy))
    changes = [event for event in received if isinstance(event, BreakerOpened | BreakerClosed)]
    assert changes == [BreakerOpened("words", "handler"), BreakerClosed("words", "handler")]
    kinds = [type(event) for event in received if isinstance(event, TaskFailed | TaskCompleted | BreakerClosed)]
    assert kinds == [TaskFailed, TaskFailed, BreakerClosed, TaskCompleted, TaskCompleted, TaskCompleted]
    lines = [line for line in logs if line["event"].startswith("circuit breaker")]
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("circuit breaker opened", "error"),
        ("circuit breaker closed", "info"),
    ]
    assert lines[0]["pause_seconds"] == 0.001


async def test_failing_attempts_do_not_stop_a_worker_without_a_breaker(
    manager: ScriptedManager, task_json: Make
) -> None:
    """By default, a handler has no breaker; its metrics exist all the same, and show a closed one."""
    manager.claims.clear()
    manager.claims += [task_json(data={"text": "fail"}) for _ in range(50)]
    received: list[Event] = []
    await manager.run_until_empty(_worker(manager, received.append))
    assert manager.reported == ['{"status":"FAILED"}'] * 50
    assert BreakerOpened("words", "handler") not in received
    labels = {"stage_type": "words", "breaker": "handler"}
    assert REGISTRY.get_sample_value("jobnik_sdk_worker_circuit_breaker_state", labels) == 0
    assert REGISTRY.get_sample_value("jobnik_sdk_worker_circuit_breaker_opens_total", labels) is not None


@pytest.mark.parametrize("text", ["later", "never", "snooze"])
async def test_decisions_of_a_handler_do_not_open_its_breaker(
    text: str, manager: ScriptedManager, task_json: Make
) -> None:
    """`RetryLater`, `DoNotRetry` and `Snooze` are decisions about a single task."""
    manager.claims.clear()
    manager.claims += [task_json(data={"text": text}) for _ in range(50)]
    received: list[Event] = []
    worker = _worker(manager, received.append, circuit_breaker=BreakerPolicy(min_calls=1, failure_rate=0.01))
    await manager.run_until_empty(worker)
    assert len(manager.reported) == 50
    assert BreakerOpened("words", "handler") not in received


@pytest.mark.usefixtures("pauses")  # the client would wait between its attempts at each claim
async def test_failing_claims_open_the_breaker_of_claims(manager: ScriptedManager) -> None:
    """After ten failed claims, the worker sends no more for a while."""

    def refuse_connection() -> None:
        raise httpx2.ConnectError("refused")

    manager.before_claim = refuse_connection
    received: list[Event] = []

    def stop(event: Event) -> None:
        received.append(event)
        worker.stop()

    worker = _worker(manager, stop)
    with capture_logs() as logs:
        await worker.run()
    assert received == [BreakerOpened("words", "dequeue")]
    (line,) = [line for line in logs if line["event"] == "circuit breaker opened"]
    assert (line["breaker"], line["stage_type"], line["pause_seconds"]) == ("dequeue", "words", 30)
