"""A task source for managers with part B of the protocol: claims and reports of many tasks, under leases."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import cache
from typing import Any, Final, Generic, NotRequired
from urllib.parse import quote
from uuid import UUID

from httpx2 import Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict

from jobnik_sdk.errors import JobnikError, UnexpectedAnswerError
from jobnik_sdk.execution.outcomes import Completed, Failed, Outcome, Released, Snoozed
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.http.connections import Pool
from jobnik_sdk.model.definitions import EMPTY, AnyStageType, Empty, TaskMetadataT, TaskT
from jobnik_sdk.model.payloads import first_validation_error
from jobnik_sdk.observability import spans
from jobnik_sdk.observability.logging import RuntimeLogger
from jobnik_sdk.worker.report_queue import UNDECIDED, ReportQueue
from jobnik_sdk.worker.reports import record_reports
from jobnik_sdk.worker.task_source import ACCEPTED, Assignment, ReportResult, TaskReport

MAX_WAIT: Final = timedelta(seconds=20)
"""The maximum time that a claim waits at the manager; shorter than the usual response timeouts of proxies."""
MAX_WAITING_CLAIMS: Final = 500
"""How many claims of idle stage types wait at the manager at a time: half of the connections it accepts by default."""
SHORT_WAIT: Final = timedelta(seconds=5)
"""The maximum time that a claim waits at the manager if there are more stage types than claims may wait."""
BUSY_SECONDS: Final = 60.0
"""How long after its last tasks a stage type counts as busy, so that its claims do not wait for those of others."""
MAX_TASKS: Final = 500
"""The maximum number of tasks in one claim, as set by the protocol."""

_UNREADABLE_ADVICE: Final = "compare the releases of worker and manager; the task returns when its lease expires"

_log: Final = RuntimeLogger(__name__)

_STATUS_LABELS: Final[Mapping[type[Outcome], str]] = {
    Completed: "COMPLETED",
    Failed: "FAILED",
    Snoozed: "SNOOZED",
    Released: "CANCELLED",
}
"""The label `status` in the metrics of reports."""


class LeasedTaskSource:
    """Claims tasks under leases, which the heartbeat renews (see `Heartbeat`).

    Args:
        client: The connection to the manager.
        worker_id: The id of the worker that holds the leases; no other process may ever use it.
        lease: How long a task stays with the worker without a heartbeat.
        stage_types: The number of stage types that the worker claims.
    """

    long_polls = True

    def __init__(self, client: JobnikClient, worker_id: str, lease: timedelta, stage_types: int = 1) -> None:
        longest = MAX_WAIT if stage_types <= MAX_WAITING_CLAIMS else SHORT_WAIT
        self._client = client
        self._worker_id = worker_id
        self._claim_options = {
            "workerId": worker_id,
            # Well below the client's timeout: otherwise, every claim on an empty queue would end as a lost response.
            "waitSeconds": min(longest, client.timeout / 2).total_seconds(),
            "leaseSeconds": lease.total_seconds(),
        }
        self._waiting_claims = asyncio.Semaphore(MAX_WAITING_CLAIMS)
        self._busy_until: dict[str, float] = {}  # by stage type, on the monotonic clock
        self._report_queue = ReportQueue(self._send_reports)

    @property
    def held_back(self) -> int:
        """The number of delayed reports; see `TaskSource`."""
        return self._report_queue.held_back

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Assignment[Any, Any]]:
        """Claim up to `limit` tasks; if there are none, wait at the manager for the first. See `TaskSource`."""
        path = f"/v1/stages/{quote(stage_type.name, safe='')}/tasks/claim"
        body = {**self._claim_options, "limit": min(limit, MAX_TASKS)}
        is_busy = time.monotonic() < self._busy_until.get(stage_type.name, 0.0)
        async with nullcontext() if is_busy else self._waiting_claims:
            # No retry after a lost response: the tasks in it return to the queue when their leases expire.
            response = await self._client.request(
                "POST", path, json=body, prefer="return=minimal", retry=False, pool=Pool.CLAIMS
            )
        tasks = _read_claim(stage_type, response)
        if tasks:
            self._busy_until[stage_type.name] = time.monotonic() + BUSY_SECONDS
        return tasks

    def submit(self, report: TaskReport, on_result: Callable[[ReportResult], None]) -> None:
        """Deliver a report, together with others that are submitted at the same time; see `TaskSource`."""
        self._report_queue.put(report, on_result)

    async def deregister(self) -> None:
        """Deregister the worker: the manager releases its remaining tasks, and their attempts do not count."""
        self._report_queue.close()
        with suppress(JobnikError):  # then the tasks return when their leases expire
            await self._client.request("DELETE", f"/v1/workers/{quote(self._worker_id, safe='')}", pool=Pool.REPORTS)

    async def _send_reports(self, reports: Sequence[TaskReport]) -> Sequence[ReportResult]:
        started = time.perf_counter()
        body = b'{"workerId":%s,"results":[%s]}' % (to_json(self._worker_id), b",".join(map(_encode, reports)))
        with spans.start_settle((report.stage_type for report in reports), (report.task for report in reports)):
            response = await self._client.request(
                "POST", "/v1/tasks/settle", json=body, prefer="return=minimal", retry=False, pool=Pool.REPORTS
            )
        results = _read_results(response, len(reports))
        _record_metrics(reports, results, time.perf_counter() - started)
        return results


class _Result(TypedDict):
    accepted: bool
    index: NotRequired[int]
    code: NotRequired[str]
    message: NotRequired[str]


class _SettleResponse(BaseModel):
    """Either `results` or, in the minimal representation, the number of accepted reports, and the other results."""

    accepted: int = 0
    refused: list[_Result] = []
    undecided: list[_Result] = []
    results: list[_Result] | None = None


def _read_results(response: Response, expected: int) -> Sequence[ReportResult]:
    """Read the result of each report, from the full or the minimal representation."""
    body = read_one(_SettleResponse, response)
    if body.results is not None:
        refused = {index: result for index, result in enumerate(body.results) if not result["accepted"]}
        received = len(body.results)
    else:
        refused = {result.get("index", -1): result for result in (*body.refused, *body.undecided)}
        received = body.accepted + len(refused)
    if received != expected or not all(0 <= index < expected for index in refused):
        message = f"The response to {expected} reports has {received} results, {len(refused)} of them not accepted."
        raise UnexpectedAnswerError(message, status=response.status_code, code="UNEXPECTED_ANSWER")
    results = [ACCEPTED] * expected
    for index, result in refused.items():
        results[index] = ReportResult(accepted=False, code=result.get("code", ""), message=result.get("message", ""))
    return results


def _record_metrics(reports: Sequence[TaskReport], results: Sequence[ReportResult], seconds: float) -> None:
    # A list, because a generator takes twice as long.
    decided = [
        (report.stage_type, type(report.outcome), result.accepted)
        for report, result in zip(reports, results, strict=True)
        if result is ACCEPTED or result.code not in UNDECIDED
    ]
    counts = Counter(decided)
    for (stage_type, outcome, accepted), count in counts.items():
        record_reports(stage_type, _STATUS_LABELS[outcome], seconds, accepted=accepted, count=count)


class _StageAndJob(BaseModel):
    stage: dict[str, Any]
    job: dict[str, Any]


class _Claim(BaseModel, Generic[TaskT, TaskMetadataT]):
    """The response to a claim; the minimal representation has each stage and job once, in `stages`."""

    tasks: list[Assignment[TaskT, TaskMetadataT]]
    stages: list[_StageAndJob] = []


class _UntypedClaim(BaseModel):
    model_config = ConfigDict(frozen=True)

    tasks: list[Any]
    stages: list[_StageAndJob] = []


class _Lease(BaseModel):
    """What a report of a task needs."""

    id: UUID
    lease_id: int = Field(alias="leaseId")


@cache
def _adapters(stage_type: AnyStageType) -> tuple[TypeAdapter[_Claim[Any, Any]], TypeAdapter[Assignment[Any, Any]]]:
    """Return the parsers for a claim of this stage type, and for one task in it."""
    # These annotations exist only at run time, for pydantic.
    models: Any = (stage_type.task, stage_type.task_metadata)
    claim: Any = _Claim.__class_getitem__(models)
    assignment: Any = Assignment.__class_getitem__(models)
    return TypeAdapter(claim), TypeAdapter(assignment)


def _read_claim(stage_type: AnyStageType, response: Response) -> Sequence[Assignment[Any, Any]]:
    claim_adapter, assignment_adapter = _adapters(stage_type)
    try:
        claim = claim_adapter.validate_json(response.content)
        tasks, stages = claim.tasks, claim.stages
    except ValidationError:
        # A task that does not fit its models must not affect the others, so each task is parsed separately.
        untyped = _read_untyped_claim(response)
        documents = map(to_json, untyped.tasks)
        tasks = [task for document in documents if (task := _read_assignment(assignment_adapter, document))]
        stages = untyped.stages
    by_stage_id = {str(entry.stage.get("id")): entry for entry in stages}
    for task in tasks:
        if (entry := by_stage_id.get(task.stage_id)) is not None:
            # Not by assignment, for which pydantic takes ten times as long.
            fields = vars(task)
            fields["stage"], fields["job"] = entry.stage, entry.job
    return tasks


def _read_untyped_claim(response: Response) -> _UntypedClaim:
    """Read a claim, even if a payload is nested as deep as the manager allows, to which the claim adds levels."""
    try:
        return _UntypedClaim.model_validate(json.loads(response.content))
    except (ValueError, RecursionError):
        return read_one(_UntypedClaim, response)  # which raises the error


def _read_assignment(adapter: TypeAdapter[Assignment[Any, Any]], document: bytes) -> Assignment[Any, Any] | None:
    """Read a claimed task. If it cannot even be reported as failed, log this and return None."""
    try:
        return adapter.validate_json(document)
    except ValidationError as error:
        field, reason = first_validation_error(error)
    try:
        task = Assignment[Empty, Empty].model_validate_json(document)
    except ValidationError:
        try:
            lease = _Lease.model_validate_json(document)
        except ValidationError:
            _log.error("claimed task unreadable", field=field, reason=reason, advice=_UNREADABLE_ADVICE)
            return None
        task = Assignment[Empty, Empty](
            id=lease.id, stage_id="", attempts=0, max_attempts=1, data=EMPTY, metadata=EMPTY, lease_id=lease.lease_id
        )
    task.validation_error = f"{field}: {reason}"
    return task


def _encode(report: TaskReport) -> bytes:
    """Return a report as JSON. Results and checkpoints are JSON documents already and are copied unchanged."""
    task, outcome = report.task, report.outcome
    start = b'{"taskId":%b,"leaseId":%b,"outcome":' % (to_json(task.id), to_json(task.lease_id))
    if isinstance(outcome, Completed):
        return start + (b'"COMPLETED"}' if outcome.result is None else b'"COMPLETED","result":%s}' % outcome.result)
    checkpoint = b"" if report.checkpoint is None else b',"checkpoint":%s' % report.checkpoint.document
    match outcome:
        case Failed():
            error = {"type": outcome.error_type, "message": outcome.message, "stack": outcome.stack}
            fields: dict[str, Any] = {"error": error, "retryable": outcome.retryable}
            if outcome.delay is not None:
                fields["delaySeconds"] = outcome.delay.total_seconds()
            return b'%s"FAILED"%s,%s' % (start, checkpoint, to_json(fields)[1:])
        case Snoozed(delay):
            return b'%s"SNOOZED"%s,"delaySeconds":%s}' % (start, checkpoint, to_json(delay.total_seconds()))
        case Released():
            return b'%s"RELEASED"%s}' % (start, checkpoint)
