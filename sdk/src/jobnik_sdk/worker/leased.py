"""A manager with part B of the protocol: many tasks in one claim, under leases, and many reports in one request."""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

from httpx2 import Response
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import to_json

from jobnik_sdk import metrics
from jobnik_sdk.client import JobnikClient, read_one
from jobnik_sdk.consumer import read_claimed
from jobnik_sdk.entities import claim_of
from jobnik_sdk.errors import JobnikError, UnexpectedAnswerError, UnreadableTaskError
from jobnik_sdk.handlers.endings import Cancelled, Completed, Failed, Snoozed
from jobnik_sdk.worker.desk import AnyStageType, Claimed, Settlement, Verdict
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
            "waitSeconds": LONGEST_WAIT.total_seconds(),
            "leaseSeconds": lease.total_seconds(),
        }
        self._outbox = Outbox(self._report)

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Claimed]:
        """Claim up to `limit` tasks, and wait for the first of them if there are none; see `Desk`."""
        path = f"/v1/stages/{quote(stage_type.name, safe='')}/tasks/claim"
        wish = {**self._wish, "limit": min(limit, MOST_TASKS)}
        # Not repeated when the answer was lost: what it brought comes back by its leases.
        return _read(stage_type, await self._client.request("POST", path, json=wish, retry=False))

    async def settle(self, settlement: Settlement) -> Verdict:
        """Say how an attempt ended, together with others that end at the same time; see `Desk`."""
        stage_type, outcome = settlement.task.stage_type, type(settlement.ending).__name__.upper()
        started = time.perf_counter()
        verdict = await self._outbox.put(settlement)
        metrics.UPDATE_DURATION.labels(stage_type, outcome).observe(time.perf_counter() - started)
        metrics.UPDATES.labels(stage_type, outcome, "success" if verdict.accepted else "failure").inc()
        return verdict

    async def leave(self) -> None:
        """Say goodbye: what is still lent to this worker goes back, and no attempt is burnt."""
        with suppress(JobnikError):  # then the leases bring it back
            await self._client.request("DELETE", f"/v1/workers/{quote(self._worker_id, safe='')}")

    async def _report(self, settlements: Sequence[Settlement]) -> Sequence[Verdict]:
        body = b'{"workerId":%s,"results":[%s]}' % (to_json(self._worker_id), b",".join(map(_said, settlements)))
        answer = await self._client.request("POST", "/v1/tasks/settle", json=body, retry=False)
        results = read_one(_Settled, answer).results
        if len(results) != len(settlements):
            message = f"{len(settlements)} reports were answered by {len(results)} verdicts."
            raise UnexpectedAnswerError(message, status=answer.status_code, code="UNEXPECTED_ANSWER")
        return [Verdict(result.accepted, result.code, result.message) for result in results]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel)

    accepted: bool
    code: str = ""
    message: str = ""


class _Settled(BaseModel):
    results: list[_Result]


def _read(stage_type: AnyStageType, answer: Response) -> Sequence[Claimed]:
    try:
        tasks = claim_of(stage_type).model_validate_json(answer.content).tasks
    except ValidationError:
        # One of them does not fit, which must not take the others along.
        return [_read_one(stage_type, answer, task) for task in read_one(_AnyTasks, answer).tasks]
    return [task.model_copy(update={"stage_type": stage_type.name}) for task in tasks]


def _read_one(stage_type: AnyStageType, answer: Response, task: dict[str, Any]) -> Claimed:
    try:
        return read_claimed(stage_type, answer, to_json(task))
    except UnreadableTaskError as error:
        return error


class _AnyTasks(BaseModel):
    tasks: list[dict[str, Any]]


def _said(settlement: Settlement) -> bytes:
    """A report as JSON; results and checkpoints are documents already, and passed on as they are."""
    task, ending = settlement.task, settlement.ending
    head = b'{"taskId":"%s","leaseId":%d,"outcome":' % (str(task.id).encode(), task.lease_id)
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
