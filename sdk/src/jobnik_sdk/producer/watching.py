"""Watching a job until it has ended."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog

from jobnik_sdk.http.retries import TRANSIENT_ERRORS
from jobnik_sdk.model.definitions import JobStatus
from jobnik_sdk.model.entities import Job

SHORTEST_PAUSE: Final = 0.1
MAX_PAUSE: Final = 5.0
"""Seconds between two looks at a job."""
SHARE: Final = 0.1
"""Of the time since the watch began, which is waited between two looks: so nothing is known more than a tenth late."""
FINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ABORTED})

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)

JobT = TypeVar("JobT", bound=Job[Any, Any])


async def watch(job_id: UUID, read: Callable[[], Awaitable[JobT]]) -> AsyncGenerator[JobT]:
    """Yield what `read` brings at first and whenever it has changed, until the job has ended.

    Trouble with the manager is waited out, unless the very first look has it.
    """
    began = time.monotonic()
    seen: tuple[object, ...] | None = None
    while True:
        try:
            job = await read()
        except TRANSIENT_ERRORS as error:
            if seen is None:
                raise
            _log.warning("the job cannot be read yet", job_id=str(job_id), reason=str(error))
        else:
            state = (job.status, job.percentage, job.progress and job.progress.fraction)
            if state != seen:
                seen = state
                yield job
            if job.status in FINAL:
                return
        await asyncio.sleep(min(max(SHORTEST_PAUSE, SHARE * (time.monotonic() - began)), MAX_PAUSE))
