"""The queue of reports for the manager; while one request is in progress, the next batch is collected.

A report stays in the queue until the manager has accepted or refused it. Other errors are retried without limit, so
that a completed task never becomes a failed one because the manager could not be reached.

If the manager cannot decide some reports, because another session has locked their job, for example, the queue repeats
them job by job. It does the same with a batch that a proxy may have refused because of the contents of one report.
Further reports of such a job wait, and all other reports are sent as usual.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final, NamedTuple, TypeAlias

from jobnik_sdk.errors import (
    AccessError,
    AnswerError,
    InvalidRequestError,
    LostAnswerError,
    ManagerFailureError,
    PayloadTooLargeError,
    UnauthorizedError,
    UnreachableError,
)
from jobnik_sdk.execution.outcomes import Completed, Failed
from jobnik_sdk.http.retries import INITIAL_DELAY, backoff, wait_before_retry
from jobnik_sdk.model.payloads import fit_text
from jobnik_sdk.observability import metrics
from jobnik_sdk.observability.logging import RuntimeLogger
from jobnik_sdk.worker.refusals import log_refusal
from jobnik_sdk.worker.reports import undelivered_log
from jobnik_sdk.worker.task_source import ACCEPTED, ReportResult, TaskReport

MAX_BATCH: Final = 500
"""The maximum number of reports in one request, as set by the protocol."""
MAX_SENDERS: Final = 4
"""The maximum number of requests at a time, in addition to those that repeat the reports of a job."""
MAX_RETRIES: Final = 8
"""The maximum number of requests at a time that repeat the reports of a job."""
SLOW_AFTER_SECONDS: Final = 1.0
"""How long a batch may take until the reports behind it are sent in another request. A manager that cannot decide all
reports of a batch answers about this long after it has decided the first one."""
MAX_RETRY_DELAY: Final = timedelta(seconds=5)
"""The longest delay between two tries. It is short, because undelivered reports occupy slots."""
INVALID_REPORT: Final = "VALIDATION_ERROR"
"""The protocol's error code for a report that the manager will never accept."""
UNDECIDED: Final = frozenset({"UNDECIDED", "DATABASE_RELATED_ERROR", "UNKNOWN_ERROR", "MANAGER_BUSY"})
"""The protocol's error codes for a report that must be sent again, in a response that decides others."""
_BUSY: Final = "MANAGER_BUSY"
"""The protocol's error code for a request that the manager refuses regardless of its contents."""
_SHORT_MESSAGE: Final = 1_000
"""The length of an error message in characters that fits into every request."""
_SMALL_SIZE: Final = 2 * _SHORT_MESSAGE
"""Up to this size, a report fits into every request, even if a response calls it too large."""

OnResult = Callable[[ReportResult], None]
Failure: TypeAlias = AnswerError | UnreachableError

_log: Final = RuntimeLogger(__name__)


class _Entry(NamedTuple):
    report: TaskReport
    on_result: OnResult


class _Undelivered(NamedTuple):
    """Reports that must be sent again, and why."""

    entries: Sequence[_Entry]
    failure: Failure


@dataclass(slots=True, eq=False)
class _Sender:
    """A task that sends one batch after the other."""

    slow: bool = False
    """Whether its batch takes so long that the reports behind it must not wait."""
    sending: int = 0
    """The number of reports in its batch."""
    task: asyncio.Task[None] | None = None


class ReportQueue:
    """Delivers reports in batches.

    Args:
        send: Sends a batch and returns a result for each report; raises if the batch was not processed.
    """

    def __init__(self, send: Callable[[Sequence[TaskReport]], Awaitable[Sequence[ReportResult]]]) -> None:
        self._send = send
        self._waiting: deque[_Entry] = deque()
        self._senders: list[_Sender] = []
        self._slow_senders = 0
        self._undelivered = 0
        self._retried_jobs: dict[str, deque[_Entry]] = {}
        self._retries: set[asyncio.Task[None]] = set()
        self._retrying = 0  # the number of reports in the requests of retried jobs
        self._variables = contextvars.copy_context()
        self._retry_slots = asyncio.Semaphore(MAX_RETRIES)
        self._undelivered_log = undelivered_log()
        metrics.REPORTS_WAITING.set_function(lambda: self._undelivered)

    def put(self, report: TaskReport, on_result: OnResult) -> None:
        """Add a report; `on_result` is called when the manager has accepted or refused it."""
        self._undelivered += 1
        self._add(_Entry(report, on_result))

    @property
    def held_back(self) -> int:
        """The number of reports that are delayed, probably because of their jobs, while others are sent."""
        slow = sum(sender.sending for sender in self._senders if sender.slow)
        return slow + self._retrying + sum(map(len, self._retried_jobs.values()))

    def close(self) -> None:
        """Stop delivering reports."""
        for task in (*(sender.task for sender in self._senders), *self._retries):
            if task is not None:
                task.cancel()

    def _add(self, entry: _Entry) -> None:
        if self._retried_jobs and (waiting := self._retried_jobs.get(entry.report.task.job_id)) is not None:
            waiting.append(entry)
        else:
            self._waiting.append(entry)
            self._start_sender()

    def _start_sender(self) -> None:
        """Start a sender if reports are waiting and all other senders are slow."""
        if self._slow_senders == len(self._senders) < MAX_SENDERS and self._waiting:
            sender = _Sender()
            self._senders.append(sender)
            sender.task = self._create_task(self._send_waiting(sender))

    def _create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Create a task without the context variables of the current handler: it also sends the reports of others."""
        return asyncio.get_running_loop().create_task(coroutine, context=self._variables.copy())

    def _set_slow(self, sender: _Sender) -> None:
        sender.slow = True
        self._slow_senders += 1
        self._start_sender()

    async def _send_waiting(self, sender: _Sender) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = _take(self._waiting, MAX_BATCH)
                sender.sending = len(batch)
                timer = loop.call_later(SLOW_AFTER_SECONDS, self._set_slow, sender)
                try:
                    await self._deliver(batch)
                finally:
                    timer.cancel()
                    self._slow_senders -= sender.slow
                    sender.slow = False
        finally:
            self._senders.remove(sender)

    async def _deliver(self, entries: Sequence[_Entry]) -> None:
        """Send reports until the manager has accepted or refused each of them, or move them to the retried jobs."""
        delays = backoff(INITIAL_DELAY, MAX_RETRY_DELAY)
        while (undelivered := await self._try(entries)) is not None:
            entries, failure = undelivered
            self._log_undelivered(undelivered)
            if _may_be_caused_by_one_report(failure):
                self._retry_by_job(entries, failure)
                return
            await wait_before_retry(failure, "POST", next(delays))

    def _log_undelivered(self, undelivered: _Undelivered) -> None:
        if isinstance(undelivered.failure, AccessError):
            log_refusal(undelivered.failure)
        else:
            self._undelivered_log.log(reports=len(undelivered.entries), reason=str(undelivered.failure))

    def _retry_by_job(self, entries: Sequence[_Entry], failure: Failure) -> None:
        for entry in entries:
            job_id = entry.report.task.job_id
            if job_id not in self._retried_jobs:
                self._retried_jobs[job_id] = deque()
                retry = self._create_task(self._retry(job_id, failure))
                self._retries.add(retry)
                retry.add_done_callback(self._retries.discard)
            self._retried_jobs[job_id].append(entry)

    async def _retry(self, job_id: str, failure: Failure) -> None:
        """Repeat the reports of a job until none are left."""
        waiting = self._retried_jobs[job_id]
        delays = backoff(INITIAL_DELAY, MAX_RETRY_DELAY)
        size = MAX_BATCH
        try:
            await wait_before_retry(failure, "POST", next(delays))
            while waiting:
                async with self._retry_slots:
                    undelivered = await self._retry_batch(_take(waiting, size))
                if undelivered is None:
                    size = min(2 * size, MAX_BATCH)
                    delays = backoff(INITIAL_DELAY, MAX_RETRY_DELAY)
                    continue
                if _may_be_caused_by_one_report(undelivered.failure):
                    # In smaller batches, fewer of the other reports fail together with that one.
                    size = max(1, min(size, len(undelivered.entries)) // 2)
                waiting.extend(undelivered.entries)
                self._log_undelivered(undelivered)
                await wait_before_retry(undelivered.failure, "POST", next(delays))
        finally:
            del self._retried_jobs[job_id]

    async def _retry_batch(self, entries: Sequence[_Entry]) -> _Undelivered | None:
        self._retrying += len(entries)
        try:
            return await self._try(entries)
        finally:
            self._retrying -= len(entries)

    async def _try(self, entries: Sequence[_Entry]) -> _Undelivered | None:
        """Send reports once, and return those that must be sent again."""
        try:
            results = await self._send([entry.report for entry in entries])
        except (InvalidRequestError, PayloadTooLargeError) as error:
            return await self._try_separately(entries, error)
        except (AnswerError, UnreachableError) as error:
            return _Undelivered(entries, error)
        except Exception as error:  # noqa: BLE001 no error may lose the reports
            _log.exception("unexpected error while sending reports")
            return _Undelivered(entries, UnreachableError(str(error)))
        undecided: list[_Entry] = []
        message = ""
        for entry, result in zip(entries, results, strict=True):
            if result is ACCEPTED:
                self._finish(entry, result)
            elif result.code in UNDECIDED:
                undecided.append(entry)
                message = result.message
            elif result.code == INVALID_REPORT:
                self._replace_refused(entry, result)
            else:
                self._finish(entry, result)
        if not undecided:
            return None
        failure = ManagerFailureError(message, status=HTTPStatus.SERVICE_UNAVAILABLE, code="UNDECIDED")
        return _Undelivered(undecided, failure)

    async def _try_separately(
        self, entries: Sequence[_Entry], error: InvalidRequestError | PayloadTooLargeError
    ) -> _Undelivered | None:
        """Split a batch that the manager refused as a whole, until only the invalid or too large report is left."""
        if len(entries) == 1:
            (entry,) = entries
            if isinstance(error, PayloadTooLargeError) and _size(entry.report) <= _SMALL_SIZE:
                return _Undelivered(entries, error)  # no manager has so low a limit: something else refuses it
            refusal = ReportResult(accepted=False, code=type(error).__name__, message=str(error))
            self._replace_refused(entry, refusal)
            return None
        middle = len(entries) // 2
        halves = [await self._try(entries[:middle]), await self._try(entries[middle:])]
        undelivered = [half for half in halves if half is not None]
        if not undelivered:
            return None
        return _Undelivered([entry for half in undelivered for entry in half.entries], undelivered[0].failure)

    def _replace_refused(self, entry: _Entry, refusal: ReportResult) -> None:
        """Replace a report that the manager will never accept by one that it accepts."""
        report = entry.report
        ids = {"task_id": str(report.task.id), "job_id": report.task.job_id, "stage_type": report.stage_type}
        reason = {"error_type": refusal.code, "error_message": refusal.message}
        if _is_minimal(report):
            self._finish(entry, refusal)
            return
        match report.outcome:
            case Completed():
                _log.error("result refused, reporting the attempt as failed", **reason, **ids)
                message = f"The manager does not accept the result: {refusal.message}"
                outcome = Failed(refusal.code, fit_text(message, _SHORT_MESSAGE), stack="", retryable=False)
            case Failed() as failed:
                _log.error("report refused, sending it without checkpoint and stack trace", **reason, **ids)
                outcome = replace(failed, message=fit_text(failed.message, _SHORT_MESSAGE), stack="")
            case outcome:
                _log.error("checkpoint refused, reporting the attempt without it", **reason, **ids)
        self._add(_Entry(replace(report, outcome=outcome, checkpoint=None), entry.on_result))

    def _finish(self, entry: _Entry, result: ReportResult) -> None:
        self._undelivered -= 1
        try:
            entry.on_result(result)
        except Exception:  # noqa: BLE001 the results of other reports must still arrive
            _log.exception("unexpected error after a report")


def _take(waiting: deque[_Entry], size: int) -> Sequence[_Entry]:
    if len(waiting) <= size:
        taken = list(waiting)
        waiting.clear()
        return taken
    return [waiting.popleft() for _ in range(size)]


def _may_be_caused_by_one_report(failure: Failure) -> bool:
    """Return whether other reports of the same request may be accepted without the one that delays or breaks it."""
    if isinstance(failure, UnauthorizedError):
        return False
    if isinstance(failure, AnswerError):
        return failure.code != _BUSY and failure.status != HTTPStatus.TOO_MANY_REQUESTS
    return isinstance(failure, LostAnswerError)


def _size(report: TaskReport) -> int:
    """Return the size of the parts of a report that may be large: characters or bytes, without quotation marks."""
    checkpoint = 0 if report.checkpoint is None else len(report.checkpoint.document)
    match report.outcome:
        case Completed(result):
            return len(result or b"")
        case Failed(message=message, stack=stack):
            return checkpoint + len(message) + len(stack)
        case _:
            return checkpoint


def _is_minimal(report: TaskReport) -> bool:
    """Return whether nothing can be removed from a report to make it acceptable."""
    match report.outcome:
        case Completed():
            return False
        case Failed(message=message, stack=stack):
            return not stack and len(message) <= _SHORT_MESSAGE and report.checkpoint is None
        case _:
            return report.checkpoint is None
