"""A consumer: claims tasks one at a time and reports their status."""

import asyncio
import time
from datetime import timedelta
from itertools import chain, islice
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from httpx2 import Response
from pydantic import RootModel, ValidationError
from pydantic_core import to_json

from jobnik_sdk.errors import (
    AnswerError,
    StatusConflictError,
    TaskNotFoundError,
    UnexpectedAnswerError,
    UnreachableError,
    UnreadableTaskError,
)
from jobnik_sdk.http import retries
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.http.connections import Pool
from jobnik_sdk.model.arguments import check_instance
from jobnik_sdk.model.definitions import Empty, StageType, TaskMetadataT, TaskStatus, TaskT
from jobnik_sdk.model.entities import ClaimedTask, claimed_task_model
from jobnik_sdk.model.payloads import first_validation_error
from jobnik_sdk.observability import metrics
from jobnik_sdk.worker.reports import PartAStatus, report_status, undelivered_log

_CONFLICT_DELAY: Final = timedelta(milliseconds=10)
"""The longest pause before the third try of a claim, after two conflicts; the second try follows at once."""
_MAX_CONFLICT_DELAY: Final = timedelta(seconds=1)
_MAX_CONFLICTS: Final = 10
_NO_PAYLOADS: Final[dict[str, Any]] = {"data": {}, "userMetadata": {}}
_UNKNOWN: Final[dict[str, Any]] = {
    "stageId": UUID(int=0),
    "status": TaskStatus.IN_PROGRESS,
    "attempts": 0,
    "maxAttempts": 1,
    **_NO_PAYLOADS,
}
"""The fields of a claimed task of which only the id can be read."""


class Consumer:
    """Claims and reports tasks, for programs with their own loop. A `Worker` does not need one.

    Every method raises `UnreachableError` if no response arrived, and a subclass of `AnswerError` if the manager
    refused the request.
    """

    def __init__(self, client: JobnikClient) -> None:
        check_instance("The client of a consumer", client, JobnikClient)
        self._client = client
        self._undelivered_log = undelivered_log()

    async def claim(
        self, stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any]
    ) -> ClaimedTask[TaskT, TaskMetadataT] | None:
        """Claim the next task of a stage type, by job priority and then by age; return None if there is none.

        If another client took the same task at the same moment, the claim is repeated.

        Raises:
            UnreadableTaskError: the claimed task's data or metadata does not fit its model; report it as failed.
        """
        check_instance("stage_type", stage_type, StageType)
        started = time.perf_counter()
        status = "error"
        try:
            response = await self._dequeue(f"/v1/stages/{quote(stage_type.name, safe='')}/tasks/dequeue")
            status = "claimed"
        except TaskNotFoundError:
            status = "empty"
            return None
        finally:
            duration = metrics.DEQUEUE_DURATION.labels(metrics.stage_label(stage_type.name), status)
            duration.observe(time.perf_counter() - started)
        return _read_claimed_task(stage_type, response)

    async def _dequeue(self, path: str) -> Response:
        # A conflict is not a failure: another client has got the task. Many in a row are a failure of the manager.
        delays = chain([0.0], islice(retries.backoff(_CONFLICT_DELAY, _MAX_CONFLICT_DELAY), _MAX_CONFLICTS))
        while True:
            try:
                return await self._client.request("PATCH", path, pool=Pool.CLAIMS)
            except StatusConflictError:
                delay = next(delays, None)
                if delay is None:
                    raise
                await asyncio.sleep(delay)

    async def complete(self, task: ClaimedTask[Any, Any]) -> None:
        """Report a task as completed. Idempotent."""
        await self._report(task, TaskStatus.COMPLETED)

    async def fail(self, task: ClaimedTask[Any, Any]) -> None:
        """Report an attempt as failed; the manager retries the task while it has attempts left. Idempotent."""
        await self._report(task, TaskStatus.FAILED)

    async def _report(self, task: ClaimedTask[Any, Any], status: PartAStatus) -> None:
        delays = retries.delays()
        await report_status(self._client, task, task.stage_type, status, delays, on_retry=self._log_retry)

    def _log_retry(self, failure: UnreachableError | AnswerError) -> None:
        self._undelivered_log.log(reports=1, reason=str(failure))


def _read_claimed_task(
    stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any], response: Response
) -> ClaimedTask[TaskT, TaskMetadataT]:
    try:
        task = claimed_task_model(stage_type).model_validate_json(response.content)
    except ValidationError as error:
        unreadable = _read_without_payloads(response).model_copy(update={"stage_type": stage_type.name})
        raise UnreadableTaskError(*first_validation_error(error), unreadable) from None
    return task.model_copy(update={"stage_type": stage_type.name})


def _read_without_payloads(response: Response) -> ClaimedTask[Empty, Empty]:
    """Read a claimed task so that it can be reported, even if only its id is valid: no other client would get it."""
    fields = read_one(RootModel[dict[str, Any]], response).root
    try:
        return read_one(ClaimedTask[Empty, Empty], response, to_json(fields | _NO_PAYLOADS))
    except UnexpectedAnswerError:
        return read_one(ClaimedTask[Empty, Empty], response, to_json({"id": fields.get("id"), **_UNKNOWN}))
