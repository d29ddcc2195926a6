"""A manager with part A of the protocol alone: one task a request, no leases, and no way to hand a task back."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import structlog

from jobnik_sdk.errors import AnswerError, JobnikError, NotFoundError, UnreadableTaskError
from jobnik_sdk.execution.outcomes import Completed, Released, Snoozed
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.http.retries import INITIAL_DELAY, MAX_DELAY, backoff
from jobnik_sdk.model.definitions import TaskStatus
from jobnik_sdk.model.entities import ClaimedTask, JobOfTask, StageOfTask
from jobnik_sdk.worker.consumer import Consumer
from jobnik_sdk.worker.reports import PartAOutcome, report_outcome
from jobnik_sdk.worker.task_source import ACCEPTED, AnyStageType, Assignment, ReportResult, TaskReport

CACHED_STAGES: Final = 100
"""A worker meets few stages at a time."""

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class PartATaskSource:
    """A desk where a task is the worker's until it says how it outcome, or until the manager finds it stale.

    What a handler is to know of the stage and the job takes two more requests for each stage. They are remembered, so
    that their metadata may be older than the task.
    """

    waits = False

    def __init__(self, client: JobnikClient) -> None:
        self._client = client
        self._consumer = Consumer(client)
        self._around: OrderedDict[UUID, tuple[dict[str, Any], dict[str, Any]]] = OrderedDict()
        self._reports: set[asyncio.Task[None]] = set()

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Assignment[Any, Any]]:
        """Claim up to `limit` tasks, the more at the same time the more there were; see `TaskSource`."""
        claimed: list[ClaimedTask[Any, Any] | UnreadableTaskError] = []
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
        return [await self._assigned(one) for one in claimed]

    def settle(self, report: TaskReport, decided: Callable[[ReportResult], None]) -> None:
        """Say how an attempt ended; see `TaskSource`. What part A has no word for is a failed attempt."""
        reporting = asyncio.create_task(self._settle(report, decided))
        self._reports.add(reporting)
        reporting.add_done_callback(self._reports.discard)

    async def leave(self) -> None:
        """Do nothing: without leases there is nothing to give back."""

    async def _settle(self, report: TaskReport, decided: Callable[[ReportResult], None]) -> None:
        task, outcome = report.task, report.outcome
        if isinstance(outcome, Snoozed | Released):
            _log.warning("this manager takes no task back: the attempt counts as failed", task_id=str(task.id))
        status: PartAOutcome = TaskStatus.COMPLETED if isinstance(outcome, Completed) else TaskStatus.FAILED
        try:
            await report_outcome(self._client, task, report.stage_type, status, backoff(INITIAL_DELAY, MAX_DELAY))
        except AnswerError as refusal:
            decided(ReportResult(accepted=False, code=refusal.code, message=str(refusal)))
        else:
            decided(ACCEPTED)

    async def _assigned(self, claimed: ClaimedTask[Any, Any] | UnreadableTaskError) -> Assignment[Any, Any]:
        """The task with its stage and its job."""
        if isinstance(claimed, UnreadableTaskError):
            return _assignment(claimed.task, fault=str(claimed))
        try:
            stage, job = await self._look_up(claimed.stage_id)
        except NotFoundError as error:
            return _assignment(claimed, fault=f"stageId: {error}")
        return _assignment(claimed, stage=stage, job=job)

    async def _look_up(self, stage_id: UUID) -> tuple[dict[str, Any], dict[str, Any]]:
        around = self._around.get(stage_id)
        if around is None:
            around = self._around[stage_id] = await self._ask(stage_id)
            if len(self._around) > CACHED_STAGES:
                self._around.popitem(last=False)
        return around

    async def _ask(self, stage_id: UUID) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ask until the manager answers: the task is ours already, and nobody else will work on it."""
        delays = backoff(INITIAL_DELAY, MAX_DELAY)
        while True:
            try:
                stage = await self._client.request("GET", f"/v1/stages/{stage_id}")
                job = await self._client.request("GET", f"/v1/jobs/{read_one(_Stage, stage).job_id}")
                read_one(JobOfTask, job)
            except NotFoundError:
                raise
            except JobnikError as error:
                _log.warning("stage and job cannot be read yet", stage_id=str(stage_id), reason=str(error))
                await asyncio.sleep(next(delays))
            else:
                return stage.json(), job.json()


class _Stage(StageOfTask):
    job_id: UUID


def _assignment(
    task: ClaimedTask[Any, Any],
    *,
    stage: dict[str, Any] | None = None,
    job: dict[str, Any] | None = None,
    fault: str = "",
) -> Assignment[Any, Any]:
    """A claimed task as the worker knows it: what is in it has been validated already."""
    return Assignment.model_construct(
        id=task.id,
        stage_id=str(task.stage_id),
        attempts=task.attempts,
        max_attempts=task.max_attempts,
        data=task.data,
        metadata=task.metadata,
        traceparent=task.traceparent,
        tracestate=task.tracestate,
        stage=stage,
        job=job,
        fault=fault,
    )
