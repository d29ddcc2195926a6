"""Routes of jobs."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from reference_manager.access.limits import Owner
from reference_manager.api.common.access import PRODUCE, PRODUCE_OR_WORK, READ, guard_in
from reference_manager.api.common.errors import (
    IDEMPOTENCY_KEY_REUSED,
    ILLEGAL_JOB_STATUS_TRANSITION,
    JOB_NOT_FOUND,
    JOB_NOT_IN_FINITE_STATE,
    WITH_A_BODY,
)
from reference_manager.api.common.fields import (
    MAX_VALUES,
    SEPARATED,
    Id,
    MetadataFilters,
    Moment,
    NameFilter,
    Payload,
    metadata_filter,
)
from reference_manager.api.common.headers import CREATION, idempotency_key, is_keyed, request_trace
from reference_manager.api.common.original import SAME_PRIORITY_REASON
from reference_manager.api.common.pagination import (
    NumberedPageQuery,
    entity_response,
    numbered_response,
    openapi_list_responses,
)
from reference_manager.api.common.protocol import PART_B
from reference_manager.api.common.responses import (
    JOB_DELETED,
    JOB_MODIFIED,
    WithProgress,
    code_response,
    json_response,
    openapi_responses,
)
from reference_manager.api.common.strict import StrictRoute, converted, converted_metadata
from reference_manager.api.jobs.requests import JobBody, JobStatusBody, PriorityBody
from reference_manager.api.jobs.responses import Job, JobPage
from reference_manager.domain.commands import JobFilter, NewJob
from reference_manager.domain.states import JobStatus, Priority
from reference_manager.engine.records.jobs import Jobs

Statuses: TypeAlias = Annotated[
    Annotated[list[JobStatus], Field(max_length=MAX_VALUES), SEPARATED] | None,
    Query(description="One or more statuses, separated by commas.", json_schema_extra=PART_B),
]
SAME_JOB = {"model": Job, "description": "A job with this unique key exists; nothing was created."}
SAME_PRIORITY = {
    "headers": {"Reason": {"description": "Why nothing was changed.", "required": True, "schema": {"type": "string"}}}
}


def jobs_router(jobs: Jobs) -> APIRouter:
    """Build the routes of jobs."""
    router = APIRouter(prefix="/v1", tags=["jobs"], route_class=StrictRoute)

    @router.post(
        "/jobs",
        status_code=201,
        responses=openapi_responses({200: SAME_JOB, 201: Job}, JOB_NOT_FOUND, IDEMPOTENCY_KEY_REUSED, *WITH_A_BODY),
        openapi_extra=CREATION,
    )
    @PRODUCE
    async def create_job(body: JobBody, request: Request) -> Response:
        """Create a job, with its stages and tasks if the body has any. The job is PENDING at once."""
        new = converted(request, body.request, request_trace(request), keyed=is_keyed(request))
        if guard := guard_in(request.scope):
            guard.check([Owner(None, new.name)])
        return await create_job_response(jobs, new, idempotency_key(request))

    @router.get("/jobs", responses=openapi_list_responses(Job, numbered=JobPage))
    @READ
    async def list_jobs(  # noqa: PLR0913, PLR0917 - the filters are the protocol's
        page: NumberedPageQuery,
        job_name: NameFilter | None = None,
        priority: Priority | None = None,
        status: Statuses = None,
        metadata: MetadataFilters = None,
        from_date: Moment | None = None,
        end_date: Moment | None = None,
        *,
        should_return_stages: bool = False,
    ) -> Response:
        """List the matching jobs, oldest first. The dates refer to the creation and are inclusive."""
        wanted = JobFilter(job_name, priority, status, metadata_filter(metadata), from_date, end_date)
        return await numbered_response(page, jobs.list(wanted, with_stages=should_return_stages))

    @router.get("/jobs/{jobId}", responses=openapi_responses({200: Job}, JOB_NOT_FOUND))
    @READ
    async def get_job(
        jobId: Id, *, should_return_stages: bool = False, should_return_progress: WithProgress = False
    ) -> Response:
        """Read a job."""
        job = await jobs.get(jobId, with_stages=should_return_stages, with_progress=should_return_progress)
        return await entity_response(job)

    @router.delete(
        "/jobs/{jobId}", responses=openapi_responses({200: JOB_DELETED}, JOB_NOT_FOUND, JOB_NOT_IN_FINITE_STATE)
    )
    @PRODUCE
    async def delete_job(jobId: Id) -> Response:
        """Delete a job that is COMPLETED, FAILED or ABORTED, with its stages and tasks."""
        await jobs.delete(jobId)
        return code_response(JOB_DELETED)

    @router.patch(
        "/jobs/{jobId}/user-metadata", responses=openapi_responses({200: JOB_MODIFIED}, JOB_NOT_FOUND, *WITH_A_BODY)
    )
    @PRODUCE_OR_WORK
    async def set_job_metadata(jobId: Id, body: Payload, request: Request) -> Response:
        """Replace the user metadata of a job."""
        await jobs.set_metadata(jobId, converted_metadata(request, body))
        return code_response(JOB_MODIFIED)

    @router.patch(
        "/jobs/{jobId}/priority",
        responses=openapi_responses({200: JOB_MODIFIED, 204: SAME_PRIORITY}, JOB_NOT_FOUND, *WITH_A_BODY),
    )
    @PRODUCE
    async def set_job_priority(jobId: Id, body: PriorityBody, request: Request) -> Response:
        """Change the priority of a job and of its waiting tasks. 204 if the job already has this priority."""
        if await jobs.set_priority(jobId, body.priority):
            return code_response(JOB_MODIFIED)
        part_a_only: bool = request.app.state.part_a_only
        reason = SAME_PRIORITY_REASON if part_a_only else "The job already has this priority"
        return Response(status_code=204, headers={"Reason": reason})

    @router.put(
        "/jobs/{jobId}/status",
        responses=openapi_responses({200: JOB_MODIFIED}, JOB_NOT_FOUND, ILLEGAL_JOB_STATUS_TRANSITION, *WITH_A_BODY),
    )
    @PRODUCE
    async def set_job_status(jobId: Id, body: JobStatusBody) -> Response:
        """Pause (PAUSED), resume (PENDING) or abort (ABORTED) a job."""
        await jobs.set_status(jobId, JobStatus(body.status))
        return code_response(JOB_MODIFIED)

    return router


async def create_job_response(jobs: Jobs, new: NewJob, key: str | None) -> Response:
    """Create a job, or find the one with its unique key or its idempotency key."""
    job = await jobs.create(new, key)
    return json_response(job.body, 201 if job.is_new else 200)
