"""What clients ask of jobs."""

from fastapi import APIRouter, Request, Response

from reference_manager.api.common.fields import Id, Metadata, Moment, NameFilter
from reference_manager.api.common.pagination import PartOfList, answer_entity, answer_list, listed
from reference_manager.api.common.refusals import (
    ILLEGAL_JOB_STATUS_TRANSITION,
    JOB_NOT_FOUND,
    JOB_NOT_IN_FINITE_STATE,
    OF_BODIES,
)
from reference_manager.api.common.responses import (
    JOB_DELETED,
    JOB_MODIFIED,
    TRACED,
    AskedForProgress,
    documented,
    done,
    found,
    trace_of,
)
from reference_manager.api.common.strict import StrictRoute
from reference_manager.api.jobs.requests import JobBody, JobStatusBody, PriorityBody
from reference_manager.api.jobs.responses import Job
from reference_manager.domain.requests import JobFilter
from reference_manager.domain.states import JobStatus, Priority
from reference_manager.engine.records.jobs import Jobs

SAME_JOB = {"model": Job, "description": "Nothing was created: this job has the key. Only where a key was given."}
SAME_PRIORITY = {
    "headers": {"Reason": {"description": "Why nothing was done.", "required": True, "schema": {"type": "string"}}}
}


def jobs_router(jobs: Jobs) -> APIRouter:
    """The routes of jobs."""
    router = APIRouter(prefix="/v1", tags=["jobs"], route_class=StrictRoute)

    @router.post(
        "/jobs", status_code=201, responses=documented({200: SAME_JOB, 201: Job}, *OF_BODIES), openapi_extra=TRACED
    )
    async def create_job(body: JobBody, request: Request) -> Response:
        """Create a job, and its stages and tasks if it comes with them. It is PENDING at once."""
        job = await jobs.create(body.request(trace_of(request)))
        return found(job.body, 201 if job.is_new else 200)

    @router.get("/jobs", responses=listed(Job))
    async def list_jobs(  # noqa: PLR0913 - the filters are the protocol's
        part: PartOfList,
        job_name: NameFilter | None = None,
        priority: Priority | None = None,
        from_date: Moment | None = None,
        end_date: Moment | None = None,
        *,
        should_return_stages: bool = False,
    ) -> Response:
        """List the jobs that match, oldest first; the dates are about their creation and inclusive."""
        wanted = JobFilter(job_name, priority, from_date, end_date)
        return await answer_list(part, jobs.list(wanted, with_stages=should_return_stages))

    @router.get("/jobs/{jobId}", responses=documented({200: Job}, JOB_NOT_FOUND))
    async def get_job(
        jobId: Id, *, should_return_stages: bool = False, should_return_progress: AskedForProgress = False
    ) -> Response:
        """Read a job."""
        job = await jobs.get(jobId, with_stages=should_return_stages, with_progress=should_return_progress)
        return await answer_entity(job)

    @router.delete("/jobs/{jobId}", responses=documented({200: JOB_DELETED}, JOB_NOT_FOUND, JOB_NOT_IN_FINITE_STATE))
    async def delete_job(jobId: Id) -> Response:
        """Delete a job that is COMPLETED, FAILED or ABORTED, with its stages and tasks."""
        await jobs.delete(jobId)
        return done(JOB_DELETED)

    @router.patch("/jobs/{jobId}/user-metadata", responses=documented({200: JOB_MODIFIED}, JOB_NOT_FOUND, *OF_BODIES))
    async def set_job_metadata(jobId: Id, body: Metadata) -> Response:
        """Replace the user's metadata of a job."""
        await jobs.set_metadata(jobId, body)
        return done(JOB_MODIFIED)

    @router.patch(
        "/jobs/{jobId}/priority",
        responses=documented({200: JOB_MODIFIED, 204: SAME_PRIORITY}, JOB_NOT_FOUND, *OF_BODIES),
    )
    async def set_job_priority(jobId: Id, body: PriorityBody) -> Response:
        """Change a job's priority; it counts for its waiting tasks at once. 204 if it has this priority already."""
        if await jobs.set_priority(jobId, body.priority):
            return done(JOB_MODIFIED)
        return Response(status_code=204, headers={"Reason": "The job has this priority already"})

    @router.put(
        "/jobs/{jobId}/status",
        responses=documented({200: JOB_MODIFIED}, JOB_NOT_FOUND, ILLEGAL_JOB_STATUS_TRANSITION, *OF_BODIES),
    )
    async def set_job_status(jobId: Id, body: JobStatusBody) -> Response:
        """Pause (PAUSED), resume (PENDING) or abort (ABORTED) a job."""
        await jobs.set_status(jobId, JobStatus(body.status))
        return done(JOB_MODIFIED)

    return router
