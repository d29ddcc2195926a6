"""The loop of a worker, on a scripted wire."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from jobnik_sdk import ConfigurationError, Handler, HandlerStyle, StageType, TaskContext, Worker
from jobnik_sdk.observability import trace_context
from pydantic import BaseModel
from structlog.testing import capture_logs

from tests.unit.sdk.script import Script

Make = Callable[..., dict[str, Any]]
_BLINK = timedelta(milliseconds=1)


class Picture(BaseModel):
    """A task's data."""

    source: str = "a"


class Size(BaseModel):
    """A task's result."""

    width: int


pictures = StageType("pictures", task=Picture)
measured = StageType("measured", task=Picture, result=Size)


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    """The other end of a worker's client."""
    script = Script()
    yield script
    await script.client.aclose()


async def nothing(_task: Picture, _context: TaskContext) -> None:
    """Do nothing."""


def _worker(script: Script, function: Any = nothing, stage_type: Any = pictures, **options: Any) -> Worker:  # noqa: ANN401 passed on
    handler = Handler(stage_type, function, **options)
    return Worker(script.client, [handler], poll_initial_delay=_BLINK, poll_max_delay=_BLINK)


async def test_tasks_are_handled_and_reported(script: Script, task_json: Make) -> None:
    """The handler gets the data and the context, and its end is reported."""
    seen: list[tuple[str, int, int]] = []

    async def handler(task: Picture, context: TaskContext) -> None:
        seen.append((task.source, context.attempt, context.max_attempts))

    task = task_json(data={"source": "b"}, attempts=1)
    script.claims.append(task)
    with capture_logs() as logs:
        await script.work(_worker(script, handler))
    assert seen == [("b", 2, 3)]
    assert script.said == [(task["id"], '{"status":"COMPLETED"}')]
    told = [line["event"] for line in logs if line["log_level"] == "info"]
    assert told == ["worker started", "task completed", "worker drains", "worker stopped"]


class PeculiarError(BaseException):
    """What nobody catches by accident."""


@pytest.mark.parametrize(
    "error", [ValueError("broken"), SystemExit(3), asyncio.CancelledError("inner"), PeculiarError("odd")]
)
async def test_handler_that_raises_fails_its_attempt(error: BaseException, script: Script, task_json: Make) -> None:
    """Whatever a handler raises, its attempt is reported as failed and the next task is worked on."""

    async def handler(task: Picture, _context: TaskContext) -> None:
        if task.source == "bad":
            raise error

    bad, good = task_json(data={"source": "bad"}), task_json(data={"source": "good"})
    script.claims.extend([bad, good])
    with capture_logs() as logs:
        await script.work(_worker(script, handler))
    assert script.said == [(bad["id"], '{"status":"FAILED"}'), (good["id"], '{"status":"COMPLETED"}')]
    line = next(line for line in logs if line["event"] == "task failed")
    assert (line["error_type"], line["error_message"]) == (type(error).__name__, str(error))
    assert type(error).__name__ in line["exception"]


async def test_task_that_does_not_fit_fails_its_attempt(script: Script, task_json: Make) -> None:
    """A task with wrong data is reported as failed with a line that names the field; the worker goes on."""
    bad, good = task_json(data={"source": 3}), task_json()
    script.claims.extend([bad, good])
    with capture_logs() as logs:
        await script.work(_worker(script))
    assert script.said == [(bad["id"], '{"status":"FAILED"}'), (good["id"], '{"status":"COMPLETED"}')]
    line = next(line for line in logs if line["event"] == "task failed")
    assert line["error_message"].startswith("data.source: ")


async def test_wrong_result_fails_its_attempt(script: Script, task_json: Make) -> None:
    """A result is checked against its model, even where the type checker was not asked."""

    async def handler(_task: Picture, _context: TaskContext) -> Size:
        return Size.model_construct(width="wide")

    task = task_json()
    script.claims.append(task)
    with capture_logs() as logs:
        await script.work(_worker(script, handler, measured))
    assert script.said == [(task["id"], '{"status":"FAILED"}')]
    assert any(line.get("error_message", "").startswith("result.width: ") for line in logs)


async def test_claims_wait_for_a_free_slot(script: Script, task_json: Make) -> None:
    """With two slots the third task is claimed only when one of the first two has ended."""
    started: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def handler(_task: Picture, _context: TaskContext) -> None:
        end = asyncio.Event()
        started.put_nowait(end)
        await end.wait()

    script.claims.extend(task_json() for _ in range(3))
    working = asyncio.create_task(script.work(_worker(script, handler, concurrency=2)))
    first, second = await started.get(), await started.get()
    for _ in range(10):
        await asyncio.sleep(0)
    assert script.polls == 2
    first.set()
    third = await started.get()
    assert script.polls == 3
    second.set()
    third.set()
    await working
    assert len(script.said) == 3


async def test_worker_outlives_the_managers_troubles(script: Script, task_json: Make, pauses: list[float]) -> None:
    """Refused connections, failures and foreign answers are waited out."""
    script.claims.extend(
        [*[httpx2.ConnectError("refused")] * 4, httpx2.Response(500), httpx2.Response(403), task_json()]
    )
    with capture_logs() as logs:
        await script.work(_worker(script))
    assert len(script.said) == 1
    assert [line["event"] for line in logs].count("claim failed") == 3
    assert len(pauses) == 3


async def test_empty_polls_back_off_until_there_is_work(
    script: Script, task_json: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait doubles up to its maximum, and begins anew after a task."""
    waits: list[float] = []
    empty = [httpx2.Response(404, json={"message": "None.", "code": "TASK_NOT_FOUND"}) for _ in range(4)]
    script.claims.extend([*empty, task_json(), *empty[:1]])
    worker = Worker(
        script.client,
        [Handler(pictures, nothing)],
        poll_initial_delay=timedelta(milliseconds=1),
        poll_max_delay=timedelta(milliseconds=5),
    )

    def longest(_low: float, high: float) -> float:
        waits.append(high)
        return 0

    monkeypatch.setattr("random.uniform", longest)
    await script.work(worker)
    assert waits == [0.001, 0.002, 0.004, 0.005, 0.001, 0.002]


async def test_report_is_said_until_it_is_heard(script: Script, task_json: Make, pauses: list[float]) -> None:
    """However long the manager is away, a finished task is never reported as failed."""
    task = task_json()
    script.claims.append(task)
    script.task = task
    script.reports.extend([httpx2.ConnectError("refused")] * 20)
    with capture_logs() as logs:
        await script.work(_worker(script))
    assert script.said[-1:] == [(task["id"], '{"status":"COMPLETED"}')]
    assert "FAILED" not in str(script.said)
    assert [line["event"] for line in logs].count("report not delivered yet") == 20
    assert max(pauses) == 30.0


async def test_report_outlives_a_proxys_answers(script: Script, task_json: Make, pauses: list[float]) -> None:
    """Who answers without the protocol's shape is not the manager, so the report is said again, when it asked to."""
    task = task_json()
    script.claims.append(task)
    script.task = task
    script.reports.extend([httpx2.Response(429, headers={"Retry-After": "7"}), httpx2.Response(404, text="No route.")])
    await script.work(_worker(script))
    assert script.said == [(task["id"], '{"status":"COMPLETED"}')]
    assert pauses[0] == 7


async def test_exception_without_words_fails_its_attempt(script: Script, task_json: Make) -> None:
    """Not even an exception that cannot be shown as text ends the worker."""

    class SilentError(Exception):
        def __str__(self) -> str:
            raise ValueError("silent")

    async def handler(_task: Picture, _context: TaskContext) -> None:
        raise SilentError

    script.claims.append(task_json())
    with capture_logs() as logs:
        await script.work(_worker(script, handler))
    assert [said for _, said in script.said] == ['{"status":"FAILED"}']
    assert any(line.get("error_type") == "SilentError" for line in logs)


async def test_refused_report_is_told(script: Script, task_json: Make) -> None:
    """A report that is refused for good ends in one line, not in a failed task or a dead worker."""
    script.claims.extend([task_json(), task_json()])
    script.reports.append(httpx2.Response(404, json={"message": "Gone.", "code": "TASK_NOT_FOUND"}))
    with capture_logs() as logs:
        await script.work(_worker(script))
    told = [line["event"] for line in logs]
    assert (told.count("report refused"), told.count("task completed"), len(script.said)) == (1, 2, 1)


async def test_claim_under_way_is_kept_when_the_worker_stops(script: Script, task_json: Make) -> None:
    """A task that was handed out while the worker was told to stop is run, not stranded."""
    worker = _worker(script)
    script.claims.extend([task_json(), task_json()])
    script.before_claim = worker.stop
    await asyncio.wait_for(worker.run(), 5)
    assert (script.polls, len(script.said)) == (1, 1)


async def test_running_tasks_finish_when_the_worker_stops(script: Script, task_json: Make) -> None:
    """Stopping, also twice, lets running tasks end and be reported; no more are claimed."""
    begun, end = asyncio.Event(), asyncio.Event()

    async def handler(_task: Picture, _context: TaskContext) -> None:
        begun.set()
        await end.wait()

    worker = _worker(script, handler)
    script.claims.extend([task_json(), task_json()])
    working = asyncio.create_task(worker.run())
    await begun.wait()
    assert worker.ready
    worker.stop()
    worker.stop()
    assert not worker.ready
    assert not script.said
    end.set()
    await working
    assert (script.polls, len(script.said)) == (1, 1)
    worker.stop()


async def test_stop_wakes_a_resting_worker_from_another_thread(script: Script) -> None:
    """A worker that waits a minute for work stops at once."""
    polled = asyncio.Event()
    script.when_empty = polled.set
    worker = Worker(script.client, [Handler(pictures, nothing)], poll_initial_delay=timedelta(minutes=1))
    working = asyncio.create_task(worker.run())
    await polled.wait()
    threading.Thread(target=worker.stop).start()
    await asyncio.wait_for(working, 5)


async def test_stopped_worker_does_not_begin(script: Script) -> None:
    """Stopped before it ran, a worker claims nothing."""
    worker = _worker(script)
    worker.stop()
    await worker.run()
    assert script.polls == 0


async def test_threads_run_plain_functions(script: Script, task_json: Make) -> None:
    """Two handlers of style THREAD run at the same time, off the event loop's thread, each in its task's trace."""
    meeting = threading.Barrier(2, timeout=5)
    seen: list[tuple[str | None, str]] = []

    def handler(_task: Picture, context: TaskContext) -> None:
        meeting.wait()
        assert threading.current_thread() is not threading.main_thread()
        seen.append((trace_context.current_traceparent(), context.traceparent))

    script.claims.extend(
        [task_json(traceparent=trace_context.generate()), task_json(traceparent=trace_context.generate())]
    )
    await script.work(_worker(script, handler, concurrency=2, style=HandlerStyle.THREAD))
    assert {said for _, said in script.said} == {'{"status":"COMPLETED"}'}
    assert len(seen) == 2
    assert all(current == of_task for current, of_task in seen)


async def test_thread_that_raises_fails_its_attempt(script: Script, task_json: Make) -> None:
    """Also SystemExit in a thread is no more than a failed attempt."""

    def handler(_task: Picture, _context: TaskContext) -> None:
        raise SystemExit(1)

    script.claims.append(task_json())
    await script.work(_worker(script, handler, style=HandlerStyle.THREAD))
    assert [said for _, said in script.said] == ['{"status":"FAILED"}']


async def test_task_metadata_reaches_the_handler(script: Script, task_json: Make) -> None:
    """The context carries the metadata of the task, typed."""
    seen: list[int] = []

    async def handler(_task: Picture, context: TaskContext[Size]) -> None:
        seen.append(context.metadata.width)

    script.claims.append(task_json(userMetadata={"width": 7}))
    await script.work(_worker(script, handler, StageType("s", task=Picture, task_metadata=Size)))
    assert seen == [7]


def test_impossible_workers_are_refused(script: Script) -> None:
    """What can never work is said when the worker is made."""
    with pytest.raises(ConfigurationError, match="at least one handler"):
        Worker(script.client, [])
    with pytest.raises(ConfigurationError, match="pictures, pictures"):
        Worker(script.client, [Handler(pictures, nothing)] * 2)
