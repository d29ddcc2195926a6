"""Request bodies of claims and reports."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, cast
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
    with_config,
)
from pydantic.config import JsonDict
from pydantic_core import core_schema
from typing_extensions import TypedDict

from reference_manager.api.common.errors import ErrorResponse, validation_message
from reference_manager.api.common.fields import (
    MAX_LEASE_ID,
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

_LOWER_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

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

    def convert(self, _context: BodyContext) -> "Settlement":  # noqa: D102 - as in the base class
        return self.request()

    def request(self) -> "Settlement":
        """Validate the reports, and convert them to commands of the engine."""
        reports = [
            body if isinstance(body, ErrorResponse) else body.request(self.worker_id)
            for body in _validated(self.results)
        ]
        return Settlement(reports, [_ids(item) for item in self.results])


class Settlement(NamedTuple):
    """A request to settle tasks."""

    reports: Sequence[Report | ErrorResponse]
    """The reports; for an invalid one, the error."""
    ids: Sequence[Mapping[str, Any]]
    """For each report, the `taskId` and the `leaseId` that the client sent, among others."""


def read_completions(body: bytes) -> Settlement | None:
    """Read a request whose reports are all of completed tasks, as nearly all are. None: read it as a ``SettleBody``.

    Without a model for each report, and read in one step, a report takes a third of the time.
    """
    try:
        request = _COMPLETIONS.validate_json(body)
    except ValidationError:
        return None
    worker_id, completed = request["workerId"], Outcome.COMPLETED
    reports = [
        Report(item["taskId"], item["leaseId"], worker_id, completed)
        if (result := item.get("result")) is None
        else Report(item["taskId"], item["leaseId"], worker_id, completed, encode(result))
        for item in request["results"]
    ]
    return Settlement(reports, request["results"])


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


@with_config(extra="forbid")
class _Completion(TypedDict):
    """A report of a completed task: a part of what ``ReportBody`` accepts."""

    # A response that repeats it has the form that the client sent: UUIDs are shown in lower case.
    taskId: Annotated[
        UUID,
        GetPydanticSchema(
            lambda uuid, handler: core_schema.chain_schema([core_schema.str_schema(pattern=_LOWER_UUID), handler(uuid)])
        ),
    ]
    leaseId: Annotated[StrictInt, Field(ge=1, le=MAX_LEASE_ID)]
    outcome: Literal["COMPLETED"]
    result: NotRequired[Annotated[JsonValue, AfterValidator(finite)]]


@with_config(extra="forbid")
class _CompletionsBody(TypedDict):
    """A part of what ``SettleBody`` accepts."""

    workerId: WorkerId
    results: Annotated[list[_Completion], FailFast(), Field(min_length=1, max_length=MAX_TASKS)]


_COMPLETIONS = TypeAdapter(_CompletionsBody)
