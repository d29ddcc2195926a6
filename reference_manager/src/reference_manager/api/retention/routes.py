"""Routes of retention: the rules by which ended jobs are deleted."""

from fastapi import APIRouter, Request, Response

from reference_manager.api.common.access import ADMINISTER, READ
from reference_manager.api.common.errors import WITH_A_BODY
from reference_manager.api.common.responses import json_response, openapi_responses
from reference_manager.api.common.strict import StrictRoute, converted
from reference_manager.api.retention.requests import RetentionBody
from reference_manager.api.retention.responses import Retention
from reference_manager.engine.records.retention import RetentionRules


def retention_router(rules: RetentionRules) -> APIRouter:
    """Build the routes of retention."""
    router = APIRouter(prefix="/v1", tags=["service"], route_class=StrictRoute)

    @router.get("/retention", responses=openapi_responses({200: Retention}))
    @READ
    async def get_retention() -> Response:
        """Read the rules by which ended jobs are deleted."""
        return json_response(await rules.get())

    @router.put("/retention", responses=openapi_responses({200: Retention}, *WITH_A_BODY))
    @ADMINISTER
    async def set_retention(body: RetentionBody, request: Request) -> Response:
        """Replace all rules. From the response on, no job is deleted by the former ones."""
        wanted, archive = converted(request, body.rules)
        return json_response(await rules.set(wanted, archive=archive))

    return router
