"""Parts of the protocol. A manager that serves only part A rejects the parameters and fields of part B as unknown."""

from collections.abc import Iterator
from typing import Any, TypeGuard, cast, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

PART_B: JsonDict = {"x-part": "B"}
"""The ``json_schema_extra`` of a query parameter or a body field that only part B has."""


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
        for name in item.keys() & unknown:
            message = "Extra inputs are not permitted"
            raise RequestValidationError([{"type": "extra_forbidden", "loc": (*path, name), "msg": message}])


def without_part_b(document: dict[str, Any]) -> dict[str, Any]:
    """Remove the parameters and body fields of part B from an OpenAPI document."""
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        parameters: list[Any] = operation.get("parameters", [])
        parameters[:] = [parameter for parameter in parameters if not _is_marked(parameter["schema"])]
    for schema in document["components"]["schemas"].values():
        properties: dict[str, Any] = schema.get("properties", {})
        for name in [name for name, field in properties.items() if _is_marked(field)]:
            del properties[name]
    return document


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
