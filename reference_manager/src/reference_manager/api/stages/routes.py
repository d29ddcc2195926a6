"""Routes of stages."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from reference_manager.api.common.access import PRODUCE, PRODUCE_OR_WORK, READ
from reference_manager.api.common.errors import (
    IDEMPOTENCY_KEY_REUSED,
    ILLEGAL_STAGE_STATUS_TRANSITION,
    JOB_IN_FINITE_STATE,
    JOB_NOT_FOUND,
    STAGE_NOT_FOUND,
    WITH_A_BODY,
)
from reference_manager.api.common.fields import (
    MAX_VALUES,
    SEPARATED,
    Id,
    MetadataFilters,
    Payload,
    StageTypeName,
    metadata_filter,
)
from reference_manager.api.common.headers import CREATION, idempotency_key, is_keyed, request_trace
from reference_manager.api.common.pagination import (
    NumberedPageQuery,
    entity_response,
    numbered_response,
    openapi_list_responses,
)
from reference_manager.api.common.responses import (
    STAGE_MODIFIED,
    WithProgress,
    code_response,
    json_response,
    openapi_responses,
)
from reference_manager.api.common.strict import StrictRoute, converted, converted_metadata
from reference_manager.api.stages.requests import StageBody, StageStatusBody
from reference_manager.api.stages.responses import Stage, StagePage, Summary
from reference_manager.domain.commands import StageFilter
from reference_manager.domain.states import StageStatus
from reference_manager.engine.records.stages import Stages

Statuses: TypeAlias = Annotated[
    Annotated[list[StageStatus], Field(max_length=MAX_VALUES), SEPARATED] | None,
    Query(description="One or more statuses, separated by commas."),
]


def stages_router(stages: Stages) -> APIRouter:
    """Build the routes of stages."""
    router = APIRouter(prefix="/v1", tags=["stages"], route_class=StrictRoute)

    @router.get("/jobs/{jobId}/stages", responses=openapi_list_responses(Stage, JOB_NOT_FOUND, numbered=StagePage))
    @READ
    async def list_stages_of_job(jobId: Id, page: NumberedPageQuery, *, should_return_tasks: bool = False) -> Response:
        """List the stages of a job in order."""
        return await numbered_response(page, await stages.list_of_job(jobId, with_tasks=should_return_tasks))

    @router.post(
        "/jobs/{jobId}/stage",
        status_code=201,
        responses=openapi_responses(
            {201: Stage}, JOB_NOT_FOUND, JOB_IN_FINITE_STATE, IDEMPOTENCY_KEY_REUSED, *WITH_A_BODY
        ),
        openapi_extra=CREATION,
    )
    @PRODUCE
    async def add_stage(jobId: Id, body: StageBody, request: Request) -> Response:
        """Append a stage to a job."""
        new = converted(request, body.request, request_trace(request), keyed=is_keyed(request))
        return json_response(await stages.add(jobId, new, idempotency_key(request)), 201)

    @router.get("/stages", responses=openapi_list_responses(Stage, numbered=StagePage))
    @READ
    async def list_stages(  # noqa: PLR0913 - the filters are the protocol's
        page: NumberedPageQuery,
        job_id: Id | None = None,
        stage_type: StageTypeName | None = None,
        stage_operation_status: Statuses = None,
        metadata: MetadataFilters = None,
        *,
        should_return_tasks: bool = False,
    ) -> Response:
        """List the matching stages, by job and order."""
        wanted = StageFilter(job_id, stage_type, stage_operation_status, metadata_filter(metadata))
        return await numbered_response(page, stages.list(wanted, with_tasks=should_return_tasks))

    @router.get("/stages/{stageId}", responses=openapi_responses({200: Stage}, STAGE_NOT_FOUND))
    @READ
    async def get_stage(
        stageId: Id, *, should_return_tasks: bool = False, should_return_progress: WithProgress = False
    ) -> Response:
        """Read a stage."""
        stage = await stages.get(stageId, with_tasks=should_return_tasks, with_progress=should_return_progress)
        return await entity_response(stage)

    @router.get("/stages/{stageId}/summary", responses=openapi_responses({200: Summary}, STAGE_NOT_FOUND))
    @READ
    async def get_stage_summary(stageId: Id) -> Response:
        """Count the tasks of a stage by status."""
        return json_response(await stages.summary(stageId))

    @router.patch(
        "/stages/{stageId}/user-metadata",
        responses=openapi_responses({200: STAGE_MODIFIED}, STAGE_NOT_FOUND, *WITH_A_BODY),
    )
    @PRODUCE_OR_WORK
    async def set_stage_metadata(stageId: Id, body: Payload, request: Request) -> Response:
        """Replace the user metadata of a stage."""
        await stages.set_metadata(stageId, converted_metadata(request, body))
        return code_response(STAGE_MODIFIED)

    @router.put(
        "/stages/{stageId}/status",
        responses=openapi_responses(
            {200: STAGE_MODIFIED}, STAGE_NOT_FOUND, ILLEGAL_STAGE_STATUS_TRANSITION, *WITH_A_BODY
        ),
    )
    @PRODUCE
    async def set_stage_status(stageId: Id, body: StageStatusBody) -> Response:  # noqa: ARG001 - only PENDING
        """Release a stage that was created with startAsWaiting. The stage before it must be COMPLETED."""
        await stages.release(stageId)
        return code_response(STAGE_MODIFIED)

    return router
