"""Watching jobs and waiting for them; reading tasks, attempts and lists."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx2
import pytest
from jobnik_sdk import (
    Consumer,
    Job,
    JobAbortedError,
    JobFailedError,
    JobNotFoundError,
    JobStatus,
    JobType,
    Producer,
    StageType,
    TaskStatus,
    WaitTimeoutError,
)
from jobnik_sdk.testing import FakeManager
from pydantic import BaseModel
from structlog.testing import capture_logs

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

Make = Callable[..., dict[str, Any]]
Refuse = Callable[[int, str], httpx2.Response]


class Picture(BaseModel):
    """The data and the result of a task."""

    source: str


plain = JobType("plain")
pictures = StageType("pictures", task=Picture, result=Picture)
untyped = StageType("untyped", task=Picture)
JOB = UUID(int=1)


@pytest.fixture
def at(entity: Make) -> Callable[..., httpx2.Response]:
    """Return a function that creates the response with a job in this state."""

    def make(status: str, percentage: int = 0, **fields: object) -> httpx2.Response:
        common = {"name": "plain", "priority": "MEDIUM", "status": status, "percentage": percentage}
        return httpx2.Response(200, json=entity(**common, **fields))

    return make


def has(*features: str) -> httpx2.Response:
    """Return the response of a manager with these features."""
    return httpx2.Response(200, json={"features": features})


async def test_watch_yields_every_change_once(
    wire: "Wire", pauses: list[float], at: Callable[..., httpx2.Response]
) -> None:
    """A job is yielded first as it is and then after each change, until it ends."""
    wire.will_answer(has(), at("PENDING"), at("PENDING"), at("IN_PROGRESS"), at("IN_PROGRESS", 50))
    wire.will_answer(at("IN_PROGRESS", 50), at("FAILED", 50))
    seen = [(job.status, job.percentage) async for job in Producer(wire.client).watch_job(JOB, plain)]
    assert seen == [
        (JobStatus.PENDING, 0),
        (JobStatus.IN_PROGRESS, 0),
        (JobStatus.IN_PROGRESS, 50),
        (JobStatus.FAILED, 50),
    ]
    assert pauses == [0.1] * 5
    assert wire.requests[1].url.query == b""


async def test_watch_reads_progress(wire: "Wire", pauses: list[float], at: Callable[..., httpx2.Response]) -> None:
    """With the feature `weighted-progress` the progress is requested, and a new fraction is a change."""
    steps = [{"fraction": 0.25, "etaSeconds": 30}, {"fraction": 0.5, "etaSeconds": 20}]
    wire.will_answer(has("weighted-progress"), *[at("IN_PROGRESS", progress=step) for step in steps], at("COMPLETED"))
    seen = [job.progress async for job in Producer(wire.client).watch_job(JOB, plain)]
    assert [progress and (progress.fraction, progress.eta) for progress in seen] == [
        (0.25, timedelta(seconds=30)),
        (0.5, timedelta(seconds=20)),
        None,
    ]
    assert wire.requests[1].url.query == b"should_return_progress=true"
    assert len(pauses) == 2


async def test_completed_job_is_returned(wire: "Wire", pauses: list[float], at: Callable[..., httpx2.Response]) -> None:
    """The wait ends with the job, and reports each change."""
    wire.will_answer(has(), at("IN_PROGRESS"), at("COMPLETED", 100))
    seen: list[JobStatus] = []
    job = await Producer(wire.client).wait_for_job(JOB, plain, on_progress=lambda job: seen.append(job.status))
    assert job.percentage == 100
    assert seen == [JobStatus.IN_PROGRESS, JobStatus.COMPLETED]
    assert pauses


async def test_aborted_job_is_an_error(wire: "Wire", at: Callable[..., httpx2.Response]) -> None:
    """The error has the job."""
    wire.will_answer(has(), at("ABORTED", 50))
    with pytest.raises(JobAbortedError) as caught:
        await Producer(wire.client).wait_for_job(JOB, plain)
    assert caught.value.job.percentage == 50


async def test_failed_job_has_the_failed_task(
    wire: "Wire", at: Callable[..., httpx2.Response], entity: Make, task_json: Make
) -> None:
    """The error has the first failed task of the failed stage."""
    error = {"type": "ValueError", "message": "no such page", "stack": ""}
    failed = task_json(status="FAILED", attempts=3, error=error)
    counts = {"pending": 0, "inProgress": 0, "completed": 0, "failed": 1, "created": 0, "retried": 0, "total": 1}
    stages = [
        entity(jobId=str(JOB), type="s", order=place, status=status, percentage=0, summary=counts)
        for place, status in enumerate(("COMPLETED", "FAILED"), start=1)
    ]
    job = entity(name="plain", status="FAILED", priority="MEDIUM", percentage=50, stages=stages)
    wire.will_answer(
        has("lists"), at("FAILED", 50), httpx2.Response(200, json=job), httpx2.Response(200, json=[failed])
    )
    with pytest.raises(
        JobFailedError, match=rf"has failed: task {failed['id']} failed with ValueError: no such page"
    ) as caught:
        await Producer(wire.client).wait_for_job(JOB, plain)
    assert caught.value.job.percentage == 50
    assert wire.requests[-1].url.query == f"stage_id={stages[1]['id']}&status=FAILED&limit=1".encode()


async def test_failed_job_without_a_readable_task(
    wire: "Wire", at: Callable[..., httpx2.Response], refusal: Refuse
) -> None:
    """The job may have been deleted meanwhile."""
    wire.will_answer(has(), at("FAILED", 50), refusal(404, "JOB_NOT_FOUND"))
    with pytest.raises(JobFailedError, match=r"has failed\.$") as caught:
        await Producer(wire.client).wait_for_job(JOB, plain)
    assert caught.value.task is None


async def test_wait_with_a_timeout(wire: "Wire", at: Callable[..., httpx2.Response]) -> None:
    """After the timeout `WaitTimeoutError` is raised, which is also a `TimeoutError`. The job goes on."""
    wire.will_answer(has(), at("IN_PROGRESS"), httpx2.Response(500))
    with pytest.raises(WaitTimeoutError, match=r"It is still running\.$") as caught:
        await Producer(wire.client).wait_for_job(JOB, plain, timeout=timedelta(milliseconds=50))
    assert isinstance(caught.value, TimeoutError)


async def test_timeout_names_the_stage_that_is_not_done() -> None:
    """With its counts; a stage or a job that waits for something to do says so."""
    fake = FakeManager()
    producer = Producer(fake.client())

    async def message(job: Job[Any, Any]) -> str:
        with pytest.raises(WaitTimeoutError) as caught:
            await producer.wait_for_job(job, timeout=timedelta())
        return str(caught.value).partition("It is still running: ")[2]

    job = await producer.create_job(plain)
    assert await message(job) == "it is PENDING, and it has no stages; it ends only after it has got one."
    stage = await producer.create_stage(job, pictures)
    assert await message(job) == (
        "it is PENDING, and stage 1 of 1, 'pictures', is PENDING and has no tasks; "
        "it completes only after it has got some."
    )
    await producer.create_stage(job, untyped)
    await producer.create_tasks(stage, [Picture(source=source) for source in "abc"])
    consumer = Consumer(fake.client())
    first, second = [await consumer.claim(pictures) for _ in range(2)]
    assert first is not None
    assert second is not None
    await consumer.complete(first)
    assert await message(job) == (
        "it is IN_PROGRESS, and stage 1 of 2, 'pictures', is IN_PROGRESS: 1 of 3 tasks completed, 1 in progress, "
        "1 waiting."
    )


async def test_timeout_error_of_the_application_is_raised(wire: "Wire", at: Callable[..., httpx2.Response]) -> None:
    """An exception of `on_progress` is raised unchanged."""

    def fail(_job: object) -> None:
        raise TimeoutError("mine")

    wire.will_answer(has(), at("IN_PROGRESS"))
    with pytest.raises(TimeoutError, match="mine"):
        await Producer(wire.client).wait_for_job(JOB, plain, timeout=timedelta(minutes=1), on_progress=fail)


async def test_transient_errors_do_not_end_the_wait(
    wire: "Wire", pauses: list[float], at: Callable[..., httpx2.Response], refusal: Refuse
) -> None:
    """The wait goes on if the manager is restarted meanwhile."""
    errors = [httpx2.ConnectError("refused") for _ in range(4)]
    wire.will_answer(has(), at("IN_PROGRESS"), *errors, refusal(500, "DATABASE_RELATED_ERROR"), at("COMPLETED"))
    with capture_logs() as lines:
        job = await Producer(wire.client).wait_for_job(JOB, plain)
    assert job.status is JobStatus.COMPLETED
    assert pauses
    assert {line["job_id"] for line in lines if line["event"] == "job cannot be read, trying again"} == {str(JOB)}


async def test_missing_job_is_an_error(wire: "Wire", refusal: Refuse) -> None:
    """An error of the first request ends the wait."""
    wire.will_answer(has(), refusal(404, "JOB_NOT_FOUND"))
    with pytest.raises(JobNotFoundError):
        await Producer(wire.client).wait_for_job(JOB, plain)


async def test_pauses_grow_to_five_seconds(
    wire: "Wire", monkeypatch: pytest.MonkeyPatch, at: Callable[..., httpx2.Response]
) -> None:
    """A pause is a tenth of the time since the start, 5 s at most."""
    now, waited = [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        waited.append(round(seconds, 3))
        now[0] += 20.0

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr("jobnik_sdk.producer.watching.time.monotonic", lambda: now[0])
    wire.will_answer(has(), *[at("IN_PROGRESS") for _ in range(5)], at("COMPLETED"))
    await Producer(wire.client).wait_for_job(JOB, plain)
    assert waited == [0.1, 2.0, 4.0, 5.0, 5.0]


async def test_task_has_result_error_and_progress(wire: "Wire", task_json: Make) -> None:
    """A result is an instance of the stage type's model; without a model it is None."""
    completed = {"data": {"source": "a"}, "result": {"source": "b"}, "progress": {"fraction": 0.5, "message": "half"}}
    failed = {"data": {"source": "a"}, "error": {"type": "ValueError", "message": "no", "stack": "…"}}
    wire.will_answer(*[httpx2.Response(200, json=task_json(**fields)) for fields in (completed, completed, failed)])
    producer, task_id = Producer(wire.client), uuid4()
    task = await producer.get_task(task_id, pictures)
    assert (task.result, task.progress and task.progress.message) == (Picture(source="b"), "half")
    assert (await producer.get_task(task, untyped)).result is None
    failure = (await producer.get_task(task_id, pictures)).error
    assert failure is not None
    assert (failure.type, failure.message) == ("ValueError", "no")


async def test_attempts_are_read(wire: "Wire") -> None:
    """An attempt has its number, its outcome and its error."""
    first = {"number": 1, "leaseId": 7, "workerId": "w", "startTime": "2026-01-01T00:00:00.000Z"}
    ended = {"endTime": "2026-01-01T00:00:01.000Z", "outcome": "FAILED", "error": {"type": "OSError"}}
    second = {**first, "number": 2, "endTime": None, "outcome": None, "error": None}
    wire.will_answer(has("attempts"), httpx2.Response(200, json=[first | ended, second]))
    attempts = await Producer(wire.client).get_attempts(uuid4())
    assert [(attempt.number, attempt.outcome, attempt.error and attempt.error.type) for attempt in attempts] == [
        (1, "FAILED", "OSError"),
        (2, None, None),
    ]


async def test_attempts_are_read_in_pages(wire: "Wire") -> None:
    """A manager may send the attempts in pages; all of them are returned."""
    attempts = [{"number": number, "startTime": "2026-01-01T00:00:00.000Z"} for number in (1, 2, 3)]
    link = {"Link": '</v1/tasks/x/attempts?cursor=abc>; rel="next"'}
    wire.will_answer(has("attempts"), httpx2.Response(200, json=attempts[:2], headers=link))
    wire.will_answer(httpx2.Response(200, json=attempts[2:]))
    assert [attempt.number for attempt in await Producer(wire.client).get_attempts(uuid4())] == [1, 2, 3]
    assert [request.url.query for request in wire.requests[1:]] == [b"", b"cursor=abc"]


async def test_lists_are_read_in_pages(wire: "Wire", task_json: Make) -> None:
    """The next page is requested from its link after the last entity of the previous one."""
    link = {"Link": f'</v1/stages/{JOB}/tasks?limit=500&cursor=abc>; rel="next"'}
    pages = [[task_json(data={"source": name})] for name in "ab"]
    wire.will_answer(has("lists"), httpx2.Response(200, json=pages[0], headers=link))
    tasks = Producer(wire.client).list_tasks(JOB, pictures)
    assert (await anext(tasks)).data.source == "a"
    assert len(wire.requests) == 2
    wire.will_answer(httpx2.Response(200, json=pages[1]))
    assert [task.data.source async for task in tasks] == ["b"]
    assert [request.url.query for request in wire.requests[1:]] == [b"limit=500", b"limit=500&cursor=abc"]


async def test_lists_without_pages_are_one_response(wire: "Wire", refusal: Refuse) -> None:
    """A manager with part A only sends the whole list; filters still apply."""
    wire.will_answer(refusal(404, "NOT_FOUND"), *[httpx2.Response(200, json=[]) for _ in range(3)])
    producer = Producer(wire.client)
    assert [task async for task in producer.list_tasks(JOB, pictures, TaskStatus.FAILED)] == []
    assert [stage async for stage in producer.list_stages(JOB, pictures)] == []
    assert [job async for job in producer.list_jobs(JobType("a & b"))] == []
    assert [request.url.raw_path for request in wire.requests[1:]] == [
        f"/v1/tasks?stage_id={JOB}&status=FAILED".encode(),
        f"/v1/stages?job_id={JOB}&stage_type=pictures".encode(),
        b"/v1/jobs?job_name=a+%26+b",
    ]
