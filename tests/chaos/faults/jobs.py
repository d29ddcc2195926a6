"""Requests that change jobs in progress."""

from contextlib import suppress
from uuid import UUID

import httpx2

from tests.chaos.cluster import Cluster, eventually, sql
from tests.chaos.faults.repairs import Repair


async def pause_job(cluster: Cluster) -> Repair | None:
    """Pause and resume a job in progress."""
    job = await _job_under_way(cluster)
    if job is None:
        return None
    await _set_status(cluster, job, "PAUSED")

    async def repair() -> None:
        async def answered() -> bool:
            return await _set_status(cluster, job, "PENDING")

        await eventually("a manager resumes the job or refuses to", answered)

    return repair


async def abort_job(cluster: Cluster) -> None:
    """Abort a job in progress."""
    job = await _job_under_way(cluster)
    if job is not None:
        cluster.aborted.add(job)
        await _set_status(cluster, job, "ABORTED")


async def _job_under_way(cluster: Cluster) -> UUID | None:
    jobs = await cluster.ask(sql.jobs_under_way)
    return cluster.random.choice(jobs) if jobs else None


async def _set_status(cluster: Cluster, job: UUID, status: str) -> bool:
    """Request a status for a job; return whether a manager accepted or refused the request."""
    async with httpx2.AsyncClient(timeout=3) as http:
        for manager in cluster.managers:
            with suppress(httpx2.TransportError):
                response = await http.put(f"{manager.url}/v1/jobs/{job}/status", json={"status": status})
                if response.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
                    return True
    return False
