"""The API as an ASGI application."""

from importlib.metadata import version
from operator import attrgetter

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from reference_manager.access.tokens import Tokens
from reference_manager.api.common.access import OPEN, Gate, declared_access
from reference_manager.api.common.bodies import Bodies
from reference_manager.api.common.errors import describe_error, register_error_handlers
from reference_manager.api.common.methods import Methods
from reference_manager.api.common.openapi import DESCRIPTION, openapi_document
from reference_manager.api.common.original import describe_as_original
from reference_manager.api.history.routes import history_router
from reference_manager.api.jobs.routes import jobs_router
from reference_manager.api.queues.routes import queues_router
from reference_manager.api.retention.routes import retention_router
from reference_manager.api.service.routes import capabilities_router, service_router
from reference_manager.api.stages.routes import stages_router
from reference_manager.api.tasks.routes import tasks_router
from reference_manager.api.tokens.routes import tokens_router
from reference_manager.api.workers.routes import workers_router
from reference_manager.engine.engine import Engine

OPEN_PAGES = ("/docs", "/docs/oauth2-redirect", "/openapi.json")
"""The API page and its document need no token: they contain nothing about this manager except its version."""
OPEN_FOLDER = "/static-offline-docs/"
"""The files of the API page."""


def create_app(
    engine: Engine, gate: Gate, *, body_limit: int, part_a_only: bool = False, metrics_open: bool = False
) -> FastAPI:
    """Build the API on an engine. Without an authenticator in front, it refuses every request that needs a token.

    Args:
        engine: The engine that serves the requests.
        gate: What the routes need to check access.
        body_limit: The maximum size of a request body, in bytes; for a larger one, the response is 413.
        part_a_only: Whether to serve only part A of the protocol, as the original manager does. The engine's database
            needs the same setting, because the database writes the JSON of entities.
        metrics_open: Whether ``/metrics`` needs no token.
    """
    app = FastAPIOffline(
        title="Jobnik manager",
        description=DESCRIPTION,
        version=version("jobnik-reference-manager"),
        redoc_url=None,
        redirect_slashes=False,  # a path with a trailing slash is a different path
        generate_unique_id_function=attrgetter("name"),
        # One span for each request if tracing is enabled (server/tracing.py), and no other telemetry.
        telemetry={"metrics": False, "logs": False, "operation_spans": False, "auto_configure": False},
    )
    app.state.bodies = Bodies(body_limit)
    app.state.part_a_only = part_a_only
    app.state.gate = gate
    part_b_routers = (
        queues_router(engine.queue),
        workers_router(engine.workers),
        history_router(engine.history),
        retention_router(engine.retention),
        tokens_router(Tokens(engine.database)),
        capabilities_router(),
    )
    routers = (
        jobs_router(engine.jobs),
        stages_router(engine.stages),
        tasks_router(engine.tasks, engine.queue),
        *(() if part_a_only else part_b_routers),
        service_router(engine, metrics_open=metrics_open),
    )
    for router in routers:
        app.include_router(router)
    register_error_handlers(app, describe_as_original if part_a_only else describe_error)
    app.openapi = lambda: openapi_document(app)
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    app.add_middleware(Methods, routes)
    app.state.access = {route.name: declared_access(route.endpoint) for route in routes}
    app.state.open_paths = (*OPEN_PAGES, *(route.path for route in routes if app.state.access[route.name] is OPEN))
    return app
