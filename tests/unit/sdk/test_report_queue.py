"""The queue of reports, on a manager that cannot decide some of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from jobnik_sdk import (
    AnswerError,
    Completed,
    Empty,
    Failed,
    LostAnswerError,
    ManagerFailureError,
    Outcome,
    PayloadTooLargeError,
    Snoozed,
    UnreachableError,
)
from jobnik_sdk.errors import answer_error
from jobnik_sdk.execution.progress import Checkpoint
from jobnik_sdk.worker import report_queue
from jobnik_sdk.worker.report_queue import ReportQueue
from jobnik_sdk.worker.task_source import ACCEPTED, Assignment, ReportResult, TaskReport
from structlog.testing import capture_logs

COMPLETED = Completed(None)
UNDECIDED = ReportResult(accepted=False, code="UNDECIDED", message="locked")
Send = Callable[[Sequence[str]], Awaitable[Sequence[ReportResult]]]


def _failure(code: str = "DATABASE_RELATED_ERROR") -> ManagerFailureError:
    return ManagerFailureError("busy", status=503, code=code)


class Reports:
    """A queue whose reports are named by their jobs: the reports a1 and a2 are of the job a."""

    def __init__(self, send: Send) -> None:
        self.sent: list[list[str]] = []
        self.outcomes: dict[str, list[Outcome]] = {}
        self.results: dict[str, ReportResult] = {}
        self.changed = asyncio.Event()
        self._send = send
        self.queue = ReportQueue(self._record)

    def put(
        self,
        *names: str,
        outcome: Outcome = COMPLETED,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Add reports."""
        for name in names:
            task = Assignment[Empty, Empty](
                id=UUID(int=1), stage_id=name, attempts=0, max_attempts=3, data=Empty(), metadata=Empty(), lease_id=1
            )
            task.job = {"id": name[0]}
            self.queue.put(
                TaskReport(task, "any", outcome, checkpoint), lambda result, name=name: self._set(name, result)
            )

    async def wait_for(self, *names: str) -> None:
        """Wait until these reports are accepted or refused."""
        while not self.results.keys() >= set(names):
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 10)

    def _set(self, name: str, result: ReportResult) -> None:
        assert name not in self.results
        self.results[name] = result
        self.changed.set()

    async def _record(self, reports: Sequence[TaskReport]) -> Sequence[ReportResult]:
        names = [report.task.stage_id for report in reports]
        self.sent.append(names)
        for report in reports:
            self.outcomes.setdefault(report.task.stage_id, []).append(report.outcome)
        return await self._send(names)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat reports soon, and do not wait long for a slow request."""
    monkeypatch.setattr(report_queue, "INITIAL_DELAY", timedelta(milliseconds=1))
    monkeypatch.setattr(report_queue, "MAX_RETRY_DELAY", timedelta(milliseconds=2))
    monkeypatch.setattr(report_queue, "SLOW_AFTER_SECONDS", 0.01)


async def test_an_undecided_report_delays_only_the_reports_of_its_job() -> None:
    """The others of its batch and later ones are delivered; later reports of the same job wait behind it."""
    locked = True

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        return [UNDECIDED if locked and name[0] == "a" else ACCEPTED for name in names]

    reports = Reports(send)
    reports.put("a1", "b1", "c1")
    await reports.wait_for("b1", "c1")
    reports.put("a2", "b2", "c2")
    await reports.wait_for("b2", "c2")
    assert reports.sent[0] == ["a1", "b1", "c1"]
    assert all({name[0] for name in names} == {"a"} or "a2" not in names for names in reports.sent)
    assert "a1" not in reports.results
    assert reports.queue.held_back == 2
    locked = False
    await reports.wait_for("a1", "a2")
    assert set(reports.results.values()) == {ACCEPTED}
    reports.put("a3", "b3")
    await reports.wait_for("a3", "b3")
    assert reports.sent[-1] == ["a3", "b3"]
    assert reports.queue.held_back == 0


@pytest.mark.parametrize("failure", [_failure(), _failure("NO_CODE"), LostAnswerError("no answer")], ids=str)
async def test_a_batch_that_fails_as_a_whole_is_repeated_job_by_job(failure: Exception) -> None:
    """An older manager answers 503 to all reports if the job of one is locked."""

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        if any(name[0] == "a" for name in names):
            raise failure
        return [ACCEPTED] * len(names)

    reports = Reports(send)
    reports.put("a1", "b1", "b2", "c1")
    await reports.wait_for("b1", "b2", "c1")
    assert sorted(map(tuple, reports.sent[1:])).count(("b1", "b2")) == 1
    assert "a1" not in reports.results
    reports.queue.close()


@pytest.mark.parametrize(
    "failure",
    [_failure("MANAGER_BUSY"), UnreachableError("refused"), AnswerError("no", status=429, code="NO_CODE")],
    ids=str,
)
async def test_a_batch_that_nobody_processed_stays_together(failure: Exception) -> None:
    """More requests would not help a manager that is busy or cannot be reached."""
    failures = [failure, failure]

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        if failures:
            raise failures.pop()
        return [ACCEPTED] * len(names)

    reports = Reports(send)
    reports.put("a1", "b1")
    await reports.wait_for("a1", "b1")
    assert reports.sent == [["a1", "b1"]] * 3


async def test_a_request_without_an_answer_does_not_delay_later_reports() -> None:
    """Up to four requests are sent at a time, and more reports wait for one of them."""
    never, arrived = asyncio.Event(), asyncio.Semaphore(0)

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        arrived.release()
        if names[0][0] == "h":
            await never.wait()
        return [ACCEPTED] * len(names)

    reports = Reports(send)
    for number in range(3):
        reports.put(f"h{number}")
        await arrived.acquire()
    reports.put("a1")
    await reports.wait_for("a1")
    assert reports.sent == [["h0"], ["h1"], ["h2"], ["a1"]]
    never.set()
    await reports.wait_for("h0", "h1", "h2")


async def test_a_report_that_breaks_every_request_is_isolated() -> None:
    """Other reports of the same job are delivered in smaller batches without it."""

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        if "a5" in names:
            raise _failure("UNKNOWN_ERROR")
        return [ACCEPTED] * len(names)

    reports = Reports(send)
    names = [f"a{number}" for number in range(10)]
    reports.put(*names)
    await reports.wait_for(*(name for name in names if name != "a5"))
    assert "a5" not in reports.results
    reports.queue.close()


async def test_an_error_after_a_report_does_not_lose_the_results_of_others() -> None:
    """A callback may raise an exception."""

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        return [ACCEPTED] * len(names)

    reports = Reports(send)
    task = Assignment[Empty, Empty](
        id=UUID(int=1), stage_id="x", attempts=0, max_attempts=3, data=Empty(), metadata=Empty()
    )

    def fail(_result: ReportResult) -> None:
        raise ValueError("not now")

    reports.queue.put(TaskReport(task, "any", Completed(None)), fail)
    reports.put("a1")
    await reports.wait_for("a1")


async def test_reports_do_not_have_the_context_variables_of_a_handler() -> None:
    """A report is added in its handler's context, but the asyncio task that sends it also sends others, and logs."""
    variable = ContextVar("variable", default="unset")
    seen: list[str] = []
    failures = [_failure(), _failure("OTHER")]  # the first is repeated by the sender, and the second by the job

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        seen.append(variable.get())
        if failures:
            raise failures.pop()
        return [ACCEPTED] * len(names)

    reports = Reports(send)
    variable.set("of a handler")
    reports.put("a1", "b1")
    await reports.wait_for("a1", "b1")
    assert set(seen) == {"unset"}


async def test_a_result_that_is_refused_is_logged_as_a_failure() -> None:
    """The log line says why, and the attempt is reported as failed for good."""

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        if any(isinstance(reports.outcomes[name][-1], Completed) for name in names if name == "a1"):
            raise PayloadTooLargeError("too large", status=413, code="BODY_TOO_LARGE")
        return [ACCEPTED] * len(names)

    reports = Reports(send)
    with capture_logs() as logs:
        reports.put("a1", outcome=Completed(b"9" * 3_000))
        reports.put("b1")
        await reports.wait_for("a1", "b1")
    assert [type(outcome) for outcome in reports.outcomes["a1"]][-1] is Failed
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert line["event"] == "result refused, reporting the attempt as failed"
    assert (line["error_type"], line["job_id"], line["stage_type"]) == ("PayloadTooLargeError", "a", "any")
    assert "too large" in line["error_message"]


@pytest.mark.parametrize(
    ("outcome", "accepted"),
    [
        (Snoozed(timedelta(seconds=1)), Snoozed(timedelta(seconds=1))),
        (Failed("ValueError", "x" * 9_000, "stack"), Failed("ValueError", "x" * 1_000, "")),
    ],
    ids=["snoozed", "failed"],
)
async def test_an_outcome_is_sent_without_what_is_too_large(outcome: Outcome, accepted: Outcome) -> None:
    """A checkpoint, a stack or a long message does not change how the attempt ended."""

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        if len(reports.sent) == 1:
            raise PayloadTooLargeError("too large", status=413, code="BODY_TOO_LARGE")
        return [ACCEPTED] * len(names)

    reports = Reports(send)
    reports.put("a1", outcome=outcome, checkpoint=Checkpoint.of("x" * 3_000))
    await reports.wait_for("a1")
    assert reports.outcomes["a1"] == [outcome, accepted]


@pytest.mark.parametrize(
    "outcome",
    [Failed("ValueError", "no", ""), Completed(None), Completed(b"{}"), Snoozed(timedelta(seconds=1))],
    ids=repr,
)
async def test_a_small_report_is_repeated_whatever_a_proxy_says(outcome: Outcome) -> None:
    """A report of a few bytes is too large only for something that refuses all reports."""
    refusals: list[Any] = [PayloadTooLargeError("too large", status=413, code="NO_CODE")] * 3

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        if refusals:
            raise refusals.pop()
        return [ACCEPTED] * len(names)

    reports = Reports(send)
    reports.put("a1", outcome=outcome)
    await reports.wait_for("a1")
    assert reports.results == {"a1": ACCEPTED}
    assert reports.outcomes == {"a1": [outcome] * 4}


@pytest.mark.parametrize(("status", "code"), [(403, "NO_CODE"), (200, "NO_CODE"), (403, "FORBIDDEN")])
async def test_a_report_that_a_proxy_refuses_delays_no_reports_of_other_jobs(
    status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy refuses every request that contains it, so the others are repeated without it."""
    monkeypatch.setattr(report_queue, "MAX_RETRY_DELAY", timedelta(milliseconds=10))

    async def send(names: Sequence[str]) -> Sequence[ReportResult]:
        if "a1" in names:
            raise answer_error("page", status=status, code=code, retry_after=timedelta())
        return [ACCEPTED for _ in names]

    reports = Reports(send)
    reports.put("a1", "a2", "b1", "c1")
    await reports.wait_for("a2", "b1", "c1")
    assert "a1" not in reports.results
    reports.queue.close()
