"""A manager with part A of the protocol alone: one task a request, no leases, and no way to hand a task back."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog

from jobnik_sdk.client import JobnikClient, read_one
from jobnik_sdk.consumer import Consumer
from jobnik_sdk.definitions import TaskStatus
from jobnik_sdk.entities import ClaimedTask, JobOfTask, StageOfTask
from jobnik_sdk.errors import AnswerError, JobnikError, NotFoundError, UnreadableTaskError
from jobnik_sdk.handlers.endings import Cancelled, Completed, Snoozed
from jobnik_sdk.reports import report
from jobnik_sdk.retries import INITIAL_DELAY, MAX_DELAY, backoff
from jobnik_sdk.worker.desk import AnyStageType, Claimed, Settlement, Verdict

STAGES_REMEMBERED: Final = 100
"""A worker meets few stages at a time."""

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class PlainDesk:
    """A desk where a task is the worker's until it says how it ended, or until the manager finds it stale.

    What a handler is to know of the stage and the job takes two more requests for each stage. They are remembered, so
    that their metadata may be older than the task.
    """

    waits = False

    def __init__(self, client: JobnikClient) -> None:
        self._client = client
        self._consumer = Consumer(client)
        self._around: OrderedDict[UUID, tuple[StageOfTask, JobOfTask]] = OrderedDict()

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Claimed]:
        """Claim up to `limit` tasks, the more at the same time the more there were; see `Desk`."""
        claimed: list[Claimed] = []
        abreast, exhausted = 1, False
        while not exhausted and len(claimed) < limit:
            asked = [self._consumer.claim(stage_type) for _ in range(min(abreast, limit - len(claimed)))]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            got = [answer for answer in answers if isinstance(answer, ClaimedTask | UnreadableTaskError)]
            claimed += got
            troubles = [answer for answer in answers if isinstance(answer, BaseException) and answer not in got]
            if troubles and not claimed:
                raise troubles[0]
            exhausted = len(got) < len(asked)
            abreast *= 2
        return [await self._informed(task) for task in claimed]

    async def settle(self, settlement: Settlement) -> Verdict:
        """Say how an attempt ended; see `Desk`. What part A has no word for is a failed attempt."""
        task, ending = settlement.task, settlement.ending
        if isinstance(ending, Snoozed | Cancelled):
            _log.warning("this manager takes no task back: the attempt counts as failed", task_id=str(task.id))
        outcome = TaskStatus.COMPLETED if isinstance(ending, Completed) else TaskStatus.FAILED
        try:
            await report(self._client, task, outcome, backoff(INITIAL_DELAY, MAX_DELAY))
        except AnswerError as refusal:
            return Verdict(accepted=False, code=refusal.code, message=str(refusal))
        return Verdict(accepted=True)

    async def leave(self) -> None:
        """Do nothing: without leases there is nothing to give back."""

    async def _informed(self, task: Claimed) -> Claimed:
        """The task with its stage and its job."""
        if isinstance(task, UnreadableTaskError):
            return task
        around = self._around.get(task.stage_id)
        if around is None:
            try:
                around = self._around[task.stage_id] = await self._look_up(task.stage_id)
            except NotFoundError as error:
                return UnreadableTaskError("stageId", str(error), task)
            if len(self._around) > STAGES_REMEMBERED:
                self._around.popitem(last=False)
        stage, job = around
        return task.model_copy(update={"stage": stage, "job": job})

    async def _look_up(self, stage_id: UUID) -> tuple[StageOfTask, JobOfTask]:
        """Ask until the manager answers: the task is ours already, and nobody else will work on it."""
        delays = backoff(INITIAL_DELAY, MAX_DELAY)
        while True:
            try:
                stage = read_one(_Stage, await self._client.request("GET", f"/v1/stages/{stage_id}"))
                job = read_one(JobOfTask, await self._client.request("GET", f"/v1/jobs/{stage.job_id}"))
            except NotFoundError:
                raise
            except JobnikError as error:
                _log.warning("stage and job cannot be read yet", stage_id=str(stage_id), reason=str(error))
                await asyncio.sleep(next(delays))
            else:
                return stage, job


class _Stage(StageOfTask):
    job_id: UUID
