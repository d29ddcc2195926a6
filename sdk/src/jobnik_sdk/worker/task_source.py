"""The interface between a worker and its manager: claims and reports, with leases or without."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, NamedTuple, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.outcomes import Failed, Outcome
from jobnik_sdk.execution.progress import Checkpoint
from jobnik_sdk.model.definitions import AnyStageType, TaskMetadataT, TaskT, retry_delay_seconds
from jobnik_sdk.observability.spans import AttemptSpan
from jobnik_sdk.observability.trace_context import NO_TRACE

CACHED_STAGES: Final = 100
"""How many stages a worker keeps in memory; the tasks that it claims at one time belong to few stages."""


class Assignment(BaseModel, Generic[TaskT, TaskMetadataT]):
    """A task that this worker has claimed, with only the fields that a worker needs, because it parses many tasks.

    `stage` and `job` are JSON objects, as the manager sent them. `waited` is the number of seconds for which the task
    was claimable; None if the manager does not report it. `validation_error` is set if the task does not fit its
    models: then `data` and `metadata` are empty, and the attempt fails before it starts. `retry` is the retry policy in
    the format of the protocol; without it, the next attempt follows a failed one at once.
    """

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)

    id: UUID
    stage_id: str
    attempts: int
    max_attempts: int
    data: TaskT
    metadata: TaskMetadataT = Field(validation_alias="userMetadata")
    traceparent: str = NO_TRACE
    tracestate: str | None = None
    lease_id: int | None = None
    timeout: timedelta | None = Field(default=None, validation_alias="timeoutSeconds")
    checkpoint: Any = None
    waited: float | None = Field(default=None, validation_alias="waitedSeconds")
    retry: dict[str, Any] | None = None
    stage: dict[str, Any] | None = None
    job: dict[str, Any] | None = None
    validation_error: str = Field(default="", init=False)

    @property
    def job_id(self) -> str:
        """The id of the task's job; empty if the manager does not send it."""
        return "" if self.job is None else str(self.job.get("id", ""))

    def retry_delay(self, failure: Failed) -> timedelta | None:
        """Return how long the task waits for its next attempt, without jitter; None if this attempt was the last one.

        Without leases, the manager decides by the number of attempts alone, and there is no delay.
        """
        failed = self.attempts + 1
        if failed >= self.max_attempts:
            return None
        if self.lease_id is None:
            return timedelta()
        if not failure.retryable or failure.delay is not None:
            return failure.delay if failure.retryable else None
        return timedelta(seconds=retry_delay_seconds(self.retry, failed)) if self.retry else timedelta()


class TaskInProgress:
    """A claimed task whose handler is running, or whose report is being delivered."""

    __slots__ = ("context", "ended", "lease_lost", "span", "started", "task")

    def __init__(self, task: Assignment[Any, Any], context: TaskContext[Any], span: AttemptSpan) -> None:
        self.task = task
        self.context = context
        self.span = span
        self.started = time.perf_counter()
        self.ended = False  # whether its outcome is known; the manager then ends the lease when the report arrives
        self.lease_lost = False  # whether the manager has ended the lease before


@dataclass(slots=True)  # not frozen, because that takes four times as long
class TaskReport:
    """How an attempt at a task ended."""

    task: Assignment[Any, Any]
    stage_type: str
    outcome: Outcome
    checkpoint: Checkpoint | None = None
    """The checkpoint that the attempt saved for the next one; None if it saved none."""


class ReportResult(NamedTuple):
    """The manager's response to a report."""

    accepted: bool
    """Whether the report counts. A report that the manager already has is accepted again."""
    code: str = ""
    """The protocol's error code, if the report was refused."""
    message: str = ""


ACCEPTED: Final = ReportResult(accepted=True)


class TaskSource(Protocol):
    """A manager that tasks are claimed from and reported to."""

    @property
    def long_polls(self) -> bool:
        """Whether a claim waits at the manager while there are no tasks, so that the next claim may follow at once."""
        ...

    @property
    def held_back(self) -> int:
        """The number of reports that are delayed, probably because of their jobs, while others are sent."""
        ...

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Assignment[Any, Any]]:
        """Claim up to `limit` tasks; return an empty list if there are none.

        Raises:
            JobnikError: the manager refused the claim, failed, or cannot be reached.
        """
        ...

    def submit(self, report: TaskReport, on_result: Callable[[ReportResult], None]) -> None:
        """Deliver a report in the background, and retry until the manager has accepted or refused it.

        `on_result` is then called on the event loop.
        """
        ...

    async def deregister(self) -> None:
        """Release all tasks that the manager has assigned to this worker but the worker has not received."""
        ...
