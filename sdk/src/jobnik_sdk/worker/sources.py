"""Selects the task source of a worker: with leases if the manager supports them, otherwise with part A alone."""

import asyncio
from datetime import timedelta
from typing import Final

from jobnik_sdk.errors import JobnikError
from jobnik_sdk.http.client import JobnikClient
from jobnik_sdk.http.retries import INITIAL_DELAY, MAX_DELAY, backoff
from jobnik_sdk.observability.logging import RuntimeLogger
from jobnik_sdk.worker.leased_source import LeasedTaskSource
from jobnik_sdk.worker.part_a_source import PartATaskSource
from jobnik_sdk.worker.task_source import TaskSource

LEASE_FEATURES: Final = frozenset({"claim", "settle", "leases", "heartbeat"})
"""The features that a manager must have for the worker to use leases."""

_log: Final = RuntimeLogger(__name__)


async def connect(client: JobnikClient, worker_id: str, lease: timedelta, stage_types: int) -> TaskSource:
    """Wait until the manager answers, and return the task source for its capabilities.

    Args:
        client: The client of the worker.
        worker_id: The id of the worker.
        lease: How long a task stays with the worker without a heartbeat.
        stage_types: The number of stage types that the worker claims.
    """
    delays = backoff(INITIAL_DELAY, MAX_DELAY)
    # The leases in a response that takes longer have ended. Without a limit, it may arrive byte by byte.
    limited = client.limited(client.timeout + lease)
    while True:
        try:
            features = await limited.capabilities(retry=False)
        except JobnikError as error:
            _log.warning("manager not reachable yet, retrying", manager=client.base_url, reason=str(error))
            await asyncio.sleep(next(delays))
            continue
        if features >= LEASE_FEATURES:
            return LeasedTaskSource(limited, worker_id, lease, stage_types)
        _log.warning(
            "manager has no leases",
            manager=client.base_url,
            advice="update the manager or check its address; tasks of a killed worker wait until they are stale",
        )
        return PartATaskSource(limited)
