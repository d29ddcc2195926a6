"""Polls a job until it ends."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog

from jobnik_sdk.http.retries import TRANSIENT_ERRORS
from jobnik_sdk.model.definitions import JobStatus
from jobnik_sdk.model.entities import Job

MIN_PAUSE_SECONDS: Final = 0.1
MAX_PAUSE_SECONDS: Final = 5.0
PAUSE_FRACTION: Final = 0.1
"""The pause between two requests, as a fraction of the time since the start: a change is seen at most 10 % late."""

FINAL_STATUSES: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ABORTED})

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)

JobT = TypeVar("JobT", bound=Job[Any, Any])


async def watch(job_id: UUID, read: Callable[[], Awaitable[JobT]]) -> AsyncGenerator[JobT]:
    """Yield the job that `read` returns, first as it is and then after each change, until the job ends.

    A transient error is logged and the request repeated, but an error of the first request is raised.
    """
    started = time.monotonic()
    last_state: tuple[object, ...] | None = None
    while True:
        try:
            job = await read()
        except TRANSIENT_ERRORS as error:
            if last_state is None:
                raise
            _log.warning("job cannot be read, trying again", job_id=str(job_id), reason=str(error))
        else:
            state = (job.status, job.percentage, job.progress and job.progress.fraction)
            if state != last_state:
                last_state = state
                yield job
            if job.status in FINAL_STATUSES:
                return
        pause = PAUSE_FRACTION * (time.monotonic() - started)
        await asyncio.sleep(min(max(MIN_PAUSE_SECONDS, pause), MAX_PAUSE_SECONDS))
