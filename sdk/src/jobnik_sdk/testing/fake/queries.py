"""Query parameters."""

from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints
from pydantic.fields import FieldInfo

from jobnik_sdk.model.definitions import JobStatus, Priority, StageStatus, TaskStatus
from jobnik_sdk.testing.fake.bodies import Id, Instant, StageTypeName, Text

Conditions: TypeAlias = list[tuple[str, str]]
"""Names of members of the metadata, each with its value as text."""
HISTORY_PAGE_SIZE: Final = 100
"""The size of a page of attempts or status changes without a limit."""
NUMBERED_PAGE_SIZE: Final = 10
"""The size of a numbered page without `page_size`."""


class OfPartB:
    """Marks a parameter that part A does not have."""


def is_of_part_b(parameter: FieldInfo) -> bool:
    """Return whether part A does not have a parameter."""
    return any(isinstance(mark, OfPartB) for mark in parameter.metadata)


def has_several_values(parameter: FieldInfo) -> bool:
    """Return whether a parameter has a list of values."""
    kinds = (parameter.annotation, *get_args(parameter.annotation))
    return any(get_origin(kind) is list for kind in kinds)


def _condition(value: Any) -> Any:  # noqa: ANN401 a parameter of the query
    name, colon, content = str(value).partition(":")
    if not colon:
        raise ValueError("must be a name and a value with a colon between them, such as album:2026")
    return name, content


def _digits(value: Any) -> Any:  # noqa: ANN401 a parameter of the query
    """Reject the other forms of a number that pydantic accepts, such as `1_0` and `5.0`."""
    if not (str(value).isascii() and str(value).isdigit()):
        raise ValueError("must be a whole number")
    return value


def _split(values: list[str]) -> list[str]:
    return [part for text in values for part in text.split(",")]


_Number: TypeAlias = Annotated[int, BeforeValidator(_digits)]
_SEPARATED = BeforeValidator(_split)
_Conditions: TypeAlias = Annotated[
    list[Annotated[tuple[Text, Text], BeforeValidator(_condition)]], Field(max_length=10), OfPartB()
]


class Query(BaseModel):
    """A query without parameters, and the base of all others."""


class PageQuery(Query):
    """A page of a list."""

    limit: Annotated[_Number | None, Field(ge=1, le=500), OfPartB()] = None
    cursor: Annotated[str | None, OfPartB()] = None
    order: Annotated[Literal["asc", "desc"], OfPartB()] = "asc"


class HistoryQuery(PageQuery):
    """A page of attempts or status changes."""

    limit: Annotated[_Number | None, Field(ge=1, le=500), OfPartB()] = HISTORY_PAGE_SIZE


class NumberedQuery(PageQuery):
    """A page of a list, possibly by its number."""

    page: Annotated[_Number | None, Field(ge=1, le=2**31 - 1), OfPartB()] = None
    page_size: Annotated[_Number | None, Field(ge=1, le=100), OfPartB()] = None


class JobQuery(NumberedQuery):
    """Selects the jobs to list; the dates refer to their creation and are inclusive."""

    job_name: Annotated[Text, StringConstraints(max_length=50)] | None = None
    priority: Priority | None = None
    status: Annotated[list[JobStatus] | None, Field(max_length=10), _SEPARATED, OfPartB()] = None
    metadata: _Conditions = []
    from_date: Instant | None = None
    end_date: Instant | None = None
    should_return_stages: bool = False


class StagesOfJobQuery(NumberedQuery):
    """How to list the stages of a job."""

    should_return_tasks: bool = False


class StageQuery(StagesOfJobQuery):
    """Selects the stages to list."""

    job_id: Id | None = None
    stage_type: StageTypeName | None = None
    stage_operation_status: Annotated[list[StageStatus] | None, Field(max_length=10), _SEPARATED] = None
    metadata: _Conditions = []


class TaskQuery(NumberedQuery):
    """Selects the tasks to list; the dates refer to their creation and are inclusive."""

    stage_id: Id | None = None
    stage_type: StageTypeName | None = None
    status: Annotated[list[TaskStatus] | None, Field(max_length=10), _SEPARATED] = None
    metadata: _Conditions = []
    from_date: Instant | None = None
    end_date: Instant | None = None


class OneJobQuery(Query):
    """Selects the parts of a job to return."""

    should_return_stages: bool = False
    should_return_progress: Annotated[bool, OfPartB()] = False


class OneStageQuery(Query):
    """Selects the parts of a stage to return."""

    should_return_tasks: bool = False
    should_return_progress: Annotated[bool, OfPartB()] = False
