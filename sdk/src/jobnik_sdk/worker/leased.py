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

from jobnik_sdk import metrics, spans
from jobnik_sdk.client import JobnikClient, read_one
from jobnik_sdk.definitions import Empty, TaskMetadataT, TaskT
from jobnik_sdk.errors import JobnikError, UnexpectedAnswerError
from jobnik_sdk.handlers.endings import Cancelled, Completed, Failed, Snoozed
from jobnik_sdk.payloads import first_fault
from jobnik_sdk.worker.desk import ACCEPTED, AnyStageType, Assignment, Settlement, Verdict
from jobnik_sdk.worker.outbox import Outbox

LONGEST_WAIT: Final = timedelta(seconds=20)
"""How long a claim waits at the manager: less than proxies commonly allow for an answer."""
MOST_TASKS: Final = 500
"""In one claim, as the protocol allows."""


class LeasedDesk:
    """A desk where tasks are lent, for `lease` at a time; a heartbeat renews it (see `Heart`).

    Args:
        client: To the manager.
        worker_id: Whose leases they are; no other process may ever use it.
        lease: How long a task stays the worker's without a heartbeat.
    """

    waits = True

    def __init__(self, client: JobnikClient, worker_id: str, lease: timedelta) -> None:
        self._client = client
        self._worker_id = worker_id
        self._wish = {
            "workerId": worker_id,
            # Well within the client's patience: else each claim on an empty queue would end as a lost answer.
            "waitSeconds": min(LONGEST_WAIT, client.timeout / 2).total_seconds(),
            "leaseSeconds": lease.total_seconds(),
        }
        self._outbox = Outbox(self._report)

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Assignment[Any, Any]]:
        """Claim up to `limit` tasks, and wait for the first of them if there are none; see `Desk`."""
        path = f"/v1/stages/{quote(stage_type.name, safe='')}/tasks/claim"
        wish = {**self._wish, "limit": min(limit, MOST_TASKS)}
        # Not repeated when the answer was lost: what it brought comes back by its leases.
        answer = await self._client.request("POST", path, json=wish, prefer="return=minimal", retry=False)
        return _read(stage_type, answer)

    def settle(self, settlement: Settlement, decided: Callable[[Verdict], None]) -> None:
        """Say how an attempt ended, together with others that end at the same time; see `Desk`."""
        self._outbox.put(settlement, decided)

    async def leave(self) -> None:
        """Say goodbye: what is still lent to this worker goes back, and no attempt is burnt."""
        with suppress(JobnikError):  # then the leases bring it back
            await self._client.request("DELETE", f"/v1/workers/{quote(self._worker_id, safe='')}")

    async def _report(self, settlements: Sequence[Settlement]) -> Sequence[Verdict]:
        started = time.perf_counter()
        body = b'{"workerId":%s,"results":[%s]}' % (to_json(self._worker_id), b",".join(map(_said, settlements)))
        with spans.settling((one.stage_type for one in settlements), (one.task for one in settlements)):
            answer = await self._client.request(
                "POST", "/v1/tasks/settle", json=body, prefer="return=minimal", retry=False
            )
        verdicts = _read_verdicts(answer, len(settlements))
        _count(settlements, verdicts, time.perf_counter() - started)
        return verdicts


class _Result(TypedDict):
    accepted: bool
    index: NotRequired[int]
    code: NotRequired[str]
    message: NotRequired[str]


class _Settled(BaseModel):
    accepted: int = 0
    refused: list[_Result] = []
    results: list[_Result] | None = None


def _read_verdicts(answer: Response, wanted: int) -> Sequence[Verdict]:
    """Read what became of each report; a manager that tells no more than is needed tells those that it refused."""
    told = read_one(_Settled, answer)
    if told.results is not None:
        refused = {index: result for index, result in enumerate(told.results) if not result["accepted"]}
        answered = len(told.results)
    else:
        refused = {result.get("index", -1): result for result in told.refused}
        answered = told.accepted + len(refused)
    if answered != wanted or not all(0 <= index < wanted for index in refused):
        message = f"{wanted} reports were answered by {answered} verdicts, {len(refused)} of them refusals."
        raise UnexpectedAnswerError(message, status=answer.status_code, code="UNEXPECTED_ANSWER")
    verdicts = [ACCEPTED] * wanted
    for index, result in refused.items():
        verdicts[index] = Verdict(accepted=False, code=result.get("code", ""), message=result.get("message", ""))
    return verdicts


def _count(settlements: Sequence[Settlement], verdicts: Sequence[Verdict], seconds: float) -> None:
    """Count reports: all of a request took as long as the request."""
    kinds = Counter(
        (settlement.stage_type, type(settlement.ending), verdict.accepted)
        for settlement, verdict in zip(settlements, verdicts, strict=True)
    )
    for (stage_type, ending, accepted), number in kinds.items():
        outcome = ending.__name__.upper()
        metrics.UPDATE_DURATION.labels(stage_type, outcome).observe(seconds)
        metrics.UPDATES.labels(stage_type, outcome, "success" if accepted else "failure").inc(number)


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
        field, reason = first_fault(error)
        return unreadable(read_one(Assignment[Empty, Empty], answer, document), field, reason)


def unreadable(task: Assignment[Any, Any], field: str, reason: str) -> Assignment[Any, Any]:
    """Return a task that does not fit its models at this field."""
    task.fault = f"{field}: {reason}"
    return task


def _said(settlement: Settlement) -> bytes:
    """A report as JSON; results and checkpoints are documents already, and passed on as they are."""
    task, ending = settlement.task, settlement.ending
    head = b'{"taskId":"%s","leaseId":%b,"outcome":' % (str(task.id).encode(), to_json(task.lease_id))
    if isinstance(ending, Completed):
        return head + (b'"COMPLETED"}' if ending.result is None else b'"COMPLETED","result":%s}' % ending.result)
    left = b"" if settlement.checkpoint is None else b',"checkpoint":%s' % settlement.checkpoint.document
    match ending:
        case Failed() as failed:
            error = {"type": failed.error_type, "message": failed.message, "stack": failed.stack}
            said: dict[str, Any] = {"error": error, "retryable": failed.retryable}
            if failed.delay is not None:
                said["delaySeconds"] = failed.delay.total_seconds()
            return b'%s"FAILED"%s,%s' % (head, left, to_json(said)[1:])
        case Snoozed(delay):
            return b'%s"SNOOZED"%s,"delaySeconds":%s}' % (head, left, to_json(delay.total_seconds()))
        case Cancelled():
            return b'%s"RELEASED"%s}' % (head, left)
