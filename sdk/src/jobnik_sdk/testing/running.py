"""Run handlers and workers in a test."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Generic
from uuid import UUID

from jobnik_sdk.execution.handler import Handler
from jobnik_sdk.execution.outcomes import Completed, Outcome
from jobnik_sdk.execution.runners import runner_for
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.arguments import check_duration, check_instance
from jobnik_sdk.model.definitions import JobStatus, JobType, ResultT, TaskT
from jobnik_sdk.model.entities import Job, created_job_model
from jobnik_sdk.model.payloads import encode_payload
from jobnik_sdk.producer import Producer
from jobnik_sdk.producer.paths import job_path
from jobnik_sdk.testing.contexts import RecordingContext, context_for
from jobnik_sdk.worker.container import opened
from jobnik_sdk.worker.worker import Worker

__all__ = ["HandlerResult", "opened", "run_handler", "work_off", "working"]

_TIMEOUT: Final = timedelta(seconds=30)

_ANY_JOB: Final = JobType("any job")


@dataclass(frozen=True, slots=True)
class HandlerResult(Generic[ResultT]):
    """The outcome of a call of a handler, and its result."""

    outcome: Outcome
    _result: ResultT

    @property
    def result(self) -> ResultT:
        """The value that the handler returned, read back from its JSON as a producer reads it.

        Raises:
            AssertionError: the handler did not complete; the message has its outcome.
        """
        assert isinstance(self.outcome, Completed), f"The handler did not complete: {self.outcome}"  # noqa: S101 for tests
        return self._result


async def run_handler(
    handler: Handler[TaskT, ResultT, Any, Any, Any],
    task: TaskT,
    context: RecordingContext[Any, Any, Any] | None = None,
) -> HandlerResult[ResultT]:
    """Call a handler once as a worker does: in its style, with its time limit, with its result validated.

    An exception from the handler is not raised here. It becomes the outcome: `HandlerResult.outcome` is `Completed`,
    `Failed`, `Snoozed` or `Released`.

    Args:
        handler: The handler to call.
        task: The data of the task.
        context: From `context_for` or `FakeManager.claim`; default: a new one from `context_for`.

    Raises:
        TypeError: `handler` is not a handler, or `context` not such a context.
        InvalidPayloadError: `task` does not fit the stage type.
    """
    check_instance("handler", handler, Handler)
    if context is not None:
        check_instance("context", context, RecordingContext)
    encode_payload(task, handler.stage_type.task, "task")
    attempt = context if context is not None else context_for(handler.stage_type)
    runner = runner_for(handler)
    try:
        await runner.open()
        outcome = await runner.run(task, replace(attempt, timeout=handler.attempt_timeout(attempt.timeout)))
    finally:
        await runner.close()
    result: Any = None
    if isinstance(outcome, Completed) and outcome.result is not None and handler.stage_type.result is not None:
        result = handler.stage_type.result.model_validate_json(outcome.result)
    return HandlerResult(outcome, result)


@asynccontextmanager
async def working(*workers: Worker) -> AsyncGenerator[None]:
    """Run workers for the length of an `async with` block, and drain them at its end."""
    for worker in workers:
        check_instance("Each of the workers", worker, Worker)
    running = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        await asyncio.gather(*running)


async def work_off(worker: Worker, job: Job[Any, Any] | UUID, timeout: timedelta = _TIMEOUT) -> JobStatus:  # noqa: ASYNC109 a limit for the test
    """Run a worker until a job has ended, then drain the worker and return the final status of the job.

    Raises:
        TypeError: an argument has a wrong type.
        TimeoutError: the job did not end within `timeout`, 30 s by default; the message has the status of each stage.
    """
    check_instance("worker", worker, Worker)
    job_path(job)  # raises an error for anything else
    check_duration("timeout", timeout)
    last: Job[Any, Any] | None = None
    async with working(worker):
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                async for change in Producer(worker.client).watch_job(job, _ANY_JOB):
                    last = change
        except TimeoutError:
            status = "cannot be read" if last is None else f"is {last.status}. {await _stages(worker.client, last)}"
            raise TimeoutError(f"The job did not end within {timeout}: it {status}") from None
    assert last is not None  # noqa: S101 a watch yields at least once
    return last.status


async def _stages(client: JobnikClient, job: Job[Any, Any]) -> str:
    answer = await client.request("GET", f"/v1/jobs/{job.id}?should_return_stages=true")
    stages = read_one(created_job_model(_ANY_JOB), answer).stages
    lines = [
        f"{stage.type} is {stage.status} with {stage.summary.completed} of {stage.summary.total} tasks completed"
        for stage in stages
    ]
    return f"Its stages: {', '.join(lines)}." if lines else "It has no stages."
