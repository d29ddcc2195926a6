"""What an application says once about its work: job types, stage types and the models of what they carry."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, Literal, Self, TypeAlias, TypedDict, Unpack, overload

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

from jobnik_sdk.model.arguments import check_duration, check_names
from jobnik_sdk.model.exceptions import ConfigurationError


class Empty(BaseModel):
    """The model of data or metadata that has no fields; fields that someone else put there are ignored."""

    model_config = ConfigDict(frozen=True)


EMPTY: Final = Empty()
"""The one value of `Empty` that anybody needs."""
MAX_DURATION: Final = timedelta(days=365)
"""The longest delay or time limit that the protocol has."""
MAX_FACTOR: Final = 100

TaskT = TypeVar("TaskT", bound=BaseModel, default=Any)
ResultT = TypeVar("ResultT", bound=BaseModel | None, default=None)
TaskMetadataT = TypeVar("TaskMetadataT", bound=BaseModel, default=Empty)
DataT = TypeVar("DataT", bound=BaseModel, default=Empty)
MetadataT = TypeVar("MetadataT", bound=BaseModel, default=Empty)
PlainT = TypeVar("PlainT", bound=BaseModel)


class Priority(StrEnum):
    """How urgent a job is: all waiting tasks of a higher priority are handed out first."""

    VERY_HIGH = "VERY_HIGH"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    VERY_LOW = "VERY_LOW"


class JobStatus(StrEnum):
    """Where a job stands; COMPLETED, FAILED and ABORTED are final."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class StageStatus(StrEnum):
    """Where a stage stands; WAITING ones are started by hand, COMPLETED, FAILED and ABORTED are final."""

    CREATED = "CREATED"
    WAITING = "WAITING"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class TaskStatus(StrEnum):
    """Where a task stands; RETRIED waits for its next attempt, COMPLETED, FAILED and ABORTED are final."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    RETRIED = "RETRIED"
    ABORTED = "ABORTED"


@dataclass(frozen=True)
class JobType(Generic[DataT, MetadataT]):
    """A kind of job: its name (2 to 50 characters) and the models of its data and metadata.

    >>> gallery = JobType("gallery", data=GalleryData)
    """

    name: str
    data: type[DataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # the TypeVar's default
    metadata: type[MetadataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # likewise

    def __post_init__(self) -> None:
        _check_length("A job type's name", self.name, shortest=2)


@dataclass(frozen=True)
class StageType(Generic[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]):
    """A kind of stage: its name (1 to 50 characters) and the models of its tasks and of itself.

    `task` is the data of each task, `result` what a handler returns (None: nothing), `task_metadata` the metadata of
    each task; `data` and `metadata` belong to the stage as a whole.

    >>> thumbnails = StageType("thumbnails", task=ThumbnailTask, result=ThumbnailResult)
    """

    name: str
    task: type[TaskT] = field(kw_only=True)
    result: type[ResultT] | None = field(default=None, kw_only=True)
    task_metadata: type[TaskMetadataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # the TypeVar's default
    data: type[DataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # likewise
    metadata: type[MetadataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # likewise

    def __post_init__(self) -> None:
        _check_length("A stage type's name", self.name, shortest=1)


AnyStageType: TypeAlias = StageType[Any, Any, Any, Any, Any]
"""A stage type with any models."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a task waits after a failed attempt, for as long as it has attempts left: `fixed` or `exponential`.

    >>> RetryPolicy.exponential(timedelta(seconds=10), max_delay=timedelta(minutes=10), jitter=0.2)

    `delay` (0 to 365 days) is the first, and each one after it `factor` (1 to 100) times the one before, `max_delay` at
    most (None: an hour, or `delay` where that is longer). `jitter` (0 to 1) makes each longer or shorter by up to this
    share of it, by chance, so that what failed together does not come back together.
    """

    strategy: Literal["fixed", "exponential"]
    delay: timedelta
    factor: float = 2.0
    max_delay: timedelta | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name, delay in (("delay", self.delay), ("max_delay", self.max_delay)):
            if delay is None:
                continue
            check_duration(f"A retry policy's {name}", delay)
            if not timedelta() <= delay <= MAX_DURATION:
                raise ConfigurationError(f"A retry policy's {name} is 0 to 365 days, not {delay}.")
        if not 1 <= self.factor <= MAX_FACTOR:
            raise ConfigurationError(f"A retry policy's factor is 1 to {MAX_FACTOR}, not {self.factor}.")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"A retry policy's jitter is 0 to 1, not {self.jitter}.")

    @classmethod
    def fixed(cls, delay: timedelta, *, jitter: float = 0.0) -> Self:
        """Return the policy with the same delay after each attempt."""
        return cls("fixed", delay, jitter=jitter)

    @classmethod
    def exponential(
        cls, delay: timedelta, *, factor: float = 2.0, max_delay: timedelta | None = None, jitter: float = 0.0
    ) -> Self:
        """Return the policy with a delay that grows from one attempt to the next."""
        return cls("exponential", delay, factor, max_delay, jitter)


class TaskOptions(TypedDict, total=False):
    """How a task is tried; see `NewTask`."""

    max_attempts: int | None
    timeout: timedelta | None
    retry: RetryPolicy | None
    delay: timedelta | None
    available_at: datetime | None


class NewTask(Generic[TaskT, TaskMetadataT]):
    """A task to be created, where its data alone does not say enough.

    Args:
        data: What a handler gets.
        metadata: Which may be changed later.
        max_attempts: How often it is tried before it fails for good: 1 or more.
        timeout: How long one attempt may take: 0.1 s to 365 days.
        retry: How long it waits after a failed attempt.
        delay: How long it waits before its first attempt: 0 to 365 days.
        available_at: The same as a moment, which has a time zone; not together with `delay`.

    What is not said is as the stage's `TaskDefaults` say, else 3 attempts with no limit and no delay. All but
    `max_attempts` needs a manager with part B of the protocol (feature `retry-policy`).
    """

    @overload
    def __init__(self: "NewTask[PlainT, Empty]", data: PlainT, **options: Unpack[TaskOptions]) -> None: ...
    @overload
    def __init__(self, data: TaskT, *, metadata: TaskMetadataT, **options: Unpack[TaskOptions]) -> None: ...

    def __init__(self, data: Any, *, metadata: Any = EMPTY, **options: Unpack[TaskOptions]) -> None:
        if options:
            check_names("NewTask()", options, TaskOptions.__optional_keys__)
        self.data: Final[TaskT] = data
        self.metadata: Final[TaskMetadataT] = metadata
        self.options: Final = options


@dataclass(frozen=True, kw_only=True)
class TaskDefaults:
    """What counts for those of a stage's tasks that do not say it themselves; see `NewTask`."""

    max_attempts: int | None = None
    timeout: timedelta | None = None
    retry: RetryPolicy | None = None


class StageOptions(TypedDict, total=False):
    """How a stage is created; see `NewStage`."""

    waiting: bool
    weight: float | None
    task_defaults: TaskDefaults | None


class NewStage:
    """A stage to be created together with its job.

    Args:
        stage_type: Whose stage it is.
        tasks: Its tasks, each its data or a `NewTask`; more may be added later.
        data: What belongs to the stage as a whole.
        metadata: Which may be changed later.
        waiting: Whether it starts only when `start_stage` says so.
        weight: How much of its job's progress it is, compared with the other stages: 0.001 to 1000, else 1. It needs
            the feature `weighted-progress`.
        task_defaults: What counts for tasks that do not say it themselves. They need the feature `task-defaults`.
    """

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, Any, TaskMetadataT, Empty, Empty],
        tasks: "Iterable[TaskT | NewTask[TaskT, TaskMetadataT]]" = (),
        **options: Unpack[StageOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, Any, TaskMetadataT, DataT, Empty],
        tasks: "Iterable[TaskT | NewTask[TaskT, TaskMetadataT]]" = (),
        *,
        data: DataT,
        **options: Unpack[StageOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, Any, TaskMetadataT, Empty, MetadataT],
        tasks: "Iterable[TaskT | NewTask[TaskT, TaskMetadataT]]" = (),
        *,
        metadata: MetadataT,
        **options: Unpack[StageOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, Any, TaskMetadataT, DataT, MetadataT],
        tasks: "Iterable[TaskT | NewTask[TaskT, TaskMetadataT]]" = (),
        *,
        data: DataT,
        metadata: MetadataT,
        **options: Unpack[StageOptions],
    ) -> None: ...

    def __init__(
        self,
        stage_type: StageType[Any, Any, Any, Any, Any],
        tasks: Iterable[Any] = (),
        *,
        data: Any = EMPTY,
        metadata: Any = EMPTY,
        **options: Unpack[StageOptions],
    ) -> None:
        check_names("NewStage()", options, StageOptions.__optional_keys__)
        self.stage_type: Final = stage_type
        self.tasks: Final = tasks
        self.data: Final[Any] = data
        self.metadata: Final[Any] = metadata
        self.options: Final = options


def _check_length(what: str, name: str, *, shortest: int) -> None:
    longest = 50
    if not shortest <= len(name) <= longest:
        raise ConfigurationError(f"{what} has {shortest} to {longest} characters, which {name!r} has not.")
