"""What only part B of the protocol knows: a manager that serves part A alone takes it for unknown."""

from collections.abc import Iterator
from typing import Any, TypeGuard, cast, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

PART_B: JsonDict = {"x-part": "B"}
"""The ``json_schema_extra`` of a query parameter or a body's field that part A does not have."""


def is_of_part_b(field: FieldInfo) -> bool:
    """Whether part A has no such parameter or field."""
    return field.json_schema_extra == PART_B


def fields_of_part_b(body: object) -> frozenset[str]:
    """The fields of a body, or of the items of one that is a list, that part A does not have."""
    model = next((one for one in (body, *get_args(body)) if _is_model(one)), None)
    fields = model.model_fields if model else {}
    return frozenset(field.alias or name for name, field in fields.items() if is_of_part_b(field))


def refuse_fields(body: object, unknown: frozenset[str]) -> None:
    """Refuse a body, or a list of them, that has one of these fields, as one that nobody knows is refused."""
    for place, item in _objects(body):
        for name in item.keys() & unknown:
            message = "Extra inputs are not permitted"
            raise RequestValidationError([{"type": "extra_forbidden", "loc": (*place, name), "msg": message}])


def without_part_b(document: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document whose requests have nothing of part B."""
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
    """The object that a body is, or those in the list that it is, and where they stand."""
    if isinstance(body, dict):
        yield ("body",), cast("dict[str, Any]", body)
    elif isinstance(body, list):
        for place, item in enumerate(cast("list[object]", body)):
            if isinstance(item, dict):
                yield ("body", place), cast("dict[str, Any]", item)
