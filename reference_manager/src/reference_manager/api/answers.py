"""The answers that routes have in common, and how the OpenAPI document describes them."""

from typing import Annotated, Any, TypeAlias

from fastapi import Query
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from reference_manager.api.bodies import LONGEST_TRACESTATE, TRACEPARENT
from reference_manager.api.entities import Done
from reference_manager.api.parts import PART_B
from reference_manager.api.refusals import ANYWHERE, Refusal
from reference_manager.domain.requests import NO_TRACE, Trace

AskedForProgress: TypeAlias = Annotated[
    bool,
    Query(
        description="Part B: whether `progress` is in the answer. Not that of the stages or tasks inside.",
        json_schema_extra=PART_B,
    ),
]

JOB_DELETED = "JOB_DELETED_SUCCESSFULLY"
WORKER_DELETED = "WORKER_DELETED_SUCCESSFULLY"
JOB_MODIFIED = "JOB_MODIFIED_SUCCESSFULLY"
STAGE_MODIFIED = "STAGE_MODIFIED_SUCCESSFULLY"
TASK_MODIFIED = "TASK_MODIFIED_SUCCESSFULLY"

# Python 3.13 renamed this status; the document is the same on every Python.
_DESCRIPTIONS = {413: "Request Entity Too Large"}
_HEADERS: dict[int, dict[str, Any]] = {
    503: {"Retry-After": {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer"}}},
}


TRACED: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}
        for name, description in (
            ("traceparent", "The trace that what is created belongs to, by W3C; a malformed one is ignored."),
            (
                "tracestate",
                f"Goes with traceparent; ignored if it is longer than {LONGEST_TRACESTATE} characters, or not ASCII.",
            ),
        )
    ]
}
"""The ``openapi_extra`` of a route that uses ``trace_of``, which costs less than parameters of the framework's."""
MINIMAL = "return=minimal"
_PROPAGATOR = TraceContextTextMapPropagator()


def found(body: str, status: int = 200) -> Response:
    """An entity or a list of them, as the engine wrote it."""
    return Response(body.encode(), status, media_type="application/json")


def found_minimal(body: str, status: int = 200) -> Response:
    """The same, as short as ``prefers_minimal`` allows."""
    response = found(body, status)
    response.headers["Preference-Applied"] = MINIMAL
    return response


def preferring(what: str) -> dict[str, Any]:
    """The parameter of a route that uses ``prefers_minimal``; what: the answer then."""
    return {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "schema": {"type": "string", **PART_B},
        "description": f"`{MINIMAL}`: the answer is {what}, and has the header `Preference-Applied`. Other preferences "
        "are ignored.",
    }


def preferred(model: Any) -> dict[str, Any]:  # noqa: ANN401 - as FastAPI takes it
    """A success of a route that uses ``prefers_minimal``: in full, or minimal."""
    return {
        "model": model,
        "headers": {
            "Preference-Applied": {"description": f"`{MINIMAL}`, where it was asked for.", "schema": {"type": "string"}}
        },
    }


def done(code: str) -> Response:
    """Success without an entity."""
    return Response(to_json({"code": code}), media_type="application/json")


def documented(answers: dict[int, Any], *refusals: Refusal) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route.

    Args:
        answers: What success is, by status: a model, the code of a success without an entity, or a response object as
            OpenAPI has it.
        refusals: Those that other routes need not have. ``OF_BODIES`` is for every route that takes a body.
    """
    responses: dict[int | str, dict[str, Any]] = {status: _success(answer) for status, answer in answers.items()}
    for refusal in (*refusals, *ANYWHERE):
        response = responses.setdefault(refusal.status, _json({"$ref": "#/components/schemas/Problem"}))
        if headers := _HEADERS.get(refusal.status):
            response["headers"] = headers
        if description := _DESCRIPTIONS.get(refusal.status):
            response["description"] = description
        value = {"message": refusal.message, "code": refusal.code}
        response["content"]["application/json"]["examples"][refusal.code] = {"value": value}
    return responses


def _success(answer: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    match answer:
        case str():
            return {"model": Done, "content": {"application/json": {"examples": {answer: {"value": {"code": answer}}}}}}
        case dict():
            return answer  # pyright: ignore[reportUnknownVariableType]
        case _:
            return {"model": answer}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema, "examples": {}}}}


def trace_of(request: Request) -> Trace:
    """The trace context of a request, by the W3C headers; the manager's own where there is none or it is malformed."""
    traceparent = request.headers.get("traceparent", "")
    if TRACEPARENT.fullmatch(traceparent) and traceparent != NO_TRACE.traceparent:
        return Trace(traceparent, _tracestate(request.headers.get("tracestate", "")))
    return own_trace()


def prefers_minimal(request: Request) -> bool:
    """Whether the client asks for the shortest answer (RFC 7240)."""
    if request.app.state.part_a_only:
        return False
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "return":  # of a preference that comes twice the first counts
            return value.strip().strip('"') == "minimal"
    return False


def _tracestate(header: str) -> str | None:
    return header if header.isascii() and 0 < len(header) <= LONGEST_TRACESTATE else None


def own_trace() -> Trace:
    """The trace context of the manager's span for this request; all zeros where it does not trace."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers)
    return Trace(headers["traceparent"], headers.get("tracestate")) if headers else NO_TRACE
