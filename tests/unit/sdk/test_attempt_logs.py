"""The log line of a failed attempt: a warning if the task is tried again, otherwise an error with the stack."""

from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import (
    DoNotRetry,
    Event,
    Handler,
    JobType,
    NewTask,
    Producer,
    RetryLater,
    RetryPolicy,
    StageType,
    TaskContext,
    TaskFailed,
    Worker,
)
from jobnik_sdk.testing import FakeManager
from pydantic import BaseModel
from structlog.testing import capture_logs

MINUTE, SECOND, SOON = timedelta(minutes=1), timedelta(seconds=1), timedelta(milliseconds=1)


class Page(BaseModel):
    """The data of a task."""

    then: str = "fail"


pages = StageType("pages", task=Page)


async def fail(page: Page, _context: TaskContext) -> None:
    """Fail as the task says."""
    if page.then == "later":
        raise RetryLater(5 * MINUTE, "the archive is locked")
    if page.then == "never":
        raise DoNotRetry("no such page")
    raise ConnectionError("503")


async def _lines(manager: FakeManager, *tasks: NewTask[Page, Any], attempts: int = 1) -> list[dict[str, Any]]:
    """Run the first attempts at each task, and return the lines of those that failed, in order."""
    producer = Producer(manager.client())
    job = await producer.create_job(JobType("books"))
    stage = await producer.create_stage(job, pages)
    await producer.create_tasks(stage, pages, tasks)
    failed: list[TaskFailed] = []
    with capture_logs() as logs:
        for number in range(1, attempts + 1):
            await _run_until(manager, failed, number * len(tasks))
            manager.advance(timedelta(hours=1))
    return [{**line} for line in logs if line["event"] == "task failed"][: attempts * len(tasks)]


async def _run_until(manager: FakeManager, failed: list[TaskFailed], count: int) -> None:
    """Run a worker until `count` attempts have failed. While it stops, it may run another one."""
    if len(failed) >= count:
        return

    def note(event: Event) -> None:
        if isinstance(event, TaskFailed):
            failed.append(event)
        if len(failed) >= count:
            worker.stop()

    handlers = [Handler(pages, fail)]
    worker = Worker(manager.client(), handlers, listeners=[note], poll_initial_delay=SOON, poll_max_delay=SOON)
    await worker.run()


@pytest.mark.parametrize("part_a_only", [False, True])
async def test_only_the_last_attempt_has_the_stack(part_a_only: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """Each attempt has one line, with the reason, its number and, if the task is tried again, the delay."""
    manager = FakeManager(part_a_only=part_a_only)
    lines = await _lines(manager, NewTask(Page(), max_attempts=3), attempts=3)
    assert [line["log_level"] for line in lines] == ["warning", "warning", "error"]
    assert [(line["attempt"], line["max_attempts"]) for line in lines] == [(1, 3), (2, 3), (3, 3)]
    assert {(line["error_type"], line["error_message"]) for line in lines} == {("ConnectionError", "503")}
    assert [line.get("retry_in_seconds") for line in lines] == [0, 0, None]
    assert ["exception" in line for line in lines] == [False, False, True]
    assert 'raise ConnectionError("503")' in lines[2]["exception"]


@pytest.mark.parametrize(
    ("then", "retry", "seconds"),
    [
        ("fail", RetryPolicy.fixed(20 * SECOND), [20, 20]),
        ("fail", RetryPolicy.exponential(20 * SECOND, factor=4, max_delay=MINUTE, jitter=0.5), [20, 60]),
        ("later", RetryPolicy.fixed(20 * SECOND), [300, 300]),
        ("later", None, [300, 300]),
    ],
)
async def test_the_line_says_when_the_next_attempt_follows(
    then: str, retry: RetryPolicy | None, seconds: list[int]
) -> None:
    """The delay is that of `RetryLater`, or that of the task's retry policy without its jitter."""
    lines = await _lines(FakeManager(), NewTask(Page(then=then), max_attempts=4, retry=retry), attempts=2)
    assert [line["retry_in_seconds"] for line in lines] == seconds


async def test_permanent_failure_is_an_error() -> None:
    """`DoNotRetry` ends the task, so its attempt is the last one."""
    (line,) = await _lines(FakeManager(), NewTask(Page(then="never"), max_attempts=4))
    assert (line["log_level"], line["error_type"], "exception" in line) == ("error", "DoNotRetry", True)
    assert "retry_in_seconds" not in line


async def test_part_a_retries_whatever_the_handler_decides() -> None:
    """Such a manager only counts attempts, so the line says that the task is tried again at once."""
    tasks = [NewTask(Page(then=then), max_attempts=4) for then in ("never", "later")]
    lines = await _lines(FakeManager(part_a_only=True), *tasks)
    assert {(line["log_level"], line["retry_in_seconds"]) for line in lines} == {("warning", 0)}
