"""The context of an attempt, which a handler receives together with the data of its task."""

from collections.abc import Awaitable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, SupportsFloat, cast
from uuid import UUID

import structlog
from pydantic import BaseModel, JsonValue, RootModel
from typing_extensions import TypeVar

from jobnik_sdk.errors import ConfigurationError, InvalidPayloadError
from jobnik_sdk.execution.access import Access, rejected_wait
from jobnik_sdk.execution.additions import Additions
from jobnik_sdk.execution.cancellation import Cancellation
from jobnik_sdk.execution.progress import AttemptState, Checkpoint, Phase
from jobnik_sdk.execution.results import Results, read_results
from jobnik_sdk.model.definitions import Empty, NewTask, Priority, ResultT, StageType, TaskMetadataT, TaskT
from jobnik_sdk.model.payloads import encode_payload
from jobnik_sdk.observability import trace_context
from jobnik_sdk.observability.logging import bind_task

if TYPE_CHECKING:
    from jobnik_sdk.producer import Producer

# Most handlers do not use the data and metadata of the stage, so these default to Any: a context without models for
# them fits a stage of any type.
StageDataT = TypeVar("StageDataT", bound=BaseModel, default=Any)
StageMetadataT = TypeVar("StageMetadataT", bound=BaseModel, default=Any)
OtherMetadataT = TypeVar("OtherMetadataT", bound=BaseModel, default=Empty)
T = TypeVar("T")

_NO_MANAGER: Final = (
    "This context has no access to a manager. In a test, use a context from `FakeManager.claim`; for a handler that "
    "runs in a process, run a worker with `work_off`."
)


class _JsonObject(RootModel[dict[str, JsonValue]]):
    """Metadata without a model."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """The job that a task belongs to, as it was when the task was claimed.

    Treat `data` and `metadata` as read-only: contexts of other tasks may share the same dictionaries.
    """

    id: UUID
    name: str
    priority: Priority
    data: dict[str, JsonValue]
    metadata: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class StageInfo(Generic[StageDataT, StageMetadataT]):
    """The stage that a task belongs to, as it was when the task was claimed.

    `order` is its position in the job, counted from 1. Treat `data` and `metadata` as read-only: contexts of other
    tasks may share the same objects.
    """

    id: UUID
    type: str
    order: int
    data: StageDataT
    metadata: StageMetadataT


@dataclass(frozen=True, slots=True, eq=False)
class TaskContext(Generic[TaskMetadataT, StageDataT, StageMetadataT]):
    """The context of an attempt: the second argument of a handler.

    If the stage type has `task_metadata`, annotate the argument as `TaskContext[ThatModel]`. If it has `data` or
    `metadata` of the stage, annotate it as `TaskContext[Empty, StageData, StageMetadata]`. A pickled context has a new
    `cancellation` and a new `state` in the other process.

    Attributes:
        job: The job of the task.
        stage: The stage of the task.
        task_id: The id of the task.
        attempt: The number of this attempt: 1 to `max_attempts`.
        max_attempts: The number of attempts before the task fails permanently.
        metadata: The metadata of the task, as it was when the task was claimed.
        traceparent: The position of this attempt in its trace, in the W3C format.
        timeout: The time limit of this attempt; None: no limit.
        checkpoint: What the previous attempt saved with `save_checkpoint`; None: nothing.
        access: The connection to the manager; internal.
        cancellation: Whether the attempt is cancelled. `requested` is True if it is; `reason` is then "job aborted",
            "timeout", "lease lost" or "drain", and otherwise None. In plain functions, `wait(timeout)` is a sleep that
            cancellation interrupts, and returns whether it did; `raise_if_requested()` raises `Cancelled`.
        state: The latest progress and checkpoint of this attempt; internal.
    """

    job: JobInfo
    stage: StageInfo[StageDataT, StageMetadataT]
    task_id: UUID
    attempt: int
    max_attempts: int
    metadata: TaskMetadataT
    traceparent: str
    timeout: timedelta | None = None
    checkpoint: JsonValue = None
    access: Access | None = field(default=None, repr=False)
    cancellation: Cancellation = field(default_factory=Cancellation, repr=False)
    state: AttemptState = field(default_factory=AttemptState, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        task = (self.job, self.stage, self.task_id, self.attempt, self.max_attempts, self.metadata)
        return (type(self), (*task, self.traceparent, self.timeout, self.checkpoint, self.access))

    @property
    def logger(self) -> structlog.stdlib.BoundLogger:
        """A structlog logger whose lines contain `ids`."""
        logger: structlog.stdlib.BoundLogger = structlog.get_logger(self.stage.type, **self.ids)
        return logger

    @property
    def ids(self) -> dict[str, str | int]:
        """The ids of task, stage and job, the stage type and the attempt, as they are in the log lines of this task."""
        return {
            "task_id": str(self.task_id),
            "stage_id": str(self.stage.id),
            "job_id": str(self.job.id),
            "stage_type": self.stage.type,
            "attempt": self.attempt,
        }

    def progress(self, fraction: SupportsFloat, message: str = "", eta: timedelta | None = None) -> None:
        """Report the progress of the task.

        Call it as often as you like: it only replaces a value in memory, and the worker sends the latest one three
        times within the duration of a lease.

        >>> context.progress(0.4, "page 40 of 100", eta=timedelta(minutes=2))

        Args:
            fraction: The share of the task that is done, from 0 to 1, as any kind of number. A value outside this range
                is replaced by the nearest limit.
            message: What the handler is doing; longer texts are cut to 500 characters.
            eta: The estimated time until the task is done: 0 to 365 days; None: unknown.

        Raises:
            InvalidPayloadError: the fraction is not a number, the message is not text, or `eta` is not a timedelta.
        """
        self._root_phase().progress(fraction, message, eta)

    def phase(self, name: str, weight: SupportsFloat = 1.0, *, of: SupportsFloat = 1.0) -> Phase:
        """Return a phase of the task, for reporting the progress of a task that has several steps.

        >>> with context.phase("download", weight=2, of=5) as download:
        ...     download.progress(0.5)  # the task's progress is 0.2

        Enter each phase with `with`. A phase starts where the previous one ended, and is done when its block ends
        without an exception. Like the context, it has the methods `progress` and `phase`.

        Args:
            name: The name of the phase; it comes first in progress messages.
            weight: The weight of this phase.
            of: The sum of the weights of all phases.
        """
        return self._root_phase().phase(name, weight, of=of)

    def save_checkpoint(self, value: JsonValue) -> None:
        """Save a JSON value for the next attempt, in case this one fails. It replaces the previous one.

        >>> first_row = context.checkpoint or 0
        >>> context.save_checkpoint(5000)

        Raises:
            InvalidPayloadError: the value has more than 500,000 bytes of JSON, or JSON would change it: a tuple would
                become a list, for example, and a number as a key would become text.
        """
        self.state.record_checkpoint(Checkpoint.of(value))

    @property
    def producer(self) -> "Producer":
        """A producer for follow-up work. Everything that it creates belongs to the trace of this attempt.

        >>> await context.producer.create_tasks(context.stage.id, pages, [Page(number=2)])
        """
        return self._access().producer

    async def add_tasks(
        self,
        stage_type: StageType[TaskT, Any, OtherMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, OtherMetadataT]],
    ) -> None:
        """Add tasks to the next stage of this type in the job. Other attempts of this task do not add them again.

        >>> await context.add_tasks(counts, [CountTask(text=text)])

        All of them are added, or none. They run when their stage starts, which is after this one is completed. What an
        earlier attempt has added is recognised by its content, for 24 hours; if this attempt adds something else, both
        remain. If `tasks` is empty and the stage is still empty, a warning is logged, because an empty stage never
        completes. Needs the feature `idempotency-keys`.

        Raises:
            ConfigurationError: the job has no later stage of this type.
            InvalidPayloadError: a task does not fit the stage type.
            UnsupportedError: the manager lacks the feature.
            UnreachableError: the manager did not respond.
            AnswerError: the manager responded with an error.
        """
        if self.state.additions is None:
            self.state.additions = Additions(self._access(), self.job.id, self.stage.order, self.task_id)
        await self.state.additions.add(stage_type, tasks)

    def results(self, stage_type: StageType[Any, ResultT, Any, Any, Any]) -> Results[ResultT]:
        """Return the results of the stages of this type in the job, for a handler of a later stage.

        >>> total = sum([count.words async for count in context.results(pages)])

        In a plain function, use `for` instead of `async for`. The results come in the order in which their tasks were
        created, and are read page by page. Tasks without a result, because they have failed for example, are left out.

        Raises (while they are read):
            UnsupportedError: the manager does not keep results.
            UnreachableError: the manager did not respond.
            AnswerError: the manager responded with an error, or a result does not fit the stage type.
        """
        return Results(partial(read_results, self._access(), self.job.id, stage_type), self.wait)

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Block until `awaitable` is done, and return its value. Use it in plain functions instead of `await`.

        >>> context.wait(context.set_job_metadata({"pages": 7}))

        The awaitable runs on the event loop of the worker; in a process, on a separate one. If the attempt is cancelled
        meanwhile, the awaitable is cancelled and `Cancelled` is raised.

        Raises:
            ConfigurationError: it is called in a coroutine, or the context has no access to a manager.
        """
        if self.access is None:
            raise rejected_wait(awaitable, _NO_MANAGER)
        # A thread that the handler started has no current trace.
        with (
            trace_context.use_trace(self.traceparent) if trace_context.current_traceparent() is None else nullcontext()
        ):
            return self.access.wait(awaitable, self.cancellation)

    async def set_task_metadata(self, metadata: TaskMetadataT) -> None:
        """Replace the metadata of the task. The attribute `metadata` of this context does not change.

        Raises:
            InvalidPayloadError: the metadata does not fit the model of the stage type.
            UnreachableError: the manager did not respond.
            AnswerError: the manager responded with an error.
        """
        await self._set_metadata("tasks", self.task_id, metadata, type(self.metadata))

    async def set_stage_metadata(self, metadata: StageMetadataT) -> None:
        """Replace the metadata of the stage; the last write wins. Raises the same errors as `set_task_metadata`."""
        await self._set_metadata("stages", self.stage.id, metadata, type(self.stage.metadata))

    async def set_job_metadata(self, metadata: BaseModel | dict[str, JsonValue]) -> None:
        """Replace the metadata of the job; the last write wins. Raises the same errors as `set_task_metadata`.

        Args:
            metadata: A model, or a dictionary of JSON values.
        """
        model = type(metadata) if isinstance(metadata, BaseModel) else _JsonObject
        await self._set_metadata("jobs", self.job.id, metadata, model)

    async def _set_metadata(
        self, kind: str, entity_id: UUID, metadata: BaseModel | dict[str, JsonValue], model: type[BaseModel]
    ) -> None:
        if model is not _JsonObject and not isinstance(metadata, model):
            raise InvalidPayloadError("metadata", f"must be of type {model.__name__}, not {type(metadata).__name__}.")
        document = encode_payload(metadata, model, "metadata")
        await self._access().client.request("PATCH", f"/v1/{kind}/{entity_id}/user-metadata", json=document)

    def _access(self) -> Access:
        if self.access is None:
            raise ConfigurationError(_NO_MANAGER)
        return self.access

    def _root_phase(self) -> Phase:
        if self.state.root_phase is None:
            self.state.root_phase = Phase(self.state)
        return self.state.root_phase


class UnfrozenContext(Generic[TaskMetadataT]):
    """A new context whose fields are being set: a frozen dataclass takes four times as long to set its own."""

    __slots__ = TaskContext.__slots__

    def __init__(  # noqa: PLR0913 the fields of a context
        self,
        *,
        job: JobInfo,
        stage: StageInfo[Any, Any],
        task_id: UUID,
        attempt: int,
        max_attempts: int,
        metadata: TaskMetadataT,
        traceparent: str,
        timeout: timedelta | None,
        checkpoint: JsonValue,
        access: Access,
    ) -> None:
        self.job = job
        self.stage = stage
        self.task_id = task_id
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.metadata = metadata
        self.traceparent = traceparent
        self.timeout = timeout
        self.checkpoint = checkpoint
        self.access = access
        self.cancellation = Cancellation()
        self.state = AttemptState()

    def frozen(self) -> TaskContext[TaskMetadataT]:
        """Turn this object into the context."""
        context: Any = self
        context.__class__ = TaskContext  # it has the same base and the same slots
        return cast("TaskContext[TaskMetadataT]", context)


def bind_context(context: TaskContext[Any]) -> None:
    """Add the ids of the task to further log lines, and its trace to further requests, in the current context."""
    bind_task(context)
    trace_context.enter(context.traceparent)
