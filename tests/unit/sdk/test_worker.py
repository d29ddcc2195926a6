"""A worker on a scripted manager that has only part A of the protocol."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import structlog
from jobnik_sdk import (
    ConfigurationError,
    Handler,
    HandlerStyle,
    JobnikClient,
    StageType,
    TaskContext,
    Worker,
    WorkerSettings,
)
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.observability import trace_context
from pydantic import BaseModel
from structlog.testing import capture_logs

from tests.unit.sdk.script import STAGE_AND_JOB, ScriptedManager

Make = Callable[..., dict[str, Any]]
MILLISECOND = timedelta(milliseconds=1)


class Picture(BaseModel):
    """A task's data."""

    source: str = "a"


class Size(BaseModel):
    """A task's result."""

    width: int


pictures = StageType("pictures", task=Picture)
measured = StageType("measured", task=Picture, result=Size)


async def do_nothing(_task: Picture, _context: TaskContext) -> None:
    """Do nothing."""


def _worker(manager: ScriptedManager, function: Any = do_nothing, stage_type: Any = pictures, **options: Any) -> Worker:  # noqa: ANN401 passed on
    handler = Handler(stage_type, function, **options)
    return Worker(manager.client, [handler], poll_initial_delay=MILLISECOND, poll_max_delay=MILLISECOND)


async def test_tasks_are_run_and_reported(manager: ScriptedManager, task_json: Make) -> None:
    """The handler receives the data and the context, and its outcome is reported and logged."""
    seen: list[tuple[str, int, int]] = []

    async def handler(task: Picture, context: TaskContext) -> None:
        seen.append((task.source, context.attempt, context.max_attempts))

    task = task_json(data={"source": "b"}, attempts=1)
    manager.claims.append(task)
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager, handler))
    assert seen == [("b", 2, 3)]
    assert manager.reports == [(task["id"], '{"status":"COMPLETED"}')]
    events = [line["event"] for line in logs if line["log_level"] == "info"]
    assert events == ["worker started", "task completed", "worker draining", "worker stopped"]


async def test_responses_may_lack_optional_fields(
    manager: ScriptedManager, task_json: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claimed task, its stage and its job may have null or no metadata, and values that this SDK does not know."""
    seen: list[str] = []

    async def handler(_task: Picture, context: TaskContext) -> None:
        seen.append(f"{context.job.priority} {context.job.metadata} {context.stage.order}")

    task = task_json(traceparent=None, startTime="now", userMetadata=None, attempts="0", news=1, data={"source": "a"})
    del task["createdAt"], task["updatedAt"]
    stage, job = STAGE_AND_JOB["stages"] | {"order": "2", "userMetadata": None, "status": "NEW"}, STAGE_AND_JOB["jobs"]
    job = {name: value for name, value in job.items() if name != "userMetadata"} | {"priority": "NOW"}
    monkeypatch.setitem(STAGE_AND_JOB, "stages", stage)
    monkeypatch.setitem(STAGE_AND_JOB, "jobs", job)
    manager.claims.append(task)
    await manager.run_until_empty(_worker(manager, handler))
    assert (seen, manager.reported) == (["NOW {} 2"], ['{"status":"COMPLETED"}'])


class PeculiarError(BaseException):
    """An exception that `except Exception` does not catch."""


@pytest.mark.parametrize(
    "error", [ValueError("broken"), SystemExit(3), asyncio.CancelledError("inner"), PeculiarError("odd")]
)
async def test_a_handler_that_raises_fails_its_attempt(
    error: BaseException, manager: ScriptedManager, task_json: Make
) -> None:
    """Any exception fails only the attempt, and the worker continues with the next task."""

    async def handler(task: Picture, _context: TaskContext) -> None:
        if task.source == "bad":
            raise error

    bad, good = task_json(data={"source": "bad"}, attempts=2), task_json(data={"source": "good"})
    manager.claims.extend([bad, good])
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager, handler))
    assert manager.reports == [(bad["id"], '{"status":"FAILED"}'), (good["id"], '{"status":"COMPLETED"}')]
    line = next(line for line in logs if line["event"] == "task failed")
    assert (line["error_type"], line["error_message"]) == (type(error).__name__, str(error))
    assert type(error).__name__ in line["exception"]


async def test_a_task_that_does_not_fit_its_model_fails(manager: ScriptedManager, task_json: Make) -> None:
    """The attempt is reported as failed, the log names the field, and the worker continues."""
    bad, good = task_json(data={"source": 3}), task_json()
    manager.claims.extend([bad, good])
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager))
    assert manager.reports == [(bad["id"], '{"status":"FAILED"}'), (good["id"], '{"status":"COMPLETED"}')]
    line = next(line for line in logs if line["event"] == "task failed")
    assert line["error_message"].startswith("data.source: ")


async def test_a_result_that_does_not_fit_its_model_fails_the_attempt(
    manager: ScriptedManager, task_json: Make
) -> None:
    """Results are checked at run time as well."""

    async def handler(_task: Picture, _context: TaskContext) -> Size:
        return Size.model_construct(width="wide")

    task = task_json()
    manager.claims.append(task)
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager, handler, measured))
    assert manager.reports == [(task["id"], '{"status":"FAILED"}')]
    assert any(line.get("error_message", "").startswith("result.width: ") for line in logs)


async def test_claims_wait_for_a_free_slot(manager: ScriptedManager, task_json: Make) -> None:
    """With two slots, the third task is claimed when one of the first two has ended."""
    started: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def handler(_task: Picture, _context: TaskContext) -> None:
        end = asyncio.Event()
        started.put_nowait(end)
        await end.wait()

    manager.claims.extend(task_json() for _ in range(3))
    running = asyncio.create_task(manager.run_until_empty(_worker(manager, handler, concurrency=2)))
    first, second = await started.get(), await started.get()
    for _ in range(10):
        await asyncio.sleep(0)
    assert manager.claim_count == 2
    first.set()
    third = await started.get()
    assert manager.claim_count == 3
    second.set()
    third.set()
    await running
    assert len(manager.reports) == 3


async def test_failed_claims_are_retried(manager: ScriptedManager, task_json: Make, pauses: list[float]) -> None:
    """Refused connections, failures of the manager and unexpected responses do not end the worker."""
    manager.claims.extend(
        [*[httpx2.ConnectError("refused")] * 4, httpx2.Response(500), httpx2.Response(403), task_json()]
    )
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager))
    assert len(manager.reports) == 1
    assert [line["event"] for line in logs].count("claim failed") == 3
    assert len(pauses) == 3


async def test_empty_claims_back_off(
    manager: ScriptedManager, task_json: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of the delay doubles up to its maximum, and starts over after a task."""
    limits: list[float] = []
    empty = [httpx2.Response(404, json={"message": "None.", "code": "TASK_NOT_FOUND"}) for _ in range(4)]
    manager.claims.extend([*empty, task_json(), *empty[:1]])
    worker = Worker(
        manager.client,
        [Handler(pictures, do_nothing)],
        poll_initial_delay=timedelta(milliseconds=1),
        poll_max_delay=timedelta(milliseconds=5),
    )

    def no_delay(_low: float, high: float) -> float:
        limits.append(high)
        return 0

    monkeypatch.setattr("random.uniform", no_delay)
    await manager.run_until_empty(worker)
    assert limits == [0.001, 0.002, 0.004, 0.005, 0.001, 0.002]


async def test_a_report_is_repeated_until_it_is_accepted(
    manager: ScriptedManager, task_json: Make, pauses: list[float]
) -> None:
    """However long the manager is away, a completed task is never reported as failed."""
    task = task_json()
    manager.claims.append(task)
    manager.task = task
    manager.answers_to_reports.extend([httpx2.ConnectError("refused")] * 20)
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager))
    assert manager.reports[-1:] == [(task["id"], '{"status":"COMPLETED"}')]
    assert "FAILED" not in str(manager.reports)
    assert "report not delivered, retrying" in [line["event"] for line in logs]
    assert max(pauses) == 30.0


async def test_a_report_is_repeated_after_a_response_of_a_proxy(
    manager: ScriptedManager, task_json: Make, pauses: list[float]
) -> None:
    """A response that does not follow the protocol is no refusal; its `Retry-After` is respected."""
    task = task_json()
    manager.claims.append(task)
    manager.task = task
    manager.answers_to_reports.extend(
        [httpx2.Response(429, headers={"Retry-After": "7"}), httpx2.Response(404, text="No route.")]
    )
    await manager.run_until_empty(_worker(manager))
    assert manager.reports == [(task["id"], '{"status":"COMPLETED"}')]
    assert pauses[0] == 7


async def test_an_exception_without_a_message_fails_the_attempt(manager: ScriptedManager, task_json: Make) -> None:
    """An exception whose `__str__` raises does not end the worker."""

    class SilentError(Exception):
        def __str__(self) -> str:
            raise ValueError("silent")

    async def handler(_task: Picture, _context: TaskContext) -> None:
        raise SilentError

    manager.claims.append(task_json())
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager, handler))
    assert manager.reported == ['{"status":"FAILED"}']
    assert any(line.get("error_type") == "SilentError" for line in logs)


async def test_a_refused_report_is_logged(manager: ScriptedManager, task_json: Make) -> None:
    """A report that is refused for good has no other effect than a log line."""
    manager.claims.extend([task_json(), task_json()])
    manager.answers_to_reports.append(httpx2.Response(404, json={"message": "Gone.", "code": "TASK_NOT_FOUND"}))
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager))
    events = [line["event"] for line in logs]
    assert (events.count("report refused"), events.count("task completed"), len(manager.reports)) == (1, 2, 1)


async def test_a_claim_under_way_is_completed_when_the_worker_stops(manager: ScriptedManager, task_json: Make) -> None:
    """A task that the manager has handed out is run, even if the worker is stopping."""
    worker = _worker(manager)
    manager.claims.extend([task_json(), task_json()])
    manager.before_claim = worker.stop
    await asyncio.wait_for(worker.run(), 5)
    assert (manager.claim_count, len(manager.reports)) == (1, 1)


async def test_running_tasks_finish_when_the_worker_stops(manager: ScriptedManager, task_json: Make) -> None:
    """A stop, even a repeated one, lets running tasks end and be reported; no further tasks are claimed."""
    begun, end = asyncio.Event(), asyncio.Event()

    async def handler(_task: Picture, _context: TaskContext) -> None:
        begun.set()
        await end.wait()

    worker = _worker(manager, handler)
    manager.claims.extend([task_json(), task_json()])
    running = asyncio.create_task(worker.run())
    await begun.wait()
    assert worker.ready
    worker.stop()
    worker.stop()
    assert not worker.ready
    assert not manager.reports
    end.set()
    await running
    assert (manager.claim_count, len(manager.reports)) == (1, 1)
    worker.stop()


async def test_stop_works_from_another_thread(manager: ScriptedManager) -> None:
    """A worker that waits for its next claim stops at once."""
    claimed = asyncio.Event()
    manager.on_empty = claimed.set
    worker = Worker(manager.client, [Handler(pictures, do_nothing)], poll_initial_delay=timedelta(minutes=1))
    running = asyncio.create_task(worker.run())
    await claimed.wait()
    threading.Thread(target=worker.stop).start()
    await asyncio.wait_for(running, 5)


async def test_a_worker_that_was_stopped_before_it_started_claims_nothing(manager: ScriptedManager) -> None:
    """It returns at once."""
    worker = _worker(manager)
    worker.stop()
    await worker.run()
    assert manager.claim_count == 0


async def test_plain_functions_run_in_threads(manager: ScriptedManager, task_json: Make) -> None:
    """Two handlers of style THREAD run at the same time, outside the event loop's thread, each in its task's trace."""
    meeting = threading.Barrier(2, timeout=5)
    seen: list[tuple[str | None, str]] = []

    def handler(_task: Picture, context: TaskContext) -> None:
        meeting.wait()
        assert threading.current_thread() is not threading.main_thread()
        seen.append((trace_context.current_traceparent(), context.traceparent))

    manager.claims.extend(
        [task_json(traceparent=trace_context.generate()), task_json(traceparent=trace_context.generate())]
    )
    await manager.run_until_empty(_worker(manager, handler, concurrency=2, style=HandlerStyle.THREAD))
    assert set(manager.reported) == {'{"status":"COMPLETED"}'}
    assert len(seen) == 2
    assert all(current == of_task for current, of_task in seen)


async def test_an_exception_in_a_thread_fails_the_attempt(manager: ScriptedManager, task_json: Make) -> None:
    """Even SystemExit fails only the attempt."""

    def handler(_task: Picture, _context: TaskContext) -> None:
        raise SystemExit(1)

    manager.claims.append(task_json())
    await manager.run_until_empty(_worker(manager, handler, style=HandlerStyle.THREAD))
    assert manager.reported == ['{"status":"FAILED"}']


async def test_the_context_has_the_metadata_of_the_task(manager: ScriptedManager, task_json: Make) -> None:
    """The metadata is an instance of the stage type's model."""
    seen: list[int] = []

    async def handler(_task: Picture, context: TaskContext[Size]) -> None:
        seen.append(context.metadata.width)

    manager.claims.append(task_json(userMetadata={"width": 7}))
    await manager.run_until_empty(_worker(manager, handler, StageType("s", task=Picture, task_metadata=Size)))
    assert seen == [7]


def test_invalid_options_are_errors(manager: ScriptedManager) -> None:
    """They are found when the worker is created."""
    with pytest.raises(ConfigurationError, match="'pictures' has two"):
        Worker(manager.client, [Handler(pictures, do_nothing)] * 2)


async def test_worker_without_handlers_does_not_start(manager: ScriptedManager) -> None:
    """They can be added after it was created, so this is found when it starts."""
    with pytest.raises(ConfigurationError, match="at least one handler"):
        await Worker(manager.client).run()


async def test_decorator_adds_a_handler(manager: ScriptedManager, task_json: Make) -> None:
    """The function itself stays as it is, and the options are those of `Handler`."""
    worker = Worker(manager.client)

    @worker.handler(pictures, concurrency=7, timeout=timedelta(minutes=1))
    async def count(_task: Picture, _context: TaskContext) -> None:
        calls.append("count")

    calls: list[str] = []
    manager.claims.append(task_json())
    await manager.run_until_empty(worker)
    assert calls == ["count"]
    assert worker.handlers == (Handler(pictures, count, concurrency=7, timeout=timedelta(minutes=1)),)


def test_decorator_refuses_what_a_handler_refuses(manager: ScriptedManager) -> None:
    """And a second handler for a stage type."""
    worker = Worker(manager.client)
    add: Any = worker.handler(pictures, style=HandlerStyle.THREAD)
    with pytest.raises(ConfigurationError, match="must be a plain function"):
        add(do_nothing)
    with pytest.raises(TypeError, match="stage_type"):
        add = worker.handler(do_nothing)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] without parentheses
    worker.handler(pictures)(do_nothing)
    with pytest.raises(ConfigurationError, match="'pictures' has two"):
        worker.handler(pictures)(do_nothing)


async def test_running_worker_takes_no_further_handlers(manager: ScriptedManager, task_json: Make) -> None:
    """It would never claim their tasks."""
    worker = Worker(manager.client)
    errors: list[str] = []

    @worker.handler(pictures)
    async def add_another(_task: Picture, _context: TaskContext) -> None:
        try:
            worker.handler(StageType("late", task=Picture))(do_nothing)
        except ConfigurationError as error:
            errors.append(str(error))

    manager.claims.append(task_json())
    await manager.run_until_empty(worker)
    assert errors == ["The worker is running: add the handler for 'late' before it starts."]


def test_settings_are_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them that a worker has: nothing is left for the caller to pass on."""
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://manager:1")
    monkeypatch.setenv("WORKER_DRAIN_SECONDS", "10")
    created: dict[str, Any] = {}

    class Recorded(Worker):
        def __init__(self, client: JobnikClient, handlers: Sequence[AnyHandler] = (), **options: Any) -> None:  # noqa: ANN401 recorded
            created.update(options, url=client.base_url, handlers=handlers)

    handlers = [Handler(pictures, do_nothing)]
    Recorded.from_settings(WorkerSettings(), handlers)
    assert created == {
        "url": "http://manager:1",
        "handlers": handlers,
        "middleware": (),
        "listeners": (),
        "lease": timedelta(seconds=30),
        "drain_timeout": timedelta(seconds=9),
        "poll_initial_delay": timedelta(seconds=1),
        "poll_max_delay": timedelta(minutes=1),
    }


async def test_ticks_show_that_the_event_loop_runs(manager: ScriptedManager) -> None:
    """The first tick follows at once, for the startup probe; there are none after the end."""
    ticks: list[bool] = []
    worker = _worker(manager)
    worker.on_tick(lambda: ticks.append(worker.ready))
    await manager.run_until_empty(worker)
    assert ticks == [False]


async def test_a_log_line_that_cannot_be_written_stops_nothing(manager: ScriptedManager, task_json: Make) -> None:
    """With a closed output, tasks are claimed, run and reported as usual."""

    class ClosedOutput:
        def __getattr__(self, _name: str) -> Callable[..., None]:
            def write(*_arguments: object) -> None:
                raise BrokenPipeError

            return write

    async def handler(task: Picture, _context: TaskContext) -> None:
        if task.source == "bad":
            raise ValueError

    manager.claims.extend([task_json(), httpx2.Response(403), task_json(data={"source": "bad"}), task_json()])
    structlog.configure(logger_factory=lambda *_names: ClosedOutput(), cache_logger_on_first_use=False)
    try:
        await manager.run_until_empty(_worker(manager, handler))
    finally:
        structlog.reset_defaults()
    assert manager.reported == ['{"status":"COMPLETED"}', '{"status":"FAILED"}', '{"status":"COMPLETED"}']


async def test_an_error_after_an_attempt_does_not_stop_its_report(
    manager: ScriptedManager, task_json: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even an error of a metric does not stop it."""

    def fail(*_arguments: object) -> None:
        raise ValueError("odd")

    manager.claims.append(task_json())
    monkeypatch.setattr("jobnik_sdk.observability.metrics.StageMetrics.record_attempt", fail)
    with capture_logs() as logs:
        await manager.run_until_empty(_worker(manager))
    assert manager.reported == ['{"status":"COMPLETED"}']
    assert "unexpected error after an attempt" in [line["event"] for line in logs]


def test_a_forked_worker_has_an_id_of_its_own(manager: ScriptedManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, one copy could end the leases of the other. In one process, the id stays the same."""
    worker = _worker(manager)
    original = worker.id
    monkeypatch.setattr("os.getpid", lambda: 7)
    copy = worker.id
    assert (worker.id, copy.rpartition("-")[0].rpartition("-")[2]) == (copy, "7")
    assert copy != original
    monkeypatch.undo()
    assert worker.id == original
    monkeypatch.setattr("platform.node", lambda: "h" * 300)
    assert len(_worker(manager).id) <= 200
