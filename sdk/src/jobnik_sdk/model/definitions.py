"""Job types, stage types, and the options of jobs, stages and tasks: what an application defines once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, Literal, Self, TypeAlias, TypedDict, Unpack, overload

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar, override

from jobnik_sdk.model.arguments import check_duration, check_instance, check_names
from jobnik_sdk.model.exceptions import ConfigurationError


class Empty(BaseModel):
    """A payload without fields: the default for data and metadata. Fields set by another client are ignored."""

    model_config = ConfigDict(frozen=True)


EMPTY: Final = Empty()
"""The only instance of `Empty`; as an argument it means that the payload was omitted."""

MIN_TIMEOUT: Final = timedelta(seconds=0.1)
"""The shortest time limit that the protocol allows."""

MAX_DURATION: Final = timedelta(days=365)
"""The longest delay or time limit that the protocol allows."""

MAX_FACTOR: Final = 100

TaskT = TypeVar("TaskT", bound=BaseModel, default=Any)
ResultT = TypeVar("ResultT", bound=BaseModel | None, default=None)
TaskMetadataT = TypeVar("TaskMetadataT", bound=BaseModel, default=Empty)
DataT = TypeVar("DataT", bound=BaseModel, default=Empty)
MetadataT = TypeVar("MetadataT", bound=BaseModel, default=Empty)
PlainT = TypeVar("PlainT", bound=BaseModel)


class _OpenEnum(StrEnum):
    """Values of the protocol, to which a newer manager may add others."""

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the member with this value; for an unknown value, an object with that text that equals no member."""
        try:
            return cls(text)
        except ValueError:
            unknown = str.__new__(cls, text)
            unknown._name_ = unknown._value_ = text
            return unknown

    @override
    def __reduce_ex__(self, proto: object) -> tuple[Any, ...]:
        """Unpickle with `read`, because the constructor accepts no unknown value."""
        return type(self).read, (self.value,)


class Priority(_OpenEnum):
    """The priority of a job. Tasks of a higher priority are claimed before all tasks of a lower one."""

    VERY_HIGH = "VERY_HIGH"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    VERY_LOW = "VERY_LOW"


class JobStatus(_OpenEnum):
    """The status of a job. COMPLETED, FAILED and ABORTED are final."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class StageStatus(_OpenEnum):
    """The status of a stage. COMPLETED, FAILED and ABORTED are final.

    A WAITING stage starts when `Producer.start_stage` is called.
    """

    CREATED = "CREATED"
    WAITING = "WAITING"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class TaskStatus(_OpenEnum):
    """The status of a task. COMPLETED, FAILED and ABORTED are final.

    A RETRIED task waits for its next attempt.
    """

    CREATED = "CREATED"
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    RETRIED = "RETRIED"
    ABORTED = "ABORTED"


@dataclass(frozen=True)
class JobType(Generic[DataT, MetadataT]):
    """A type of job.

    >>> gallery = JobType("gallery", data=GalleryData)

    Args:
        name: 2 to 50 characters.
        data: The model of the job's data.
        metadata: The model of the job's metadata, which can change after the job is created.

    Raises:
        ConfigurationError: the name is too short or too long, or is not valid Unicode.
        TypeError: a model is not a class derived from `pydantic.BaseModel`.
    """

    name: str
    data: type[DataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # the TypeVar's default
    metadata: type[MetadataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # likewise

    def __post_init__(self) -> None:
        _check_length("The name of a job type", self.name, shortest=2)
        _check_models(f"the job type {self.name!r}", data=self.data, metadata=self.metadata)


@dataclass(frozen=True)
class StageType(Generic[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]):
    """A type of stage, with the models of its tasks.

    >>> thumbnails = StageType("thumbnails", task=ThumbnailTask, result=ThumbnailResult, max_attempts=5)

    A stage that is created with this type keeps `max_attempts`, `timeout` and `retry` for its tasks, unless `NewStage`
    or a task sets its own. All three need a manager with the feature `task-defaults`.

    Args:
        name: 1 to 50 characters.
        task: The model of each task's data.
        result: The model of what a handler returns. None if handlers return nothing: a returned value then fails the
            attempt.
        task_metadata: The model of each task's metadata.
        data: The model of the data of the stage itself.
        metadata: The model of the metadata of the stage itself.
        max_attempts: The number of attempts before a task fails permanently: 1 or more. None: 3.
        timeout: The time limit of one attempt: 0.1 s to 365 days. None: no limit.
        retry: How long a task waits after a failed attempt. None: it does not wait.

    Raises:
        ConfigurationError: the name is too short or too long, or is not valid Unicode, or an option is out of range.
        TypeError: a model is not a class derived from `pydantic.BaseModel`, or an option has the wrong type.
    """

    name: str
    task: type[TaskT] = field(kw_only=True)
    result: type[ResultT] | None = field(default=None, kw_only=True)
    task_metadata: type[TaskMetadataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # the TypeVar's default
    data: type[DataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # likewise
    metadata: type[MetadataT] = field(default=Empty, kw_only=True)  # type: ignore[assignment]  # likewise
    max_attempts: int | None = field(default=None, kw_only=True)
    timeout: timedelta | None = field(default=None, kw_only=True)
    retry: "RetryPolicy | None" = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_length("The name of a stage type", self.name, shortest=1)
        owner = f"the stage type {self.name!r}"
        _check_models(owner, task=self.task, task_metadata=self.task_metadata, data=self.data, metadata=self.metadata)
        if self.result is not None:
            _check_models(owner, result=self.result)
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ConfigurationError(f"The max_attempts of {owner} must be 1 or more, not {self.max_attempts}.")
        if self.timeout is not None:
            check_duration(f"The timeout of {owner}", self.timeout)
            if not MIN_TIMEOUT <= self.timeout <= MAX_DURATION:
                raise ConfigurationError(f"The timeout of {owner} must be 0.1 s to 365 days, not {self.timeout}.")
        if self.retry is not None:
            check_instance(f"The retry of {owner}", self.retry, RetryPolicy)


AnyStageType: TypeAlias = StageType[Any, Any, Any, Any, Any]
"""A stage type with any models."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a task waits between a failed attempt and the next one. Create it with `fixed` or `exponential`.

    >>> RetryPolicy.exponential(timedelta(seconds=10), max_delay=timedelta(minutes=10), jitter=0.2)

    This task waits 10 s, 20 s, 40 s and so on, 10 minutes at most, each varied by up to 20 %.

    Args:
        strategy: `fixed` or `exponential`.
        delay: The delay after the first failed attempt: 0 to 365 days.
        factor: Each exponential delay is the one before it times this factor: 1 to 100, default 2.
        max_delay: The longest exponential delay: 0 to 365 days. None: 1 hour, or `delay` if that is longer.
        jitter: Each delay is made longer or shorter at random, by up to this share of it: 0 to 1, default 0. It spreads
            the retries of tasks that failed together.

    Raises:
        ConfigurationError: an argument is out of range.
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
            check_duration(f"The {name} of a retry policy", delay)
            if not timedelta() <= delay <= MAX_DURATION:
                raise ConfigurationError(f"The {name} of a retry policy must be 0 to 365 days, not {delay}.")
        if not 1 <= self.factor <= MAX_FACTOR:
            raise ConfigurationError(f"The factor of a retry policy must be 1 to {MAX_FACTOR}, not {self.factor}.")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"The jitter of a retry policy must be 0 to 1, not {self.jitter}.")

    @classmethod
    def fixed(cls, delay: timedelta, *, jitter: float = 0.0) -> Self:
        """Return a policy with the same delay after every failed attempt."""
        return cls("fixed", delay, jitter=jitter)

    @classmethod
    def exponential(
        cls,
        delay: timedelta = timedelta(seconds=1),
        *,
        factor: float = 2.0,
        max_delay: timedelta | None = None,
        jitter: float = 0.0,
    ) -> Self:
        """Return a policy whose delay grows with every failed attempt: 1 s, 2 s, 4 s and so on by default."""
        return cls("exponential", delay, factor, max_delay, jitter)


def retry_delay_seconds(policy: Mapping[str, Any], failed: int) -> float:
    """Return how long a task waits after this number of failed attempts, without jitter.

    With delay 5, factor 2 and maximum 60: 5, 10, 20, 40, 60, 60 … seconds.

    Args:
        policy: A retry policy in the format of the protocol.
        failed: 1 or more.
    """
    delay: float = policy["delaySeconds"]
    if policy["strategy"] == "fixed":
        return delay
    factor: float = policy.get("factor", 1)
    longest: float = policy.get("maxDelaySeconds", MAX_DURATION.total_seconds())
    # The loop ends at the maximum: further growth would change nothing, and would eventually overflow.
    for _ in range(failed - 1):
        if delay >= longest or not delay or factor == 1:
            break
        delay *= factor
    return min(delay, longest)


class TaskOptions(TypedDict, total=False):
    """The options of a task; see `NewTask`."""

    max_attempts: int | None
    timeout: timedelta | None
    retry: RetryPolicy | None
    delay: timedelta | None
    available_at: datetime | None


class NewTask(Generic[TaskT, TaskMetadataT]):
    """A task to create, with metadata or options. Without either, pass the task's data itself.

    >>> NewTask(ThumbnailTask(url=url), timeout=timedelta(minutes=5), delay=timedelta(hours=1))

    An option that is omitted is taken from the `TaskDefaults` of the stage, or else from its `StageType`. If neither
    sets it, a task has 3 attempts, no time limit and no delay. All options except `max_attempts` need a manager with
    part B of the protocol (feature `retry-policy`).

    Args:
        data: The input of the handler.
        metadata: It can change after the task is created.
        max_attempts: The number of attempts before the task fails permanently: 1 or more.
        timeout: The time limit of one attempt: 0.1 s to 365 days.
        retry: How long the task waits after a failed attempt.
        delay: How long the task waits before its first attempt: 0 to 365 days.
        available_at: When the task becomes available, with a time zone; an alternative to `delay`.
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
    """The options of those tasks of a stage that do not set their own; see `NewTask`.

    They take precedence over those of the `StageType`, each on its own.
    """

    max_attempts: int | None = None
    timeout: timedelta | None = None
    retry: RetryPolicy | None = None


class StageOptions(TypedDict, total=False):
    """The options of a stage; see `NewStage`."""

    waiting: bool
    weight: float | None
    task_defaults: TaskDefaults | None


class NewStage:
    """A stage to create together with its job.

    >>> NewStage(thumbnails, [ThumbnailTask(url=url) for url in urls], weight=3)

    Args:
        stage_type: The type of the stage.
        tasks: The tasks of the stage, each as its data or a `NewTask`. You can add more later.
        data: The data of the stage itself.
        metadata: The metadata of the stage itself; it can change after the stage is created.
        waiting: True creates a stage that starts when `Producer.start_stage` is called. Default False.
        weight: The weight of the stage in the progress of its job, relative to the other stages: 0.001 to 1000,
            default 1. Needs the feature `weighted-progress`.
        task_defaults: The options of tasks that do not set their own. Needs the feature `task-defaults`.
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
        self.tasks: Final[Iterable[Any]] = tasks if isinstance(tasks, list | tuple) else list(tasks)
        self.data: Final[Any] = data
        self.metadata: Final[Any] = metadata
        self.options: Final = options


def _check_length(subject: str, name: str, *, shortest: int) -> None:
    longest = 50
    if not shortest <= len(name) <= longest:
        raise ConfigurationError(f"{subject} must have {shortest} to {longest} characters: {name!r} has {len(name)}.")
    try:
        name.encode()
    except UnicodeError:
        raise ConfigurationError(f"{subject} must be valid Unicode, not {name!r}.") from None


def _check_models(owner: str, **models: object) -> None:
    for name, model in models.items():
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"The {name} of {owner} must be a class derived from pydantic.BaseModel, not {model!r}")
