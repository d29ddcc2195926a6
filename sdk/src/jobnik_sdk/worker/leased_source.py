"""A manager with part B of the protocol: many tasks in one claim, under leases, and many reports in one request."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any, Final, Generic, NotRequired
from urllib.parse import quote

from httpx2 import Response
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict

from jobnik_sdk.errors import JobnikError, UnexpectedAnswerError
from jobnik_sdk.execution.outcomes import Completed, Failed, Released, Snoozed
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.definitions import Empty, TaskMetadataT, TaskT
from jobnik_sdk.model.payloads import first_validation_error
from jobnik_sdk.observability import metrics, spans
from jobnik_sdk.worker.report_queue import ReportQueue
from jobnik_sdk.worker.task_source import ACCEPTED, AnyStageType, Assignment, ReportResult, TaskReport

MAX_WAIT: Final = timedelta(seconds=20)
"""How long a claim waits at the manager: less than proxies commonly allow for an answer."""
MAX_TASKS: Final = 500
"""In one claim, as the protocol allows."""


class LeasedTaskSource:
    """A desk where tasks are lent, for `lease` at a time; a heartbeat renews it (see `Heartbeat`).

    Args:
        client: To the manager.
        worker_id: Whose leases they are; no other process may ever use it.
        lease: How long a task stays the worker's without a heartbeat.
    """

    waits = True

    def __init__(self, client: JobnikClient, worker_id: str, lease: timedelta) -> None:
        self._client = client
        self._worker_id = worker_id
        self._claim_options = {
            "workerId": worker_id,
            # Well within the client's patience: else each claim on an empty queue would end as a lost answer.
            "waitSeconds": min(MAX_WAIT, client.timeout / 2).total_seconds(),
            "leaseSeconds": lease.total_seconds(),
        }
        self._report_queue = ReportQueue(self._report)

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Assignment[Any, Any]]:
        """Claim up to `limit` tasks, and wait for the first of them if there are none; see `TaskSource`."""
        path = f"/v1/stages/{quote(stage_type.name, safe='')}/tasks/claim"
        wish = {**self._claim_options, "limit": min(limit, MAX_TASKS)}
        # Not repeated when the answer was lost: what it brought comes back by its leases.
        answer = await self._client.request("POST", path, json=wish, prefer="return=minimal", retry=False)
        return _read(stage_type, answer)

    def settle(self, report: TaskReport, decided: Callable[[ReportResult], None]) -> None:
        """Say how an attempt ended, together with others that end at the same time; see `TaskSource`."""
        self._report_queue.put(report, decided)

    async def leave(self) -> None:
        """Say goodbye: what is still lent to this worker goes back, and no attempt is burnt."""
        with suppress(JobnikError):  # then the leases bring it back
            await self._client.request("DELETE", f"/v1/workers/{quote(self._worker_id, safe='')}")

    async def _report(self, reports: Sequence[TaskReport]) -> Sequence[ReportResult]:
        started = time.perf_counter()
        body = b'{"workerId":%s,"results":[%s]}' % (to_json(self._worker_id), b",".join(map(_encode, reports)))
        with spans.start_settle((one.stage_type for one in reports), (one.task for one in reports)):
            answer = await self._client.request(
                "POST", "/v1/tasks/settle", json=body, prefer="return=minimal", retry=False
            )
        results = _read_verdicts(answer, len(reports))
        _count(reports, results, time.perf_counter() - started)
        return results


class _Result(TypedDict):
    accepted: bool
    index: NotRequired[int]
    code: NotRequired[str]
    message: NotRequired[str]


class _Settled(BaseModel):
    accepted: int = 0
    refused: list[_Result] = []
    results: list[_Result] | None = None


def _read_verdicts(answer: Response, wanted: int) -> Sequence[ReportResult]:
    """Read what became of each report; a manager that tells no more than is needed tells those that it refused."""
    told = read_one(_Settled, answer)
    if told.results is not None:
        refused = {index: result for index, result in enumerate(told.results) if not result["accepted"]}
        answered = len(told.results)
    else:
        refused = {result.get("index", -1): result for result in told.refused}
        answered = told.accepted + len(refused)
    if answered != wanted or not all(0 <= index < wanted for index in refused):
        message = f"{wanted} reports were answered by {answered} results, {len(refused)} of them refusals."
        raise UnexpectedAnswerError(message, status=answer.status_code, code="UNEXPECTED_ANSWER")
    results = [ACCEPTED] * wanted
    for index, result in refused.items():
        results[index] = ReportResult(accepted=False, code=result.get("code", ""), message=result.get("message", ""))
    return results


def _count(reports: Sequence[TaskReport], results: Sequence[ReportResult], seconds: float) -> None:
    """Count reports: all of a request took as long as the request."""
    kinds = Counter(
        (report.stage_type, type(report.outcome), result.accepted)
        for report, result in zip(reports, results, strict=True)
    )
    for (stage_type, outcome, accepted), number in kinds.items():
        name = outcome.__name__.upper()
        metrics.UPDATE_DURATION.labels(stage_type, name).observe(seconds)
        metrics.UPDATES.labels(stage_type, name, "success" if accepted else "failure").inc(number)


class _StageAndJob(BaseModel):
    stage: dict[str, Any]
    job: dict[str, Any]


class _Claim(BaseModel, Generic[TaskT, TaskMetadataT]):
    tasks: list[Assignment[TaskT, TaskMetadataT]]
    stages: list[_StageAndJob] = []


class _AnyClaim(BaseModel):
    model_config = ConfigDict(frozen=True)

    tasks: list[dict[str, Any]]
    stages: list[_StageAndJob] = []


@cache
def _claims_of(stage_type: AnyStageType) -> tuple[TypeAdapter[_Claim[Any, Any]], TypeAdapter[Assignment[Any, Any]]]:
    """What reads a claim of this type, and one task of it."""
    # The annotations are made at run time, which only pydantic needs to understand.
    models: Any = (stage_type.task, stage_type.task_metadata)
    claim: Any = _Claim.__class_getitem__(models)
    one: Any = Assignment.__class_getitem__(models)
    return TypeAdapter(claim), TypeAdapter(one)


def _read(stage_type: AnyStageType, answer: Response) -> Sequence[Assignment[Any, Any]]:
    claim, one = _claims_of(stage_type)
    try:
        claimed = claim.validate_json(answer.content)
        tasks, stages = claimed.tasks, claimed.stages
    except ValidationError:
        # One of them does not fit, which must not take the others along.
        any_tasks = read_one(_AnyClaim, answer)
        tasks, stages = [_read_one(one, answer, to_json(task)) for task in any_tasks.tasks], any_tasks.stages
    # A manager that tells no more than is needed tells stages and jobs once for all tasks.
    around = {told.stage.get("id"): told for told in stages}
    for task in tasks:
        if (told := around.get(task.stage_id)) is not None:
            task.stage, task.job = told.stage, told.job
    return tasks


def _read_one(one: TypeAdapter[Assignment[Any, Any]], answer: Response, document: bytes) -> Assignment[Any, Any]:
    try:
        return one.validate_json(document)
    except ValidationError as error:
        field, reason = first_validation_error(error)
        return unreadable(read_one(Assignment[Empty, Empty], answer, document), field, reason)


def unreadable(task: Assignment[Any, Any], field: str, reason: str) -> Assignment[Any, Any]:
    """Return a task that does not fit its models at this field."""
    task.fault = f"{field}: {reason}"
    return task


def _encode(report: TaskReport) -> bytes:
    """A report as JSON; results and checkpoints are documents already, and passed on as they are."""
    task, outcome = report.task, report.outcome
    head = b'{"taskId":"%s","leaseId":%b,"outcome":' % (str(task.id).encode(), to_json(task.lease_id))
    if isinstance(outcome, Completed):
        return head + (b'"COMPLETED"}' if outcome.result is None else b'"COMPLETED","result":%s}' % outcome.result)
    left = b"" if report.checkpoint is None else b',"checkpoint":%s' % report.checkpoint.document
    match outcome:
        case Failed() as failed:
            error = {"type": failed.error_type, "message": failed.message, "stack": failed.stack}
            said: dict[str, Any] = {"error": error, "retryable": failed.retryable}
            if failed.delay is not None:
                said["delaySeconds"] = failed.delay.total_seconds()
            return b'%s"FAILED"%s,%s' % (head, left, to_json(said)[1:])
        case Snoozed(delay):
            return b'%s"SNOOZED"%s,"delaySeconds":%s}' % (head, left, to_json(delay.total_seconds()))
        case Released():
            return b'%s"RELEASED"%s}' % (head, left)
