"""The OpenAPI document: what the framework reads from the routes, and what it cannot know."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from reference_manager.api.common.protocol import without_part_b
from reference_manager.api.common.schemas import Problem

DESCRIPTION = """\
Jobs, their stages and their tasks: create them, claim tasks, report how they went.

A refusal is a `Problem`. Rely on its `code`; the codes that an answer may have are its examples. A path that is not
here is answered 404 `NOT_FOUND`, a method that a path does not have 405 `METHOD_NOT_ALLOWED` with the header `Allow`.
HEAD and OPTIONS work wherever HTTP has them. Query parameters that are not here, or come twice, are refused.

Everything has a bound. Where a schema names none (payloads, a list of tasks) it is that of the body: 1 MiB unless the
manager is told otherwise, beyond it 413 `BODY_TOO_LARGE`. JSON is at most 200 levels deep, its integers have at most
4300 digits, its other numbers are those of a double; NaN, infinite numbers and lone surrogates are refused. The line
and the headers of a request have at most 64 KiB, beyond it 431 `HEAD_TOO_LARGE`.

Parameters and fields that are marked `x-part: B` are more than part A of the protocol has."""

# The way of a job from its creation to its end: an operation, a status of it, and what the answer is good for.
_CLAIMED = {"taskId": "$response.body#/tasks/0/id", "leaseId": "$response.body#/tasks/0/leaseId"}
_WORKER = {"workerId": "$request.body#/workerId"}
_LINKS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("create_job", "201"): {"add_stage": {"parameters": {"jobId": "$response.body#/id"}}},
    ("add_stage", "201"): {
        "add_tasks": {"parameters": {"stageId": "$response.body#/id"}},
        "dequeue_task": {"parameters": {"stageType": "$response.body#/type"}},
        "claim_tasks": {"parameters": {"stageType": "$response.body#/type"}},
    },
    ("add_tasks", "201"): {"get_task": {"parameters": {"taskId": "$response.body#/0/id"}}},
    ("dequeue_task", "200"): {"set_task_status": {"parameters": {"taskId": "$response.body#/id"}}},
    ("claim_tasks", "200"): {
        "heartbeat": {"parameters": _WORKER, "requestBody": {"running": [_CLAIMED]}},
        "settle_tasks": {"requestBody": {**_WORKER, "results": [_CLAIMED]}},
    },
}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _document(app)
    return app.openapi_schema


def _document(app: FastAPI) -> dict[str, Any]:
    described = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas: dict[str, Any] = described["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    described["components"]["schemas"] = dict(sorted({**schemas, "Problem": Problem.model_json_schema()}.items()))
    for operation in (operation for path in described["paths"].values() for operation in path.values()):
        responses = operation["responses"]
        responses.pop("422", None)  # bad input is 400 here
        operation["responses"] = dict(sorted(responses.items()))
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _without_null(parameter["schema"])
    _link({operation["operationId"]: operation for path in described["paths"].values() for operation in path.values()})
    return without_part_b(described) if app.state.part_a_only else described


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out can still not be null: there is no null in a URL or a header."""
    alternatives = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(alternatives) != 1:
        return schema
    return {key: value for key, value in schema.items() if key != "anyOf"} | alternatives[0]


def _link(operations: dict[str, Any]) -> None:
    for (source, status), targets in _LINKS.items():
        if source in operations:
            operations[source]["responses"][status]["links"] = {
                target: {"operationId": target, **gives} for target, gives in targets.items() if target in operations
            }
