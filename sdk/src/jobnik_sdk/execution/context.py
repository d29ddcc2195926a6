"""What a handler sees of the task that it works on, besides the data."""

from collections.abc import Awaitable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic
from uuid import UUID

import structlog
from pydantic import BaseModel, JsonValue, RootModel
from typing_extensions import TypeVar

from jobnik_sdk.errors import ConfigurationError, InvalidPayloadError
from jobnik_sdk.execution.access import Access, not_here
from jobnik_sdk.execution.cancellation import Cancellation
from jobnik_sdk.execution.progress import AttemptState, Checkpoint, Phase
from jobnik_sdk.model.definitions import Priority, TaskMetadataT
from jobnik_sdk.model.payloads import to_document
from jobnik_sdk.observability import trace_context
from jobnik_sdk.observability.logging import bind_task

if TYPE_CHECKING:
    from jobnik_sdk.producer import Producer

# Unlike a task's own metadata, what belongs to the stage is of no interest to most handlers: who names no model for it
# may handle any.
StageDataT = TypeVar("StageDataT", bound=BaseModel, default=Any)
StageMetadataT = TypeVar("StageMetadataT", bound=BaseModel, default=Any)
T = TypeVar("T")


_NO_MANAGER: Final = (
    "This context knows no manager. In a test take one from `FakeManager.claim`, for a handler that runs in a process "
    "from a worker, by `work_off`."
)


class _JsonObject(RootModel[dict[str, JsonValue]]):
    """Metadata that no model is known of."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """The job that a task belongs to, as it was when the task was claimed; other tasks see the same dictionaries."""

    id: UUID
    name: str
    priority: Priority
    data: dict[str, JsonValue]
    metadata: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class StageInfo(Generic[StageDataT, StageMetadataT]):
    """The stage that a task belongs to, as it was when the task was claimed; `order` counts from 1 within the job."""

    id: UUID
    type: str
    order: int
    data: StageDataT
    metadata: StageMetadataT


@dataclass(frozen=True, slots=True, eq=False)
class TaskContext(Generic[TaskMetadataT, StageDataT, StageMetadataT]):
    """The task in hand: `attempt` counts from 1 to `max_attempts`; `traceparent` is where it is in its trace.

    `timeout` is how long this attempt may take (None: without limit), `checkpoint` what the attempt before left (None:
    nothing). `access` is how it reaches the manager.

    `cancellation` tells whether the attempt is to end early: `requested`, and `reason`, one of "job aborted",
    "timeout", "lease lost" and "drain" (None: it is not). For plain functions `wait(timeout)` is a sleep that this
    interrupts, and returns whether it did; `raise_if_requested()` raises `Cancelled`.

    With `task_metadata` in the stage type, annotate it as `TaskContext[ThatModel]` and read it from `metadata`; with
    `data` or `metadata` of the stage as `TaskContext[Empty, ItsData, ItsMetadata]`.

    Pickled, it leaves `cancellation` and `notes` behind: in another process it has new ones.
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
    notes: AttemptState = field(default_factory=AttemptState, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        described = (self.job, self.stage, self.task_id, self.attempt, self.max_attempts, self.metadata)
        return (type(self), (*described, self.traceparent, self.timeout, self.checkpoint, self.access))

    @property
    def logger(self) -> structlog.stdlib.BoundLogger:
        """A logger whose lines carry the ids and the attempt."""
        logger: structlog.stdlib.BoundLogger = structlog.get_logger(self.stage.type, **self.ids)
        return logger

    @property
    def ids(self) -> dict[str, str | int]:
        """What each log line about this task says, as JSON values."""
        return {
            "task_id": str(self.task_id),
            "stage_id": str(self.stage.id),
            "job_id": str(self.job.id),
            "stage_type": self.stage.type,
            "attempt": self.attempt,
        }

    def progress(self, fraction: float, message: str = "", eta: timedelta | None = None) -> None:
        """Note how much of the task is done, 0 to 1, in a few words, and how long it will still take.

        It costs next to nothing: the newest note goes along with the next heartbeat.
        """
        self._whole().progress(fraction, message, eta)

    def phase(self, name: str, weight: float = 1.0, *, of: float = 1.0) -> Phase:
        """Return a phase that makes up `weight` of the task, where the weights of all phases together are `of`.

        >>> with context.phase("download", weight=2, of=5) as download:
        ...     download.progress(0.5)  # the task's progress is 0.2

        Phases follow each other in the order in which they are entered. A phase has the methods `progress` and `phase`
        as the context has them; to leave it without an error is to have done it all.
        """
        return self._whole().phase(name, weight, of=of)

    def save_checkpoint(self, value: JsonValue) -> None:
        """Leave a JSON value for the next attempt, should this one fail; the newest replaces the others.

        Raises:
            InvalidPayloadError: the value cannot be said in JSON.
        """
        self.notes.record_checkpoint(Checkpoint.of(value))

    @property
    def producer(self) -> "Producer":
        """What creates follow-up work; that belongs to this attempt's trace.

        >>> await context.producer.create_tasks(context.stage.id, pages, [Page(number=2)])
        """
        return self._access().producer

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Block until `awaitable` is done, and return its value: for plain functions, where a coroutine says await.

        It runs on the worker's event loop, or in a process on one of its own. A cancellation ends it, and is raised.

        >>> context.wait(context.set_job_metadata({"pages": 7}))
        """
        if self.access is None:
            raise not_here(awaitable, _NO_MANAGER)
        # A thread that the handler has started knows no trace.
        with (
            trace_context.use_trace(self.traceparent) if trace_context.current_traceparent() is None else nullcontext()
        ):
            return self.access.wait(awaitable, self.cancellation)

    async def set_task_metadata(self, metadata: TaskMetadataT) -> None:
        """Replace the metadata of the task, which is of the stage type's model; `metadata` here stays as it was.

        This and the two like it raise `InvalidPayloadError` where the metadata does not fit, and as a producer does
        where the manager cannot be asked.
        """
        await self._set_metadata("tasks", self.task_id, metadata, type(self.metadata))

    async def set_stage_metadata(self, metadata: StageMetadataT) -> None:
        """Replace the metadata of the stage, which is of the stage type's model; whoever comes last wins."""
        await self._set_metadata("stages", self.stage.id, metadata, type(self.stage.metadata))

    async def set_job_metadata(self, metadata: BaseModel | dict[str, JsonValue]) -> None:
        """Replace the metadata of the job, a JSON object or a model that makes one; whoever comes last wins."""
        model = type(metadata) if isinstance(metadata, BaseModel) else _JsonObject
        await self._set_metadata("jobs", self.job.id, metadata, model)

    async def _set_metadata(
        self, kind: str, of: UUID, metadata: BaseModel | dict[str, JsonValue], model: type[BaseModel]
    ) -> None:
        if model is not _JsonObject and not isinstance(metadata, model):
            raise InvalidPayloadError("metadata", f"it is a {model.__name__} in the stage type.")
        document = to_document(metadata, model, "metadata")
        await self._access().client.request("PATCH", f"/v1/{kind}/{of}/user-metadata", json=document)

    def _access(self) -> Access:
        if self.access is None:
            raise ConfigurationError(_NO_MANAGER)
        return self.access

    def _whole(self) -> Phase:
        if self.notes.whole is None:
            self.notes.whole = Phase(self.notes)
        return self.notes.whole


def enter(context: TaskContext[Any]) -> None:
    """Let log lines and requests in the rest of the current context (an asyncio task, a process) speak of this task."""
    bind_task(context)
    trace_context.enter(context.traceparent)
