"""Contexts of attempts: progress, checkpoints, cancellation, and access to the manager."""

import asyncio
import json
import math
import pickle
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx2
import pytest
from jobnik_sdk import (
    Cancelled,
    ConfigurationError,
    Empty,
    InvalidPayloadError,
    JobInfo,
    JobnikClient,
    Priority,
    StageInfo,
    TaskContext,
    UnreachableError,
)
from jobnik_sdk.execution.access import ProcessAccess, WorkerAccess
from jobnik_sdk.execution.cancellation import Cancellation
from jobnik_sdk.execution.progress import Checkpoint, ProgressUpdate
from jobnik_sdk.observability import trace_context
from pydantic import BaseModel
from structlog.testing import capture_logs

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire


class Mark(BaseModel):
    """Metadata of tasks, stages and jobs."""

    by: str


@pytest.fixture
def context() -> TaskContext:
    """The context of an attempt."""
    return TaskContext(
        job=JobInfo(UUID(int=1), "gallery", Priority.HIGH, {"title": "a"}, {}),
        stage=StageInfo(UUID(int=2), "pictures", 1, Empty(), Empty()),
        task_id=UUID(int=3),
        attempt=2,
        max_attempts=3,
        metadata=Empty(),
        traceparent="",
    )


def _fraction(context: TaskContext) -> float:
    assert context.state.progress is not None
    return context.state.progress.fraction


def test_logger_adds_the_ids_of_the_task(context: TaskContext) -> None:
    """Each line of the context's logger contains the ids and the attempt."""
    with capture_logs() as logs:
        context.logger.info("picture read", size=3)
    (line,) = logs
    assert {key: line[key] for key in context.ids} == {
        "task_id": str(UUID(int=3)),
        "stage_id": str(UUID(int=2)),
        "job_id": str(UUID(int=1)),
        "stage_type": "pictures",
        "attempt": 2,
    }


def test_pickled_context_has_its_own_cancellation_and_state(context: TaskContext) -> None:
    """A copy in another process describes the same task, with a new cancellation and a new state."""
    context.cancellation.request("drain")
    context.progress(0.5)
    copy: TaskContext = pickle.loads(pickle.dumps(context))  # noqa: S301 our own
    assert (copy.ids, copy.job, copy.stage, copy.metadata) == (context.ids, context.job, context.stage, Empty())
    assert not copy.cancellation.requested
    assert copy.state.progress is None


@pytest.mark.parametrize(
    ("given", "recorded"), [(0.5, 0.5), (-1, 0.0), (1.5, 1.0), (math.nan, 0.0), (math.inf, 1.0), (0, 0.0)]
)
def test_progress_is_clamped(context: TaskContext, given: float, recorded: float) -> None:
    """A fraction outside 0 to 1 is replaced by the nearest limit."""
    context.progress(given, "reading", timedelta(seconds=7))
    assert context.state.progress == ProgressUpdate(recorded, "reading", timedelta(seconds=7))


def test_progress_is_within_the_limits_of_the_protocol(context: TaskContext) -> None:
    """A long message is cut, and the remaining time is between 0 and a year."""
    context.progress(0.5, "x" * 600 + "\0", timedelta(seconds=-1))
    assert context.state.progress == ProgressUpdate(0.5, "x" * 500, timedelta())
    context.progress(0.5, "\0", timedelta(days=1000))
    assert context.state.progress == ProgressUpdate(0.5, "\N{REPLACEMENT CHARACTER}", timedelta(days=365))


def test_phases_contribute_by_weight(context: TaskContext) -> None:
    """Each phase starts where the previous one ended, and advances the task by its weight."""
    with context.phase("download", weight=2, of=8) as download:
        assert context.state.progress == ProgressUpdate(0.0, "download")
        download.progress(0.5, "a.png")
        assert context.state.progress == ProgressUpdate(0.125, "download: a.png")
    assert _fraction(context) == 0.25
    with context.phase("convert", weight=6, of=8) as convert:
        assert context.state.progress == ProgressUpdate(0.25, "convert")
        for name in ("first", "second"):
            with convert.phase(name, weight=1, of=2) as half:
                half.progress(0.5)
        assert context.state.progress == ProgressUpdate(1.0, "convert: second")
    assert _fraction(context) == 1.0


def test_failed_phase_is_not_completed(context: TaskContext) -> None:
    """An exception ends a phase without completing it. The next phase still starts after it."""
    with suppress(ValueError), context.phase("download", weight=0.5) as download:
        download.progress(0.5)
        raise ValueError("broken")
    assert _fraction(context) == 0.25
    with context.phase("convert", weight=0.5):
        assert _fraction(context) == 0.5


def test_checkpoint_is_json(context: TaskContext) -> None:
    """The latest checkpoint is stored as JSON; a value without a JSON representation is rejected."""
    context.save_checkpoint({"row": 7})
    context.save_checkpoint({"row": 8})
    latest = Checkpoint(b'{"row": 8}')
    assert context.state.checkpoint == latest
    for wrong in ({1, 2}, math.nan, "\ud800"):
        with pytest.raises(InvalidPayloadError, match="checkpoint: "):
            context.save_checkpoint(wrong)  # pyright: ignore[reportArgumentType] on purpose
    assert context.state.checkpoint == latest


def test_first_reason_is_kept() -> None:
    """After a second request the first reason stays, and callbacks are called once."""
    cancellation, calls = Cancellation(), list[str]()
    cancellation.on_request(lambda: calls.append(str(cancellation.reason)))
    assert (cancellation.requested, cancellation.reason) == (False, None)
    cancellation.raise_if_requested()
    cancellation.request("drain")
    cancellation.request("timeout")
    assert (cancellation.requested, cancellation.reason, calls) == (True, "drain", ["drain"])
    with pytest.raises(Cancelled, match="drain") as raised:
        cancellation.raise_if_requested()
    assert raised.value.reason == "drain"


def test_late_callback_is_called_immediately() -> None:
    """A callback that is added after the request is called at once; a removed callback is not called."""
    cancellation, calls = Cancellation(), list[str]()

    def callback() -> None:
        calls.append("first")

    cancellation.on_request(callback)
    cancellation.remove_callback(callback)
    cancellation.remove_callback(callback)
    cancellation.request("drain")
    assert calls == []
    cancellation.on_request(callback)
    assert calls == ["first"]


def test_wait_ends_with_the_request() -> None:
    """A wait ends when the attempt is cancelled, or after its timeout."""
    cancellation = Cancellation()
    assert not cancellation.wait(timedelta())
    threading.Thread(target=cancellation.request, args=("drain",)).start()
    assert cancellation.wait()
    assert cancellation.wait()


def test_cancelled_is_not_an_exception() -> None:
    """`except Exception` does not catch a cancellation."""
    assert not issubclass(Cancelled, Exception)


async def test_metadata_is_replaced(context: TaskContext, wire: "Wire") -> None:
    """The metadata of task, stage and job is sent as a whole, each to its own path."""
    wire.will_answer(*(httpx2.Response(200, json={"code": "DONE"}) for _ in range(4)))
    current: Any = replace(
        context, metadata=Mark(by="nobody"), stage=replace(context.stage, metadata=Mark(by="nobody"))
    )
    current = replace(current, access=WorkerAccess(wire.client))
    await current.set_task_metadata(Mark(by="task"))
    await current.set_stage_metadata(Mark(by="stage"))
    await current.set_job_metadata(Mark(by="job"))
    await current.set_job_metadata({"pages": [1, 2]})
    assert wire.sent == [
        f"PATCH /v1/tasks/{UUID(int=3)}/user-metadata",
        f"PATCH /v1/stages/{UUID(int=2)}/user-metadata",
        f"PATCH /v1/jobs/{UUID(int=1)}/user-metadata",
        f"PATCH /v1/jobs/{UUID(int=1)}/user-metadata",
    ]
    bodies = [json.loads(request.content) for request in wire.requests]
    assert bodies == [{"by": "task"}, {"by": "stage"}, {"by": "job"}, {"pages": [1, 2]}]


async def test_invalid_metadata_is_rejected(context: TaskContext, wire: "Wire") -> None:
    """Metadata of another model, or without a JSON representation, is not sent."""
    current = replace(context, access=WorkerAccess(wire.client))
    wrong: list[Any] = [{"by": "task"}, Mark(by="task")]
    for metadata in wrong:
        with pytest.raises(InvalidPayloadError, match="metadata: must be of type Empty, not "):
            await current.set_task_metadata(metadata)
    wrong = [{"by": object()}, 7, "by"]
    for metadata in wrong:
        with pytest.raises(InvalidPayloadError, match="metadata"):
            await current.set_job_metadata(metadata)
    assert wire.sent == []


async def test_wait_in_a_coroutine_is_rejected(context: TaskContext, wire: "Wire") -> None:
    """A wait on the event loop itself would never end."""
    current = replace(context, access=WorkerAccess(wire.client))
    with pytest.raises(ConfigurationError, match="use await in a coroutine"):
        current.wait(asyncio.sleep(1))


def test_context_without_a_manager(context: TaskContext) -> None:
    """A context without access to a manager raises an error that says what to use instead."""
    with pytest.raises(ConfigurationError, match="no access to a manager"):
        _ = context.producer


def test_wait_in_a_process(context: TaskContext) -> None:
    """With a connection of its own, a wait is cancelled as usual, and the awaitable belongs to the attempt's trace."""
    access = ProcessAccess(lambda: JobnikClient("http://127.0.0.1:1"))
    current = replace(context, access=access, traceparent=trace_context.generate())

    async def request() -> str | None:
        with pytest.raises(UnreachableError):
            await current.producer.get_summary(current.stage.id)
        return trace_context.current_traceparent()

    try:
        assert current.wait(request()) == current.traceparent
        threading.Timer(0.05, current.cancellation.request, ["drain"]).start()
        with pytest.raises(Cancelled, match="drain"):
            current.wait(asyncio.sleep(1000))
        assert current.wait(asyncio.sleep(0, "cleaned up")) == "cleaned up"
    finally:
        access.close()


def test_cancellation_is_raised_once() -> None:
    """In the handler's thread `Cancelled` is raised once; in other threads, on every check."""
    cancellation = Cancellation()
    cancellation.bind_thread()
    cancellation.raise_if_due()
    cancellation.request("drain")
    with pytest.raises(Cancelled):
        cancellation.raise_if_due()
    cancellation.raise_if_due()
    assert not cancellation.claim_raise()
    with pytest.raises(Cancelled):
        cancellation.raise_if_requested()
    raised: list[BaseException] = []

    def check() -> None:
        try:
            cancellation.raise_if_due()
        except Cancelled as error:
            raised.append(error)

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert len(raised) == 1
