"""Contexts to call handlers with: they record what a handler notes, skip waits, and are cancelled by the test."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, JsonValue
from pydantic_core import from_json
from typing_extensions import override

from jobnik_sdk.execution.access import Access, as_coroutine, rejected_wait
from jobnik_sdk.execution.cancellation import Cancellation
from jobnik_sdk.execution.context import JobInfo, StageDataT, StageInfo, StageMetadataT, TaskContext
from jobnik_sdk.execution.outcomes import TIMEOUT
from jobnik_sdk.execution.progress import AttemptState, ProgressUpdate
from jobnik_sdk.http.client import JobnikClient
from jobnik_sdk.model.definitions import EMPTY, Priority, StageType, TaskMetadataT
from jobnik_sdk.observability import trace_context

T = TypeVar("T")

_JOB_ID, _STAGE_ID, _TASK_ID = (UUID(int=number) for number in (1, 2, 3))


class RecordingNotes(AttemptState):
    """AttemptState that keep all progress, not the newest alone."""

    __slots__ = ("all_progress",)

    def __init__(self) -> None:
        super().__init__()
        self.all_progress: list[ProgressUpdate] = []

    @override
    def record_progress(self, progress: ProgressUpdate) -> None:
        super().record_progress(progress)
        self.all_progress.append(progress)


class MemoryAccess(Access):
    """How a handler that a test calls reaches a manager in memory, from a test with an event loop or without one."""

    def __init__(self, client: JobnikClient) -> None:
        self._client = client
        self._thread = threading.get_ident()
        self._home: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):
            self._home = asyncio.get_running_loop()

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _nowhere, ()  # another process has another memory

    @property
    @override
    def client(self) -> JobnikClient:
        return self._client

    @property
    @override
    def _loop(self) -> asyncio.AbstractEventLoop:
        assert self._home is not None  # noqa: S101 see `wait`
        return self._home

    @override
    def wait(self, awaitable: Awaitable[T], cancellation: Cancellation) -> T:
        if self._home is not None and threading.get_ident() == self._thread:
            raise rejected_wait(awaitable, "wait is for plain functions: an async test calls them by run_handler.")
        if self._home is not None:
            return super().wait(awaitable, cancellation)
        with asyncio.Runner() as loop:
            return loop.run(as_coroutine(awaitable))


def _nowhere() -> None:
    """No access."""


class ClockedCancellation(Cancellation):
    """A cancellation with a clock of its own: a `wait` takes no time, but moves that clock ahead."""

    __slots__ = ("elapsed", "limit")

    def __init__(self, limit: timedelta | None = None) -> None:
        super().__init__()
        self.elapsed = timedelta()
        self.limit = limit

    @override
    def wait(self, timeout: timedelta | None = None) -> bool:
        if timeout is None or self.requested:
            return super().wait(timeout)
        self.elapsed += timeout
        if self.limit is not None and self.elapsed >= self.limit:
            self.elapsed = self.limit
            self.request(TIMEOUT)
        return self.requested


@dataclass(frozen=True, slots=True, eq=False)
class RecordingContext(TaskContext[TaskMetadataT, StageDataT, StageMetadataT]):
    """What a handler sees of a task, and its test after it; `context_for` and `FakeManager.claim` make one."""

    cancellation: ClockedCancellation = field(default_factory=ClockedCancellation, repr=False)
    state: RecordingNotes = field(default_factory=RecordingNotes, repr=False)

    @property
    def recorded_progress(self) -> Sequence[ProgressUpdate]:
        """All progress that the handler has noted, in its order."""
        return tuple(self.state.all_progress)

    @property
    def saved_checkpoint(self) -> JsonValue:
        """The newest checkpoint that the handler has saved; None: none."""
        saved = self.state.checkpoint
        return None if saved is None else from_json(saved.document)

    def cancel(self, reason: str = "job aborted") -> None:
        """Ask the attempt to end, as the manager or a drain would; from any thread."""
        self.cancellation.request(reason)

    @property
    def waited(self) -> timedelta:
        """How long the handler has waited by `cancellation.wait`, which takes no time here; not in processes."""
        return self.cancellation.elapsed


def context_for(  # noqa: PLR0913 all that a context has
    stage_type: StageType[Any, Any, TaskMetadataT, StageDataT, StageMetadataT],
    *,
    metadata: TaskMetadataT = EMPTY,  # type: ignore[assignment]  # the TypeVar's default
    stage_data: StageDataT | None = None,
    stage_metadata: StageMetadataT | None = None,
    job_data: Mapping[str, JsonValue] | None = None,
    attempt: int = 1,
    max_attempts: int = 3,
    timeout: timedelta | None = None,
    checkpoint: JsonValue = None,
) -> RecordingContext[TaskMetadataT, StageDataT, StageMetadataT]:
    """Return the context of an attempt at a task of this type; what is not said is empty.

    No manager knows of it: a handler that creates follow-up work or changes metadata gets its context from
    `FakeManager.claim`. Where a handler waits by `context.cancellation.wait`, no time passes: `context.waited` tells
    how long it would have been. At `timeout` the attempt is asked to end.

    >>> context = context_for(thumbnails, attempt=2, checkpoint={"done": 3})
    >>> await make_thumbnail(task, context)
    >>> context.recorded_progress[-1].fraction
    1.0
    """
    return RecordingContext(
        job=JobInfo(_JOB_ID, "a job", Priority.MEDIUM, dict(job_data or {}), {}),
        stage=StageInfo(
            _STAGE_ID,
            stage_type.name,
            1,
            _given(stage_data, stage_type.data),
            _given(stage_metadata, stage_type.metadata),
        ),
        task_id=_TASK_ID,
        attempt=attempt,
        max_attempts=max_attempts,
        metadata=metadata,
        traceparent=trace_context.generate(),
        timeout=timeout,
        checkpoint=checkpoint,
        cancellation=ClockedCancellation(timeout),
    )


def _given(value: BaseModel | None, model: type[Any]) -> Any:  # noqa: ANN401 an instance of the model
    return model() if value is None else value
