"""Reports on their way to the manager, in natural batches: while one request is under way the next one gathers.

A report stays here until the manager has decided: it is accepted, or refused for good. Trouble on the way is waited out
for as long as it takes, so that a task which is done never becomes one that failed because nobody could be told.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from jobnik_sdk.errors import AnswerError, InvalidRequestError, PayloadTooLargeError, UnreachableError
from jobnik_sdk.execution.outcomes import Failed
from jobnik_sdk.http.retries import INITIAL_DELAY, backoff, pause
from jobnik_sdk.worker.task_source import ReportResult, TaskReport

BATCH: Final = 500
"""The most reports in one request, as the protocol allows."""
MAX_PAUSE: Final = timedelta(seconds=5)
"""Between two tries: slots wait for what is not reported, so work goes on soon after the manager is back."""
INVALID: Final = "VALIDATION_ERROR"
"""The manager's word for a report that it will never take."""

Decided = Callable[[ReportResult], None]

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class ReportQueue:
    """Takes reports, and delivers them.

    Args:
        send: Says some to the manager, and returns a result for each; it raises where they were not delivered.
    """

    def __init__(self, send: Callable[[Sequence[TaskReport]], Awaitable[Sequence[ReportResult]]]) -> None:
        self._send = send
        self._waiting: deque[tuple[TaskReport, Decided]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def put(self, report: TaskReport, decided: Decided) -> None:
        """Take a report; `decided` is called with what the manager says of it."""
        self._waiting.append((report, decided))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            results = await self._deliver([report for report, _ in batch])
            for (_, decided), result in zip(batch, results, strict=True):
                decided(result)
        self._runner = None

    async def _deliver(self, reports: Sequence[TaskReport]) -> Sequence[ReportResult]:
        """Say it until the manager decides."""
        delays = backoff(INITIAL_DELAY, MAX_PAUSE)
        while True:
            try:
                results = await self._send(reports)
            except (InvalidRequestError, PayloadTooLargeError) as error:
                return await self._deliver_apart(reports, error)
            except (AnswerError, UnreachableError) as error:
                trouble = error
            except Exception as error:  # noqa: BLE001 whatever it is, the reports must not be lost
                _log.exception("reports cannot be delivered: a fault in this program")
                trouble = UnreachableError(str(error))
            else:
                if not any(result.code == INVALID for result in results):
                    return results
                return [
                    await self._deliver_refused(report, result.code, result.message)
                    if result.code == INVALID
                    else result
                    for report, result in zip(reports, results, strict=True)
                ]
            _log.warning("reports not delivered yet", reports=len(reports), reason=str(trouble))
            await pause(trouble, "POST", next(delays))

    async def _deliver_apart(self, reports: Sequence[TaskReport], error: AnswerError) -> Sequence[ReportResult]:
        """Something in it is what no manager takes, or all of it is too much: the others must not go along with it."""
        if len(reports) > 1:
            middle = len(reports) // 2
            return [*await self._deliver(reports[:middle]), *await self._deliver(reports[middle:])]
        return [await self._deliver_refused(reports[0], type(error).__name__, str(error))]

    async def _deliver_refused(self, report: TaskReport, code: str, why: str) -> ReportResult:
        """What a task gave cannot be said, now or ever: so the attempt has failed, and that can."""
        if isinstance(report.outcome, Failed):
            return ReportResult(accepted=False, code=code, message=why)
        failed = Failed(code, f"The manager does not take the result: {why}", stack="", retryable=False)
        (result,) = await self._deliver([replace(report, outcome=failed)])
        return result
