"""Routes of the service itself: liveness, readiness, metrics and capabilities."""

from importlib.metadata import version

from fastapi import APIRouter, Response
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR
from pydantic_core import to_json

from reference_manager.api.common.access import OPEN, READ
from reference_manager.api.common.errors import RETRY_AFTER, problem, stalled
from reference_manager.api.common.responses import code_response, json_response, openapi_responses
from reference_manager.api.common.schemas import Representation
from reference_manager.api.common.strict import StrictRoute
from reference_manager.api.service.metrics import exposition
from reference_manager.engine.engine import Engine
from reference_manager.engine.metrics import REGISTRY

FEATURES = (
    "claim",
    "settle",
    "leases",
    "heartbeat",
    "workers",
    "attempts",
    "results",
    "checkpoints",
    "history",
    "progress",
    "depth",
    "retry-policy",
    "task-defaults",
    "weighted-progress",
    "job-tree",
    "unique-jobs",
    "lists",
    "list-filters",
    "minimal-answers",
    "idempotency-keys",
    "retention",
    "tokens",
)
"""Features that clients may use if this list has them."""
ALIVE = "ALIVE"
READY = "READY"
STALLED = stalled(["lease sweeper"])
EXPOSITION = {"content": {"text/plain": {"schema": {"type": "string"}}}}


class Capabilities(Representation):
    """The features that this manager supports beyond part A of the protocol."""

    protocol: str
    version: str
    features: list[str]


def service_router(engine: Engine, *, metrics_open: bool) -> APIRouter:
    """Build the routes for operators.

    Args:
        engine: The engine.
        metrics_open: Whether ``/metrics`` needs no token.
    """
    router = APIRouter(tags=["service"], route_class=StrictRoute)

    @router.get("/liveness", responses=openapi_responses({200: ALIVE}, STALLED))
    @OPEN
    async def liveness() -> Response:
        """Report that the manager and its background tasks are running. The database is not checked."""
        if tasks := engine.stalled_tasks():
            return problem(stalled(tasks), RETRY_AFTER)
        return code_response(ALIVE)

    @router.get("/readiness", responses=openapi_responses({200: READY}))
    @OPEN
    async def readiness() -> Response:
        """Report whether claims and reports would work now."""
        await engine.check_database()
        return code_response(READY)

    @router.get("/metrics", response_class=Response, responses=openapi_responses({200: EXPOSITION}))
    @(OPEN if metrics_open else READ)
    async def metrics() -> Response:
        """Return the metrics in the Prometheus text format. The request fails if the database does."""
        process = (REGISTRY, PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR)
        text = exposition(await engine.database_statistics(), engine.manager_statistics(), process)
        return Response(text, media_type="text/plain; version=0.0.4")

    return router


def capabilities_router() -> APIRouter:
    """Build the route with which clients discover part B of the protocol."""
    router = APIRouter(tags=["service"], route_class=StrictRoute)

    @router.get("/v1/capabilities", responses=openapi_responses({200: Capabilities}))
    @OPEN
    async def get_capabilities() -> Response:
        """Return the features that this manager supports beyond part A of the protocol."""
        answer = {"protocol": "1", "version": version("jobnik-reference-manager"), "features": FEATURES}
        return json_response(to_json(answer).decode())

    return router
