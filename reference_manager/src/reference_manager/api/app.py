"""The manager as an ASGI application."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from reference_manager.api.errors import answer_errors
from reference_manager.api.history import history_router
from reference_manager.api.jobs import jobs_router
from reference_manager.api.methods import Methods
from reference_manager.api.service import service_router
from reference_manager.api.stages import stages_router
from reference_manager.api.tasks import tasks_router
from reference_manager.api.work import work_router
from reference_manager.engine.engine import Engine

DESCRIPTION = "Jobs, their stages and their tasks: create them, claim tasks, report how they went."


def create_app(engine: Engine, *, body_limit: int) -> ASGIApp:
    """The whole API over an engine.

    Args:
        engine: Does what is asked.
        body_limit: The largest request body, in bytes; more is answered 413.
    """
    app = FastAPIOffline(
        title="Jobnik manager",
        description=DESCRIPTION,
        version=version("jobnik-reference-manager"),
        redoc_url=None,
    )
    app.state.body_limit = body_limit
    routers = (
        jobs_router(engine.jobs),
        stages_router(engine.stages),
        tasks_router(engine.tasks, engine.queue),
        work_router(engine.queue, engine.workers),
        history_router(engine.history),
        service_router(engine.database),
    )
    for router in routers:
        app.include_router(router)
    answer_errors(app)
    app.openapi = lambda: _document(app)
    return Methods(app, [route for router in routers for route in router.routes])


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, without the 422 that the framework puts everywhere: bad input is 400 here."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema
