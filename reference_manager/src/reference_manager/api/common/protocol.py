"""Parts of the protocol. A manager that serves only part A rejects the parameters and fields of part B as unknown."""

from collections.abc import Iterator
from typing import Any, TypeGuard, cast, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

PART_B: JsonDict = {"x-part": "B"}
"""The ``json_schema_extra`` of a query parameter or a body field that only part B has."""

_UNKNOWN_TO_ORIGINAL = {
    "Job": {"createdAt", "updatedAt", "endedAt"},
    "Stage": {"createdAt", "updatedAt", "creationTime", "updateTime", "startTime", "endTime"},
    "Task": {"createdAt", "updatedAt"},
    "Summary": {"aborted"},
}
"""Fields of part A in responses that the original manager does not have, by schema."""

_STATUSES_OF_PART_B = {"create_job": {"404", "422"}, "add_stage": {"422"}, "add_tasks": {"422"}}
"""Statuses of responses to idempotency keys, by operation."""


def is_of_part_b(field: FieldInfo) -> bool:
    """Return whether only part B has this parameter or field."""
    return field.json_schema_extra == PART_B


def fields_of_part_b(body: object) -> frozenset[str]:
    """Return the fields of a body model, or of the items of a list of models, that only part B has."""
    model = next((one for one in (body, *get_args(body)) if _is_model(one)), None)
    fields = model.model_fields if model else {}
    return frozenset(field.alias or name for name, field in fields.items() if is_of_part_b(field))


def refuse_fields(body: object, unknown: frozenset[str]) -> None:
    """Reject a body, or a list of bodies, that has one of these fields, like an unknown field."""
    for path, item in _objects(body):
        for name in (name for name in item if name in unknown):
            message = "Extra inputs are not permitted"
            raise RequestValidationError([{"type": "extra_forbidden", "loc": (*path, name), "msg": message}])


def without_part_b(document: dict[str, Any]) -> dict[str, Any]:
    """Remove what a manager that serves only part A, like the original, does not have from an OpenAPI document.

    A field of a response that may be null is not required: such a manager leaves it out instead.
    """
    schemas: dict[str, Any] = document["components"]["schemas"]
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        parameters: list[Any] = operation.get("parameters", [])
        parameters[:] = [parameter for parameter in parameters if not _is_marked(parameter["schema"])]
        for status in _STATUSES_OF_PART_B.get(operation["operationId"], ()):
            del operation["responses"][status]
        for response in operation["responses"].values():
            content = response.get("content", {}).get("application/json", {})
            content["schema"] = _without_marked(content.get("schema", {}), schemas)
    for name in [name for name, schema in schemas.items() if _is_marked(schema)]:
        del schemas[name]
    for title, schema in schemas.items():
        properties: dict[str, Any] = schema.get("properties", {})
        unknown = _UNKNOWN_TO_ORIGINAL.get(title, set())
        for name in [name for name, field in properties.items() if name in unknown or _is_marked(field)]:
            del properties[name]
        optional = {name for name, field in properties.items() if {"type": "null"} in field.get("anyOf", ())}
        if "required" in schema:
            schema["required"] = [name for name in schema["required"] if name in properties.keys() - optional]
    return document


def _without_marked(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Remove the alternatives of a schema that refer to a schema of part B."""
    left = [
        one
        for one in schema.get("anyOf", ())
        if not _is_marked(schemas.get(str(one.get("$ref", "")).rpartition("/")[2], {}))
    ]
    return left[0] if len(left) == 1 else schema


def _is_marked(schema: dict[str, Any]) -> bool:
    return schema.items() >= PART_B.items()


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _objects(body: object) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Yield the object of a body, or each object of a list, with its path."""
    if isinstance(body, dict):
        yield ("body",), cast("dict[str, Any]", body)
    elif isinstance(body, list):
        for index, item in enumerate(cast("list[object]", body)):
            if isinstance(item, dict):
                yield ("body", index), cast("dict[str, Any]", item)
