"""Where a worker fetches tasks and brings back how they ended: one Protocol, with leases and without."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from jobnik_sdk.execution.outcomes import Outcome
from jobnik_sdk.execution.progress import Checkpoint
from jobnik_sdk.model.definitions import StageType, TaskMetadataT, TaskT
from jobnik_sdk.observability.trace_context import NO_TRACE

AnyStageType: TypeAlias = StageType[Any, Any, Any, Any, Any]


class Assignment(BaseModel, Generic[TaskT, TaskMetadataT]):
    """A task in this worker's hands: what a claim tells, and no more of it than a worker needs, since it reads many.

    `stage` and `job` are JSON objects as they came. `waited` is for how many seconds it could have been claimed, None
    where the manager does not say. `fault` says what does not fit its models: then `data` and `metadata` are empty,
    and the attempt has failed before it began.
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
    stage: dict[str, Any] | None = None
    job: dict[str, Any] | None = None
    fault: str = Field(default="", init=False)

    @property
    def job_id(self) -> str:
        """The id of its job, empty where the manager does not say."""
        return "" if self.job is None else str(self.job.get("id", ""))


@dataclass(frozen=True, slots=True)
class TaskReport:
    """How an attempt at a task ended."""

    task: Assignment[Any, Any]
    stage_type: str
    outcome: Outcome
    checkpoint: Checkpoint | None = None
    """What it leaves for the next one, None: nothing new."""


class ReportResult(NamedTuple):
    """What the manager says of a report."""

    accepted: bool
    """Whether it counts; it does too where it was said before."""
    code: str = ""
    """Why not, in the protocol's word."""
    message: str = ""


ACCEPTED: Final = ReportResult(accepted=True)


class TaskSource(Protocol):
    """A manager, as far as a worker needs it."""

    @property
    def waits(self) -> bool:
        """Whether a claim waits at the manager while there are no tasks, so that the next may follow at once."""
        ...

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Assignment[Any, Any]]:
        """Claim up to `limit` tasks; none where there are none.

        Raises:
            JobnikError: the manager is in trouble, or cannot be reached.
        """
        ...

    def settle(self, report: TaskReport, decided: Callable[[ReportResult], None]) -> None:
        """Say how an attempt ended, until the manager has decided: trouble on the way is waited out."""
        ...

    async def leave(self) -> None:
        """Give back what was claimed for this worker and never reached it."""
        ...
