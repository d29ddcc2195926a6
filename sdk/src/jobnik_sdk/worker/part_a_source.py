"""A task source for managers that have only part A of the protocol: one task per request, no leases, no release."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote
from uuid import UUID

from pydantic import RootModel

from jobnik_sdk.errors import (
    AccessError,
    AnswerError,
    InvalidRequestError,
    JobnikError,
    NotFoundError,
    UnreachableError,
    UnreadableTaskError,
)
from jobnik_sdk.execution.outcomes import Completed, Released, Snoozed
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.http.retries import INITIAL_DELAY, MAX_DELAY, backoff
from jobnik_sdk.model.definitions import AnyStageType, TaskStatus
from jobnik_sdk.model.entities import ClaimedTask
from jobnik_sdk.observability.logging import LimitedWarning, RuntimeLogger
from jobnik_sdk.observability.spans import TracedTask
from jobnik_sdk.worker.consumer import Consumer
from jobnik_sdk.worker.lru_cache import LruCache
from jobnik_sdk.worker.refusals import log_refusal
from jobnik_sdk.worker.reports import PartAStatus, report_status, undelivered_log
from jobnik_sdk.worker.task_source import ACCEPTED, CACHED_STAGES, Assignment, ReportResult, TaskReport

_NOT_RELEASED_ADVICE: Final = "cancelled and snoozed attempts count: allow more attempts, or update the manager"
_log: Final = RuntimeLogger(__name__)

MAX_PARALLEL_CLAIMS: Final = 32
"""The maximum number of claims at a time for each handler: more would gain nothing and occupy the manager."""


READ_SECONDS: Final = 1.0
"""How long a claim waits for stages and jobs. If they take longer, a later claim returns their tasks."""


class _StageAndJob(NamedTuple):
    """A stage and its job, as JSON objects."""

    stage: dict[str, Any]
    job: dict[str, Any]


_Claimed: TypeAlias = ClaimedTask[Any, Any] | UnreadableTaskError
_Pending: TypeAlias = dict[asyncio.Task[Assignment[Any, Any]], _Claimed]
"""Claimed tasks whose stage and job are being read."""


class PartATaskSource:
    """Claims tasks without leases: a task belongs to the worker until it is reported, or until it is stale.

    Reading the stage and the job takes two further requests per stage. They are cached, so their metadata may be older
    than the task.
    """

    long_polls = False
    held_back = 0

    def __init__(self, client: JobnikClient) -> None:
        self._client = client
        self._consumer = Consumer(client)
        self._stages: LruCache[UUID, _StageAndJob] = LruCache(CACHED_STAGES)
        self._reads: dict[UUID, asyncio.Task[_StageAndJob]] = {}
        self._pending: defaultdict[str, _Pending] = defaultdict(dict)  # by stage type
        self._reports: set[asyncio.Task[None]] = set()
        # One line for all tasks, as with leases: a manager that is down concerns hundreds of them.
        self._undelivered_log = undelivered_log()
        self._unreadable_log = LimitedWarning(_log, "stage and job not readable yet, retrying")
        self._not_released_log = LimitedWarning(_log, "manager cannot take tasks back, reporting attempts as failed")

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Assignment[Any, Any]]:
        """Claim up to `limit` tasks, or return those of earlier claims; see `TaskSource`.

        A task whose stage and job cannot be read yet delays no others, and is returned by a later claim.
        """
        pending = self._pending[stage_type.name]
        for task in await self._claim_tasks(stage_type, limit - len(pending)):
            pending[asyncio.create_task(self._assignment(task))] = task
        if pending:
            await asyncio.wait(pending, timeout=READ_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        ready = [reading for reading in pending if reading.done()][:limit]
        for reading in ready:
            del pending[reading]
        return [reading.result() for reading in ready]

    async def _claim_tasks(self, stage_type: AnyStageType, limit: int) -> Sequence[_Claimed]:
        """Claim up to `limit` tasks, with 1, 2, 4, … requests at a time while they return tasks."""
        claimed: list[_Claimed] = []
        parallel, exhausted = 1, False
        while not exhausted and len(claimed) < limit:
            claims = [self._consumer.claim(stage_type) for _ in range(min(parallel, limit - len(claimed)))]
            results = await asyncio.gather(*claims, return_exceptions=True)
            tasks = [result for result in results if isinstance(result, ClaimedTask | UnreadableTaskError)]
            claimed += tasks
            errors = [result for result in results if isinstance(result, BaseException) and result not in tasks]
            if errors and not claimed:
                raise errors[0]
            exhausted = len(tasks) < len(claims)
            parallel = min(2 * parallel, MAX_PARALLEL_CLAIMS)
        return claimed

    def submit(self, report: TaskReport, on_result: Callable[[ReportResult], None]) -> None:
        """Deliver a report; see `TaskSource`. Outcomes that part A does not have are reported as failed."""
        reporting = asyncio.create_task(self._deliver(report, on_result))
        self._reports.add(reporting)
        reporting.add_done_callback(self._reports.discard)

    async def deregister(self) -> None:
        """Report tasks as failed if their stage and job could not be read: no other worker would get them."""
        pending = {reading: task for readings in self._pending.values() for reading, task in readings.items()}
        for reading in (*pending, *self._reads.values()):
            reading.cancel()
        tasks = [task.task if isinstance(task, UnreadableTaskError) else task for task in pending.values()]
        delays = backoff(INITIAL_DELAY, MAX_DELAY)
        await asyncio.gather(
            *(self._report(task, task.stage_type, TaskStatus.FAILED, delays) for task in tasks),
            return_exceptions=True,
        )

    async def _deliver(self, report: TaskReport, on_result: Callable[[ReportResult], None]) -> None:
        task, outcome = report.task, report.outcome
        if isinstance(outcome, Snoozed | Released):
            self._not_released_log.log(advice=_NOT_RELEASED_ADVICE)
        status: PartAStatus = TaskStatus.COMPLETED if isinstance(outcome, Completed) else TaskStatus.FAILED
        try:
            await self._report(task, report.stage_type, status, backoff(INITIAL_DELAY, MAX_DELAY))
        except AnswerError as refusal:
            on_result(ReportResult(accepted=False, code=refusal.code, message=str(refusal)))
        else:
            on_result(ACCEPTED)

    async def _report(self, task: TracedTask, stage_type: str, status: PartAStatus, delays: Iterator[float]) -> None:
        await report_status(self._client, task, stage_type, status, delays, on_retry=self._log_retry)

    def _log_retry(self, failure: UnreachableError | AnswerError) -> None:
        if isinstance(failure, AccessError):
            log_refusal(failure)
        else:
            self._undelivered_log.log(reports=len(self._reports), reason=str(failure))

    async def _assignment(self, claimed: _Claimed) -> Assignment[Any, Any]:
        """Return a claimed task with its stage and its job."""
        if isinstance(claimed, UnreadableTaskError):
            return _new_assignment(claimed.task, validation_error=str(claimed))
        try:
            return _new_assignment(claimed, await self._stage_and_job(claimed.stage_id))
        except (NotFoundError, InvalidRequestError) as error:
            return _new_assignment(claimed, validation_error=f"stageId: {error}")

    async def _stage_and_job(self, stage_id: UUID) -> _StageAndJob:
        cached = self._stages.get(stage_id)
        if cached is None:
            reading = self._reads.get(stage_id)
            if reading is None:
                reading = self._reads[stage_id] = asyncio.create_task(self._read_stage_and_job(stage_id))
                reading.add_done_callback(lambda _: self._reads.pop(stage_id))
            cached = await asyncio.shield(reading)
            self._stages.put(stage_id, cached)
        return cached

    async def _read_stage_and_job(self, stage_id: UUID) -> _StageAndJob:
        stage = await self._read(f"/v1/stages/{stage_id}")
        return _StageAndJob(stage, await self._read(f"/v1/jobs/{quote(str(stage.get('jobId')), safe='')}"))

    async def _read(self, path: str) -> dict[str, Any]:
        """Retry until the manager responds: the task is already claimed, and no other worker will get it."""
        delays = backoff(INITIAL_DELAY, MAX_DELAY)
        while True:
            try:
                return read_one(RootModel[dict[str, Any]], await self._client.request("GET", path)).root
            except (NotFoundError, InvalidRequestError):
                raise
            except JobnikError as error:
                self._unreadable_log.log(path=path, reason=str(error))
                await asyncio.sleep(next(delays))


def _new_assignment(
    task: ClaimedTask[Any, Any], parents: _StageAndJob | None = None, *, validation_error: str = ""
) -> Assignment[Any, Any]:
    """Return a claimed task as an assignment; its fields have already been validated."""
    return Assignment.model_construct(
        id=task.id,
        stage_id=str(task.stage_id),
        attempts=task.attempts,
        max_attempts=task.max_attempts,
        data=task.data,
        metadata=task.metadata,
        traceparent=task.traceparent,
        tracestate=task.tracestate,
        stage=parents and parents.stage,
        job=parents and parents.job,
        validation_error=validation_error,
    )
