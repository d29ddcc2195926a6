"""Claiming tasks one at a time, and reporting what became of them."""

import time
from typing import Any
from urllib.parse import quote

from httpx2 import Response
from pydantic import ValidationError

from jobnik_sdk.errors import TaskNotFoundError, UnreadableTaskError
from jobnik_sdk.http import retries
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.definitions import Empty, StageType, TaskMetadataT, TaskStatus, TaskT
from jobnik_sdk.model.entities import ClaimedTask, claimed_task_model
from jobnik_sdk.model.payloads import first_validation_error
from jobnik_sdk.observability import metrics
from jobnik_sdk.worker.reports import report_outcome


class Consumer:
    """Claims tasks and reports them, for programs that bring a loop of their own; a `Worker` has one built in.

    Every method raises `UnreachableError` where no answer came, and a subclass of `AnswerError` where the manager
    refused.
    """

    def __init__(self, client: JobnikClient) -> None:
        self._client = client

    async def claim(
        self, stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any]
    ) -> ClaimedTask[TaskT, TaskMetadataT] | None:
        """Claim the next task of a stage type: highest job priority first, then oldest first; None: there is none.

        Raises:
            UnreadableTaskError: a task was claimed whose data or metadata does not fit; report it as failed.
        """
        started = time.perf_counter()
        status = "error"
        try:
            answer = await self._client.request("PATCH", f"/v1/stages/{quote(stage_type.name, safe='')}/tasks/dequeue")
            status = "claimed"
        except TaskNotFoundError:
            status = "empty"
            return None
        finally:
            metrics.DEQUEUE_DURATION.labels(stage_type.name, status).observe(time.perf_counter() - started)
        return _read_claimed(stage_type, answer)

    async def complete(self, task: ClaimedTask[Any, Any]) -> None:
        """Report a task as completed; twice is as once."""
        await report_outcome(self._client, task, task.stage_type, TaskStatus.COMPLETED, retries.delays())

    async def fail(self, task: ClaimedTask[Any, Any]) -> None:
        """Report an attempt as failed; the task is tried again while it has attempts left. Twice is as once."""
        await report_outcome(self._client, task, task.stage_type, TaskStatus.FAILED, retries.delays())


def _read_claimed(
    stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any], answer: Response
) -> ClaimedTask[TaskT, TaskMetadataT]:
    try:
        task = claimed_task_model(stage_type).model_validate_json(answer.content)
    except ValidationError as error:
        unread = read_one(ClaimedTask[Empty, Empty], answer).model_copy(update={"stage_type": stage_type.name})
        raise UnreadableTaskError(*first_validation_error(error), unread) from None
    return task.model_copy(update={"stage_type": stage_type.name})
