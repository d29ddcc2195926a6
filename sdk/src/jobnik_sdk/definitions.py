"""What an application says once about its work: job types, stage types and the models of what they carry."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Generic

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

from jobnik_sdk.errors import ConfigurationError


class Empty(BaseModel):
    """The model of data or metadata that has no fields; fields that someone else put there are ignored."""

    model_config = ConfigDict(frozen=True)


EMPTY: Final = Empty()
"""The one value of `Empty` that anybody needs."""

TaskT = TypeVar("TaskT", bound=BaseModel, default=Any)
ResultT = TypeVar("ResultT", bound=BaseModel | None, default=None)
TaskMetadataT = TypeVar("TaskMetadataT", bound=BaseModel, default=Empty)
DataT = TypeVar("DataT", bound=BaseModel, default=Empty)
MetadataT = TypeVar("MetadataT", bound=BaseModel, default=Empty)


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
    data: type[DataT] = field(default=Empty, kw_only=True)  # pyright: ignore[reportAssignmentType] the TypeVar's default
    metadata: type[MetadataT] = field(default=Empty, kw_only=True)  # pyright: ignore[reportAssignmentType] likewise

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
    task_metadata: type[TaskMetadataT] = field(default=Empty, kw_only=True)  # pyright: ignore[reportAssignmentType] the TypeVar's default
    data: type[DataT] = field(default=Empty, kw_only=True)  # pyright: ignore[reportAssignmentType] likewise
    metadata: type[MetadataT] = field(default=Empty, kw_only=True)  # pyright: ignore[reportAssignmentType] likewise

    def __post_init__(self) -> None:
        _check_length("A stage type's name", self.name, shortest=1)


@dataclass(frozen=True)
class NewTask(Generic[TaskT, TaskMetadataT]):
    """A task to be created, where its data alone does not say enough.

    `max_attempts` (1 or more) is how often it is tried before it fails for good; None leaves it to the manager: 3.
    """

    data: TaskT
    metadata: TaskMetadataT = field(default=EMPTY, kw_only=True)  # pyright: ignore[reportAssignmentType] the TypeVar's default
    max_attempts: int | None = field(default=None, kw_only=True)


def _check_length(what: str, name: str, *, shortest: int) -> None:
    longest = 50
    if not shortest <= len(name) <= longest:
        raise ConfigurationError(f"{what} has {shortest} to {longest} characters, which {name!r} has not.")
