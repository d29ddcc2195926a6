"""Request bodies of claims and reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple, cast
from uuid import UUID

from pydantic import (
    AfterValidator,
    ConfigDict,
    FailFast,
    Field,
    GetPydanticSchema,
    JsonValue,
    SkipValidation,
    StrictBool,
    StrictInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import core_schema

from reference_manager.api.common.errors import ErrorResponse, validation_message
from reference_manager.api.common.fields import (
    WHOLE,
    YEAR,
    Body,
    BodyContext,
    Checkpoint,
    Id,
    LeaseId,
    NewWorkerId,
    Seconds,
    Text,
    WorkerId,
    finite,
)
from reference_manager.domain.commands import Claim, Report
from reference_manager.domain.payloads import encode, encode_optional
from reference_manager.domain.states import Outcome

MAX_TASKS = 500

_SETTLEMENT: JsonDict = {
    "workerId": "host-1",
    "results": [{"taskId": "019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00", "leaseId": 17, "outcome": "COMPLETED"}],
}


class ClaimBody(Body):
    """A claim of tasks."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"workerId": "host-1", "limit": 10}]})

    worker_id: Annotated[
        NewWorkerId, Field(description="The holder of the leases: a worker uses a new id each time it starts.")
    ]
    limit: Annotated[StrictInt, Field(ge=1, le=MAX_TASKS, description="The maximum number of tasks."), WHOLE] = 1
    wait_seconds: Annotated[
        Seconds, Field(ge=0, le=30, description="How long to wait for the first task if none is waiting.")
    ] = 0
    lease_seconds: Annotated[
        Seconds, Field(ge=1, le=3600, description="How long a lease lasts unless a heartbeat renews it.")
    ] = 30

    def request(self, *, minimal: bool) -> Claim:
        """Convert the body to a command of the engine."""
        lease, wait = timedelta(seconds=self.lease_seconds), timedelta(seconds=self.wait_seconds)
        return Claim(self.worker_id, self.limit, lease, wait, minimal)


class ErrorBody(Body):
    """The error of a failed attempt."""

    type: Annotated[Text, StringConstraints(max_length=200), Field(description="The class of the error.")]
    message: Annotated[Text, StringConstraints(max_length=10_000)] = ""
    stack: Annotated[Text, StringConstraints(max_length=50_000)] = ""


class ReportBody(Body):
    """The outcome of an attempt."""

    task_id: Id
    lease_id: LeaseId
    outcome: Annotated[
        Literal["COMPLETED", "FAILED", "RELEASED", "SNOOZED"],
        Field(
            description="RELEASED and SNOOZED return the task to the queue, SNOOZED for later. Neither uses up an "
            "attempt."
        ),
    ]
    result: Annotated[JsonValue, AfterValidator(finite), Field(description="The result of a completed task.")] = None
    error: Annotated[ErrorBody | None, Field(description="The error of a failed attempt.")] = None
    retryable: Annotated[StrictBool, Field(description="Whether a failed task may be retried.")] = True
    delay_seconds: Annotated[
        Seconds | None,
        Field(
            ge=0,
            le=YEAR,
            description="How long a task that returns to the queue cannot be claimed. Null: the delay of the retry "
            "policy after a failed attempt, otherwise no delay.",
        ),
    ] = None
    checkpoint: Checkpoint = None

    def request(self, worker_id: str) -> Report:
        """Convert the body to a command of the engine."""
        return Report(
            self.task_id,
            self.lease_id,
            worker_id,
            Outcome(self.outcome),
            encode_optional(self.result if self.outcome == "COMPLETED" else None),
            encode(self.error.model_dump()) if self.error and self.outcome == "FAILED" else None,
            self.retryable,
            None if self.delay_seconds is None else timedelta(seconds=self.delay_seconds),
            encode_optional(None if self.outcome == "COMPLETED" else self.checkpoint),
        )


class SettleBody(Body):
    """Reports of one worker."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SETTLEMENT]})

    worker_id: WorkerId
    # Each report is validated on its own, later, so that an invalid one does not affect the others.
    results: Annotated[list[Annotated[ReportBody, SkipValidation]], Field(min_length=1, max_length=MAX_TASKS)]

    def convert(self, _context: BodyContext) -> "Sequence[Item]":  # noqa: D102 - as in the base class
        return self.request()

    def request(self) -> "Sequence[Item]":
        """Validate the reports, and convert them to commands of the engine."""
        return self._completions() or [
            Item(_ids(item), body if isinstance(body, ErrorResponse) else body.request(self.worker_id))
            for item, body in zip(self.results, _validated(self.results), strict=True)
        ]

    def _completions(self) -> "Sequence[Item]":
        """Return the items if all of them are valid reports of completed tasks. Nearly all requests are like this.

        Without a model for each report, this takes a quarter of the time.
        """
        try:
            completions = _COMPLETIONS.validate_python(self.results)
        except ValidationError:
            return ()
        return [
            Item(_ids(item), completion.request(self.worker_id))
            for item, completion in zip(self.results, completions, strict=True)
        ]


class Item(NamedTuple):
    """An item of a request to settle tasks."""

    ids: dict[str, Any]
    """The ids of the task and the lease, as the client sent them."""
    report: Report | ErrorResponse
    """The report, or the error if the item is invalid."""


def _validated(items: Sequence[object]) -> Sequence[ReportBody | ErrorResponse]:
    """Return each item as a report, or the error if it is invalid."""
    try:
        return _REPORTS.validate_python(items)
    except ValidationError:
        return [_validated_one(item) for item in items]


def _validated_one(item: object) -> ReportBody | ErrorResponse:
    try:
        return ReportBody.model_validate(item)
    except ValidationError as error:
        return ErrorResponse(400, "VALIDATION_ERROR", validation_message(error.errors()[0]))


def _ids(item: object) -> dict[str, Any]:
    named = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    return {"taskId": named.get("taskId"), "leaseId": named.get("leaseId")}


_REPORTS = TypeAdapter[Sequence[ReportBody]](list[ReportBody])


@dataclass(slots=True)
class _Completion:
    """A report of a completed task: a part of what ``ReportBody`` accepts."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel, extra="forbid")

    # Of the forms of a UUID, only the canonical one has 36 characters. Comparing it with a pattern takes twice as long.
    task_id: Annotated[
        UUID,
        GetPydanticSchema(
            lambda uuid, handler: core_schema.chain_schema(
                [core_schema.str_schema(min_length=36, max_length=36), handler(uuid)]
            )
        ),
    ]
    lease_id: LeaseId
    outcome: Literal["COMPLETED"]
    result: Annotated[JsonValue, AfterValidator(finite)] = None

    def request(self, worker_id: str) -> Report:
        """Convert the report to a command of the engine."""
        return Report(self.task_id, self.lease_id, worker_id, Outcome.COMPLETED, encode_optional(self.result))


_COMPLETIONS = TypeAdapter[Sequence[_Completion]](Annotated[list[_Completion], FailFast()])
