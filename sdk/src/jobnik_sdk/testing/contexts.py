"""Contexts for tests: they record progress and checkpoints, skip waits, and can be cancelled by the test."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel, JsonValue
from pydantic_core import from_json
from typing_extensions import override

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.execution.access import Access, as_coroutine, rejected_wait
from jobnik_sdk.execution.cancellation import Cancellation
from jobnik_sdk.execution.context import JobInfo, OtherMetadataT, StageDataT, StageInfo, StageMetadataT, TaskContext
from jobnik_sdk.execution.outcomes import TIMEOUT
from jobnik_sdk.execution.progress import AttemptState, ProgressUpdate
from jobnik_sdk.execution.results import Results
from jobnik_sdk.http.client import JobnikClient
from jobnik_sdk.model.arguments import check_duration, check_instance, check_integer
from jobnik_sdk.model.definitions import (
    EMPTY,
    AnyStageType,
    NewTask,
    Priority,
    ResultT,
    StageType,
    TaskMetadataT,
    TaskT,
)
from jobnik_sdk.observability import trace_context
from jobnik_sdk.producer.bodies import TaskEncoder

T = TypeVar("T")

_JOB_ID, _STAGE_ID, _TASK_ID = (UUID(int=number) for number in (1, 2, 3))


class RecordingState(AttemptState):
    """The state of an attempt with all of its progress, not only the latest."""

    __slots__ = ("added_tasks", "all_progress")

    def __init__(self) -> None:
        super().__init__()
        self.all_progress: list[ProgressUpdate] = []
        self.added_tasks: list[tuple[AnyStageType, BaseModel]] = []

    @override
    def record_progress(self, progress: ProgressUpdate) -> None:
        super().record_progress(progress)
        self.all_progress.append(progress)


class MemoryAccess(Access):
    """The connection of a handler to a fake manager, in a test with or without an event loop."""

    def __init__(self, client: JobnikClient) -> None:
        self._client = client
        self._thread = threading.get_ident()
        self._test_loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):
            self._test_loop = asyncio.get_running_loop()

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _no_access, ()  # another process cannot reach this memory

    @property
    @override
    def client(self) -> JobnikClient:
        return self._client

    @property
    @override
    def _loop(self) -> asyncio.AbstractEventLoop:
        assert self._test_loop is not None  # noqa: S101 see `wait`
        return self._test_loop

    @override
    def wait(self, awaitable: Awaitable[T], cancellation: Cancellation) -> T:
        if self._test_loop is not None and threading.get_ident() == self._thread:
            raise rejected_wait(awaitable, "wait is for plain functions: call them with run_handler in an async test.")
        if self._test_loop is not None:
            return super().wait(awaitable, cancellation)
        with asyncio.Runner() as loop:
            return loop.run(as_coroutine(awaitable))


def _no_access() -> None:
    """Return None: the access of a context without a manager."""


class ClockedCancellation(Cancellation):
    """A cancellation with its own clock: `wait` returns at once and moves the clock ahead."""

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
    """The context of a task, with what the handler recorded; from `context_for` or `FakeManager.claim`."""

    cancellation: ClockedCancellation = field(default_factory=ClockedCancellation, repr=False)
    prepared_results: Mapping[AnyStageType, Sequence[BaseModel]] = field(
        default_factory=dict[AnyStageType, Sequence[BaseModel]], repr=False
    )
    state: RecordingState = field(default_factory=RecordingState, repr=False)

    @override
    def results(self, stage_type: StageType[Any, ResultT, Any, Any, Any]) -> Results[ResultT]:
        prepared: Any = self.prepared_results.get(stage_type)
        if prepared is not None:
            return _PreparedResults(prepared)
        if self.access is None:
            raise ConfigurationError(
                f"This context has no results of {stage_type.name!r}: pass them to context_for(results=...), or use a "
                "context from `FakeManager.claim`."
            )
        return super(RecordingContext, self).results(stage_type)

    @override
    async def add_tasks(
        self,
        stage_type: StageType[TaskT, Any, OtherMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, OtherMetadataT]],
    ) -> None:
        given = list(tasks)
        encoder = TaskEncoder(stage_type, {})
        for index, task in enumerate(given):
            encoder.encode(index, task)
        if self.access is not None:
            await super(RecordingContext, self).add_tasks(stage_type, given)
        self.state.added_tasks += [(stage_type, task.data if isinstance(task, NewTask) else task) for task in given]

    def added_tasks(self, stage_type: StageType[TaskT, Any, Any, Any, Any]) -> list[TaskT]:
        """Return the data of the tasks that the handler added to a stage of this type; none for a process handler."""
        return [cast("TaskT", data) for known, data in self.state.added_tasks if known == stage_type]

    @property
    def recorded_progress(self) -> Sequence[ProgressUpdate]:
        """All progress that the handler reported, oldest first."""
        return tuple(self.state.all_progress)

    @property
    def saved_checkpoint(self) -> JsonValue:
        """The latest checkpoint that the handler saved; None if it saved none."""
        saved = self.state.checkpoint
        return None if saved is None else from_json(saved.document)

    def cancel(self, reason: str = "job aborted") -> None:
        """Ask the handler to end early, as the manager or a drain does. Can be called from any thread.

        Args:
            reason: The reason that the handler sees: "job aborted", "timeout", "lease lost" or "drain".
        """
        self.cancellation.request(reason)

    @property
    def waited(self) -> timedelta:
        """The total of the waits with `cancellation.wait`, which return at once; zero for a process handler."""
        return self.cancellation.elapsed


def context_for(  # noqa: PLR0913 the fields of a context
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
    results: Mapping[AnyStageType, Sequence[BaseModel]] | None = None,
) -> RecordingContext[TaskMetadataT, StageDataT, StageMetadataT]:
    """Return the context of an attempt at a task of this type, without a manager.

    For a handler that uses `context.producer` or changes metadata, use `FakeManager.claim` instead. Tasks that the
    handler adds with `add_tasks` are recorded, and returned by `added_tasks`.
    `context.cancellation.wait` returns at once, and `context.waited` is the total of the waits. When the total reaches
    `timeout`, the attempt is asked to end.

    Args:
        stage_type: The stage type of the handler.
        metadata: The metadata of the task.
        stage_data: The data of the stage; default: the model without arguments.
        stage_metadata: The metadata of the stage; default: the model without arguments.
        job_data: The data of the job.
        attempt: The number of the attempt, from 1.
        max_attempts: The number of attempts that the task may have.
        timeout: The time limit of the attempt; default: none.
        checkpoint: The checkpoint of the previous attempt.
        results: What `context.results` returns for other stage types.

    >>> context = context_for(thumbnails, attempt=2, checkpoint={"done": 3})
    >>> await make_thumbnail(task, context)
    >>> context.recorded_progress[-1].fraction
    1.0

    Raises:
        TypeError: an argument has a wrong type.
        ConfigurationError: `attempt`, `max_attempts` or `timeout` is out of range.
    """
    check_instance("stage_type", stage_type, StageType)
    check_integer("attempt", attempt)
    check_integer("max_attempts", max_attempts)
    if timeout is not None:
        check_duration("timeout", timeout, timedelta.resolution)
    check_instance("metadata", metadata, BaseModel)
    for name, model in (("stage_data", stage_data), ("stage_metadata", stage_metadata)):
        if model is not None:
            check_instance(name, model, BaseModel)
    for name, mapping in (("job_data", job_data), ("results", results)):
        if mapping is not None:
            check_instance(name, mapping, Mapping)
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
        prepared_results=dict(results or {}),
    )


class _PreparedResults(Results[ResultT]):
    def __init__(self, results: Sequence[ResultT]) -> None:
        self._results = results

    @override
    async def __aiter__(self) -> AsyncIterator[ResultT]:
        for result in self._results:
            yield result

    @override
    def __iter__(self) -> Iterator[ResultT]:
        return iter(self._results)


def _given(value: BaseModel | None, model: type[Any]) -> Any:  # noqa: ANN401 an instance of the model
    return model() if value is None else value
