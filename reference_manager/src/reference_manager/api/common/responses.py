"""Responses that the resources share, and their descriptions in the OpenAPI document."""

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, TypeAlias

from fastapi import Query
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse

from reference_manager.api.common.errors import ON_EVERY_ROUTE, ErrorResponse
from reference_manager.api.common.headers import MINIMAL
from reference_manager.api.common.protocol import PART_B
from reference_manager.api.common.schemas import Done

WithProgress: TypeAlias = Annotated[
    bool,
    Query(
        description="Part B: whether the response includes `progress`; its nested stages or tasks have none.",
        json_schema_extra=PART_B,
    ),
]

PIECE = 1024 * 1024
"""Characters. Encoding and sending a longer body at once would delay other requests."""

JOB_DELETED = "JOB_DELETED_SUCCESSFULLY"
WORKER_DELETED = "WORKER_DELETED_SUCCESSFULLY"
JOB_MODIFIED = "JOB_MODIFIED_SUCCESSFULLY"
STAGE_MODIFIED = "STAGE_MODIFIED_SUCCESSFULLY"
TASK_MODIFIED = "TASK_MODIFIED_SUCCESSFULLY"

# Python 3.13 renamed this status; the OpenAPI document is the same on every Python.
_DESCRIPTIONS = {413: "Request Entity Too Large"}
_HEADERS: dict[int, dict[str, Any]] = {
    503: {"Retry-After": {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer"}}},
}


def json_response(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Send an entity or a list of entities, as the engine wrote it. A large body is encoded and sent in pieces."""
    if len(body) > PIECE:
        return StreamingResponse(_pieces(body), status, headers, "application/json")
    return Response(body.encode(), status, headers, "application/json")


async def _pieces(body: str) -> AsyncGenerator[str]:
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]


def minimal_response(body: str, status: int = 200) -> Response:
    """Send a minimal body, and the header that says so."""
    response = json_response(body, status)
    response.headers["Preference-Applied"] = MINIMAL
    return response


def code_response(code: str) -> Response:
    """Send a success without an entity."""
    return Response(to_json({"code": code}), media_type="application/json")


def preferred_response(model: Any) -> dict[str, Any]:  # noqa: ANN401 - as FastAPI takes it
    """Describe the success of a route that calls ``prefers_minimal``: a full or a minimal body."""
    return {
        "model": model,
        "headers": {
            "Preference-Applied": {"description": f"`{MINIMAL}`, if it was requested.", "schema": {"type": "string"}}
        },
    }


def openapi_responses(successes: dict[int, Any], *errors: ErrorResponse) -> dict[int | str, dict[str, Any]]:
    """Build the ``responses`` of a route.

    Args:
        successes: The successes by status: a model, the code of a success without an entity, or an OpenAPI response
            object.
        errors: The errors beyond those of every route. A route that takes a body adds ``WITH_A_BODY``.
    """
    responses: dict[int | str, dict[str, Any]] = {status: _success(one) for status, one in successes.items()}
    for error in (*errors, *ON_EVERY_ROUTE):
        response = responses.setdefault(error.status, _json({"$ref": "#/components/schemas/Problem"}))
        if headers := _HEADERS.get(error.status):
            response["headers"] = headers
        if description := _DESCRIPTIONS.get(error.status):
            response["description"] = description
        value = {"message": error.message, "code": error.code}
        response["content"]["application/json"]["examples"][error.code] = {"value": value}
    return responses


def _success(success: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    match success:
        case str():
            examples = {success: {"value": {"code": success}}}
            return {"model": Done, "content": {"application/json": {"examples": examples}}}
        case dict():
            return success  # pyright: ignore[reportUnknownVariableType]
        case _:
            return {"model": success}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema, "examples": {}}}}
