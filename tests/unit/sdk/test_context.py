"""What a handler sees, notes and is asked."""

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
from jobnik_sdk.execution.progress import Checkpoint, Progress
from jobnik_sdk.observability import trace_context
from pydantic import BaseModel
from structlog.testing import capture_logs

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire


class Mark(BaseModel):
    """Metadata."""

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
    assert context.notes.progress is not None
    return context.notes.progress.fraction


def test_logger_says_which_task(context: TaskContext) -> None:
    """Each line of the context's logger carries the ids and the attempt."""
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


def test_pickled_context_leaves_its_conversation_behind(context: TaskContext) -> None:
    """Elsewhere a context says the same of the task, and has a cancellation and notes of its own."""
    context.cancellation.request("drain")
    context.progress(0.5)
    copy: TaskContext = pickle.loads(pickle.dumps(context))  # noqa: S301 our own
    assert (copy.ids, copy.job, copy.stage, copy.metadata) == (context.ids, context.job, context.stage, Empty())
    assert not copy.cancellation.requested
    assert copy.notes.progress is None


@pytest.mark.parametrize(
    ("given", "noted"), [(0.5, 0.5), (-1, 0.0), (1.5, 1.0), (math.nan, 0.0), (math.inf, 1.0), (0, 0.0)]
)
def test_progress_is_a_fraction(context: TaskContext, given: float, noted: float) -> None:
    """What is outside of 0 to 1 is its nearest end."""
    context.progress(given, "reading", timedelta(seconds=7))
    assert context.notes.progress == Progress(noted, "reading", timedelta(seconds=7))


def test_progress_fits_the_protocol(context: TaskContext) -> None:
    """A long message is cut, and a time left is between nothing and a year."""
    context.progress(0.5, "x" * 600 + "\0", timedelta(seconds=-1))
    assert context.notes.progress == Progress(0.5, "x" * 500, timedelta())
    context.progress(0.5, "\0", timedelta(days=1000))
    assert context.notes.progress == Progress(0.5, "\N{REPLACEMENT CHARACTER}", timedelta(days=365))


def test_phases_add_up(context: TaskContext) -> None:
    """Each phase begins where the one before it ended, and moves the whole by its weight."""
    with context.phase("download", weight=2, of=8) as download:
        assert context.notes.progress == Progress(0.0, "download")
        download.progress(0.5, "a.png")
        assert context.notes.progress == Progress(0.125, "download: a.png")
    assert _fraction(context) == 0.25
    with context.phase("convert", weight=6, of=8) as convert:
        assert context.notes.progress == Progress(0.25, "convert")
        for name in ("first", "second"):
            with convert.phase(name, weight=1, of=2) as half:
                half.progress(0.5)
        assert context.notes.progress == Progress(1.0, "convert: second")
    assert _fraction(context) == 1.0


def test_phase_that_fails_stays_where_it_was(context: TaskContext) -> None:
    """An exception ends a phase without completing it; the next one begins after it all the same."""
    with suppress(ValueError), context.phase("download", weight=0.5) as download:
        download.progress(0.5)
        raise ValueError("broken")
    assert _fraction(context) == 0.25
    with context.phase("convert", weight=0.5):
        assert _fraction(context) == 0.5


def test_checkpoint_is_json(context: TaskContext) -> None:
    """The newest checkpoint is kept as a document; what cannot be said in JSON is refused."""
    context.save_checkpoint({"row": 7})
    context.save_checkpoint({"row": 8})
    newest = Checkpoint(b'{"row": 8}')
    assert context.notes.checkpoint == newest
    for wrong in ({1, 2}, math.nan, "\ud800"):
        with pytest.raises(InvalidPayloadError, match="checkpoint: "):
            context.save_checkpoint(wrong)  # pyright: ignore[reportArgumentType] what is tested
    assert context.notes.checkpoint == newest


def test_first_reason_counts() -> None:
    """Asked to end twice, an attempt ends for the first reason, and those who listen hear of it once."""
    cancellation, heard = Cancellation(), list[str]()
    cancellation.on_request(lambda: heard.append(str(cancellation.reason)))
    assert (cancellation.requested, cancellation.reason) == (False, None)
    cancellation.raise_if_requested()
    cancellation.request("drain")
    cancellation.request("timeout")
    assert (cancellation.requested, cancellation.reason, heard) == (True, "drain", ["drain"])
    with pytest.raises(Cancelled, match="drain") as raised:
        cancellation.raise_if_requested()
    assert raised.value.reason == "drain"


def test_listener_that_comes_late_hears_at_once() -> None:
    """Who listens after the request is called there and then; who has left is not."""
    cancellation, heard = Cancellation(), list[str]()

    def listen() -> None:
        heard.append("first")

    cancellation.on_request(listen)
    cancellation.forget(listen)
    cancellation.forget(listen)
    cancellation.request("drain")
    assert heard == []
    cancellation.on_request(listen)
    assert heard == ["first"]


def test_waiting_ends_with_the_request() -> None:
    """Who waits for a cancellation goes on when it is requested, or when his time is over."""
    cancellation = Cancellation()
    assert not cancellation.wait(timedelta())
    threading.Thread(target=cancellation.request, args=("drain",)).start()
    assert cancellation.wait()
    assert cancellation.wait()


def test_cancelled_passes_ordinary_handling() -> None:
    """Code that catches every Exception does not catch a cancellation."""
    assert not issubclass(Cancelled, Exception)


async def test_metadata_is_replaced(context: TaskContext, wire: "Wire") -> None:
    """The metadata of task, stage and job is sent as a whole, each to its own place."""
    wire.will_answer(*(httpx2.Response(200, json={"code": "DONE"}) for _ in range(4)))
    marked: Any = replace(context, metadata=Mark(by="nobody"), stage=replace(context.stage, metadata=Mark(by="nobody")))
    marked = replace(marked, access=WorkerAccess(wire.client))
    await marked.set_task_metadata(Mark(by="task"))
    await marked.set_stage_metadata(Mark(by="stage"))
    await marked.set_job_metadata(Mark(by="job"))
    await marked.set_job_metadata({"pages": [1, 2]})
    assert wire.sent == [
        f"PATCH /v1/tasks/{UUID(int=3)}/user-metadata",
        f"PATCH /v1/stages/{UUID(int=2)}/user-metadata",
        f"PATCH /v1/jobs/{UUID(int=1)}/user-metadata",
        f"PATCH /v1/jobs/{UUID(int=1)}/user-metadata",
    ]
    bodies = [json.loads(request.content) for request in wire.requests]
    assert bodies == [{"by": "task"}, {"by": "stage"}, {"by": "job"}, {"pages": [1, 2]}]


async def test_metadata_fits_its_model(context: TaskContext, wire: "Wire") -> None:
    """What is of another model than the stage type's is refused before it is sent, and so is what JSON cannot say."""
    current = replace(context, access=WorkerAccess(wire.client))
    wrong: list[Any] = [{"by": "task"}, Mark(by="task")]
    for metadata in wrong:
        with pytest.raises(InvalidPayloadError, match="it is a Empty in the stage type"):
            await current.set_task_metadata(metadata)
    wrong = [{"by": object()}, 7, "by"]
    for metadata in wrong:
        with pytest.raises(InvalidPayloadError, match="metadata"):
            await current.set_job_metadata(metadata)
    assert wire.sent == []


async def test_coroutine_awaits(context: TaskContext, wire: "Wire") -> None:
    """A wait on the event loop itself would never end, and is refused."""
    current = replace(context, access=WorkerAccess(wire.client))
    with pytest.raises(ConfigurationError, match="says await"):
        current.wait(asyncio.sleep(1))


def test_context_without_a_manager(context: TaskContext) -> None:
    """A context that was made without access to a manager says what is missing."""
    with pytest.raises(ConfigurationError, match="knows no manager"):
        _ = context.producer


def test_wait_without_a_worker(context: TaskContext) -> None:
    """With an access of its own a plain function is called and cancelled as anywhere, and what it awaits is traced."""
    access = ProcessAccess(lambda: JobnikClient("http://127.0.0.1:1"))
    current = replace(context, access=access, traceparent=trace_context.generate())

    async def look() -> str | None:
        with pytest.raises(UnreachableError):
            await current.producer.get_summary(current.stage.id)
        return trace_context.current_traceparent()

    try:
        assert current.wait(look()) == current.traceparent
        threading.Timer(0.05, current.cancellation.request, ["drain"]).start()
        with pytest.raises(Cancelled, match="drain"):
            current.wait(asyncio.sleep(1000))
        assert current.wait(asyncio.sleep(0, "cleaned up")) == "cleaned up"
    finally:
        access.close()


def test_cancellation_is_raised_once() -> None:
    """In the handler's thread it is raised by whoever finds out first; other threads are told whenever they ask."""
    cancellation = Cancellation()
    cancellation.begin()
    cancellation.raise_if_due()
    cancellation.request("drain")
    with pytest.raises(Cancelled):
        cancellation.raise_if_due()
    cancellation.raise_if_due()
    assert not cancellation.claim()
    with pytest.raises(Cancelled):
        cancellation.raise_if_requested()
    told: list[BaseException] = []

    def ask() -> None:
        try:
            cancellation.raise_if_due()
        except Cancelled as error:
            told.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    assert len(told) == 1
