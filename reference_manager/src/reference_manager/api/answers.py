"""The answers that routes have in common, and how the OpenAPI document names them."""

from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from reference_manager.api.bodies import TRACEPARENT
from reference_manager.api.entities import Problem
from reference_manager.domain.requests import NO_TRACE, Trace

JOB_MODIFIED = "JOB_MODIFIED_SUCCESSFULLY"
STAGE_MODIFIED = "STAGE_MODIFIED_SUCCESSFULLY"
TASK_MODIFIED = "TASK_MODIFIED_SUCCESSFULLY"


def found(body: str, status: int = 200) -> Response:
    """An entity or a list of them, as the engine wrote it."""
    return Response(body.encode(), status, media_type="application/json")


def done(code: str) -> Response:
    """Success without an entity."""
    return Response(to_json({"code": code}), media_type="application/json")


def documented(answers: dict[int, Any], *problems: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: models by status, and the statuses that are refusals."""
    refusals: dict[int, Any] = dict.fromkeys((*problems, 400, 500, 503), Problem)
    return {status: {"model": model} for status, model in {**refusals, **answers}.items()}


def trace_of(request: Request) -> Trace:
    """The trace context of a request, by the W3C headers; all zeros where there is none or it is malformed."""
    traceparent = request.headers.get("traceparent", "")
    if not TRACEPARENT.fullmatch(traceparent):
        return NO_TRACE
    return Trace(traceparent, request.headers.get("tracestate") or None)
