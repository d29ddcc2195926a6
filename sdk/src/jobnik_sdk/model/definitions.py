"""Job types, stage types, and the options of jobs, stages and tasks: what an application defines once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, Literal, Self, TypeAlias, cast, overload

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar, override

from jobnik_sdk.model.arguments import (
    MAX_DURATION,
    Fault,
    check_choice,
    check_duration,
    check_flag,
    check_instance,
    check_integer,
    check_items,
    check_moment,
    check_number,
    check_text,
    invalid_definition,
    invalid_option,
    shown,
)
from jobnik_sdk.model.exceptions import ConfigurationError, InvalidPayloadError


class Empty(BaseModel):
    """A payload without fields: the default for data and metadata. Fields set by another client are ignored."""

    model_config = ConfigDict(frozen=True)


EMPTY: Final = Empty()
"""The only instance of `Empty`; as an argument it means that the payload was omitted."""

MIN_TIMEOUT: Final = timedelta(seconds=0.1)
"""The shortest time limit that the protocol allows."""

MAX_FACTOR: Final = 100
_LONGEST_NAME: Final = 50
_MIN_WEIGHT: Final = 0.001
_MAX_WEIGHT: Final = 1000

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
        check_text("The name of a job type", self.name, 2, _LONGEST_NAME)
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
        check_text("The name of a stage type", self.name, 1, _LONGEST_NAME)
        if self.name in {".", ".."}:  # clients and proxies remove them from a URL
            raise ConfigurationError(f"The name of a stage type must not be {self.name!r}.")
        owner = f"the stage type {self.name!r}"
        _check_models(owner, task=self.task, task_metadata=self.task_metadata, data=self.data, metadata=self.metadata)
        if self.result is not None:
            _check_models(owner, result=self.result)
        _check_attempts(self.max_attempts, self.timeout, self.retry, owner=owner)


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
        check_duration("The delay of a retry policy", self.delay, timedelta())
        if self.max_delay is not None:
            check_duration("The max_delay of a retry policy", self.max_delay, timedelta())
        check_choice("The strategy of a retry policy", self.strategy, ("fixed", "exponential"), invalid_definition)
        check_number("The factor of a retry policy", self.factor, 1, MAX_FACTOR)
        check_number("The jitter of a retry policy", self.jitter, 0, 1)

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

    Raises:
        InvalidPayloadError: an option is out of range.
        TypeError: an option has the wrong type.
    """

    @overload
    def __init__(
        self: "NewTask[PlainT, Empty]",
        data: PlainT,
        *,
        max_attempts: int | None = None,
        timeout: timedelta | None = None,
        retry: RetryPolicy | None = None,
        delay: timedelta | None = None,
        available_at: datetime | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        data: TaskT,
        *,
        metadata: TaskMetadataT,
        max_attempts: int | None = None,
        timeout: timedelta | None = None,
        retry: RetryPolicy | None = None,
        delay: timedelta | None = None,
        available_at: datetime | None = None,
    ) -> None: ...

    def __init__(  # noqa: PLR0913 the options of a task
        self,
        data: Any,
        *,
        metadata: Any = EMPTY,
        max_attempts: int | None = None,
        timeout: timedelta | None = None,
        retry: RetryPolicy | None = None,
        delay: timedelta | None = None,
        available_at: datetime | None = None,
    ) -> None:
        _check_attempts(max_attempts, timeout, retry, fault=invalid_option)
        if delay is not None:
            check_duration("delay", delay, timedelta(), fault=invalid_option)
        if available_at is not None:
            check_moment("available_at", available_at)
            if delay is not None:
                raise InvalidPayloadError("available_at", "cannot be combined with delay.")
        self.data: Final[TaskT] = data
        self.metadata: Final[TaskMetadataT] = metadata
        self.max_attempts: Final = max_attempts
        self.timeout: Final = timeout
        self.retry: Final = retry
        self.delay: Final = delay
        self.available_at: Final = available_at


@dataclass(frozen=True, kw_only=True)
class TaskDefaults:
    """The options of those tasks of a stage that do not set their own; see `NewTask`.

    They take precedence over those of the `StageType`, each on its own.

    Raises:
        InvalidPayloadError: an option is out of range.
        TypeError: an option has the wrong type.
    """

    max_attempts: int | None = None
    timeout: timedelta | None = None
    retry: RetryPolicy | None = None

    def __post_init__(self) -> None:
        _check_attempts(self.max_attempts, self.timeout, self.retry, fault=invalid_option)


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

    Raises:
        InvalidPayloadError: an option is out of range.
        TypeError: an argument has the wrong type.
    """

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, Any, TaskMetadataT, Empty, Empty],
        tasks: "Iterable[TaskT | NewTask[TaskT, TaskMetadataT]]" = (),
        *,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, Any, TaskMetadataT, DataT, Empty],
        tasks: "Iterable[TaskT | NewTask[TaskT, TaskMetadataT]]" = (),
        *,
        data: DataT,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, Any, TaskMetadataT, Empty, MetadataT],
        tasks: "Iterable[TaskT | NewTask[TaskT, TaskMetadataT]]" = (),
        *,
        metadata: MetadataT,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, Any, TaskMetadataT, DataT, MetadataT],
        tasks: "Iterable[TaskT | NewTask[TaskT, TaskMetadataT]]" = (),
        *,
        data: DataT,
        metadata: MetadataT,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
    ) -> None: ...

    def __init__(  # noqa: PLR0913 the options of a stage
        self,
        stage_type: StageType[Any, Any, Any, Any, Any],
        tasks: Iterable[Any] = (),
        *,
        data: Any = EMPTY,
        metadata: Any = EMPTY,
        waiting: bool = False,
        weight: float | None = None,
        task_defaults: TaskDefaults | None = None,
    ) -> None:
        check_instance("stage_type", stage_type, StageType)
        check_items("tasks", tasks, "tasks")
        check_flag("waiting", waiting)
        if weight is not None:
            check_number("weight", weight, _MIN_WEIGHT, _MAX_WEIGHT, invalid_option)
        if task_defaults is not None:
            check_instance("task_defaults", task_defaults, TaskDefaults)
        self.stage_type: Final = stage_type
        self.tasks: Final[Iterable[Any]] = tasks if isinstance(tasks, list | tuple) else list(tasks)
        self.data: Final[Any] = data
        self.metadata: Final[Any] = metadata
        self.waiting: Final = waiting
        self.weight: Final = weight
        self.task_defaults: Final = task_defaults


def _check_attempts(
    max_attempts: object, timeout: object, retry: object, *, owner: str | None = None, fault: Fault = invalid_definition
) -> None:
    """Check the options of attempts; with an `owner`, errors name it."""

    def name(option: str) -> str:
        return option if owner is None else f"The {option} of {owner}"

    if max_attempts is not None:
        check_integer(name("max_attempts"), max_attempts, fault=fault)
    if timeout is not None:
        check_duration(name("timeout"), timeout, MIN_TIMEOUT, fault=fault)
    if retry is not None:
        check_instance(name("retry"), retry, RetryPolicy)


def _check_models(owner: str, **models: Any) -> None:  # noqa: ANN401 anything, if it is not type-checked
    for name, model in models.items():
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            wanted = "a class derived from pydantic.BaseModel"
            raise TypeError(f"The {name} of {owner} must be {wanted}, not {shown(cast('object', model))}")
