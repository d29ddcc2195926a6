"""The queue of reports for the manager; while one request is in progress, the next batch is collected.

A report stays in the queue until the manager has accepted or refused it. Other errors are retried without limit, so
that a completed task never becomes a failed one because the manager could not be reached.
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
from jobnik_sdk.http.retries import INITIAL_DELAY, backoff, wait_before_retry
from jobnik_sdk.worker.task_source import ReportResult, TaskReport

MAX_BATCH: Final = 500
"""The maximum number of reports in one request, as set by the protocol."""
MAX_RETRY_DELAY: Final = timedelta(seconds=5)
"""The longest delay between two tries. It is short, because undelivered reports occupy slots."""
INVALID_REPORT: Final = "VALIDATION_ERROR"
"""The protocol's error code for a report that the manager will never accept."""

OnResult = Callable[[ReportResult], None]

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class ReportQueue:
    """Delivers reports in batches.

    Args:
        send: Sends a batch and returns a result for each report; raises if the batch was not processed.
    """

    def __init__(self, send: Callable[[Sequence[TaskReport]], Awaitable[Sequence[ReportResult]]]) -> None:
        self._send = send
        self._waiting: deque[tuple[TaskReport, OnResult]] = deque()
        self._sender: asyncio.Task[None] | None = None

    def put(self, report: TaskReport, on_result: OnResult) -> None:
        """Add a report; `on_result` is called when the manager has accepted or refused it."""
        self._waiting.append((report, on_result))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_waiting())

    async def _send_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            results = await self._deliver([report for report, _ in batch])
            for (_, on_result), result in zip(batch, results, strict=True):
                on_result(result)
        self._sender = None

    async def _deliver(self, reports: Sequence[TaskReport]) -> Sequence[ReportResult]:
        """Send reports until the manager has accepted or refused each of them."""
        delays = backoff(INITIAL_DELAY, MAX_RETRY_DELAY)
        while True:
            try:
                results = await self._send(reports)
            except (InvalidRequestError, PayloadTooLargeError) as error:
                return await self._deliver_separately(reports, error)
            except (AnswerError, UnreachableError) as error:
                failure = error
            except Exception as error:  # noqa: BLE001 no error may lose the reports
                _log.exception("unexpected error while sending reports")
                failure = UnreachableError(str(error))
            else:
                if not any(result.code == INVALID_REPORT for result in results):
                    return results
                return [
                    await self._deliver_as_failed(report, result.code, result.message)
                    if result.code == INVALID_REPORT
                    else result
                    for report, result in zip(reports, results, strict=True)
                ]
            _log.warning("report not delivered, retrying", reports=len(reports), reason=str(failure))
            await wait_before_retry(failure, "POST", next(delays))

    async def _deliver_separately(self, reports: Sequence[TaskReport], error: AnswerError) -> Sequence[ReportResult]:
        """Split a batch that the manager refused as a whole, until only the invalid or too large report is left."""
        if len(reports) > 1:
            middle = len(reports) // 2
            return [*await self._deliver(reports[:middle]), *await self._deliver(reports[middle:])]
        return [await self._deliver_as_failed(reports[0], type(error).__name__, str(error))]

    async def _deliver_as_failed(self, report: TaskReport, code: str, reason: str) -> ReportResult:
        """Report the attempt as failed, because the manager will never accept its result or checkpoint."""
        if isinstance(report.outcome, Failed):
            return ReportResult(accepted=False, code=code, message=reason)
        failed = Failed(code, f"The manager does not accept the result: {reason}", stack="", retryable=False)
        (result,) = await self._deliver([replace(report, outcome=failed)])
        return result
