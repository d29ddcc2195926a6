"""docs/reference/part-b.md: every endpoint beyond part A of the protocol, from the OpenAPI document."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from reference_manager.api.common.protocol import PART_B

from tools.docs import openapi
from tools.docs.markdown import document, table

_INTRODUCTION = """\
Endpoints and fields beyond [part A](protocol.md), taken from the OpenAPI document of this manager. A client may use
a feature if `GET /v1/capabilities` lists it. Part B does not change any answer of part A.

Some requests of part A accept more fields:

- a job: `stages` with their tasks (feature `job-tree`), `uniqueKey` and `uniqueFor` (`unique-jobs`)
- a stage: `weight` (`weighted-progress`) and `taskDefaults` (`task-defaults`)
- a task: `timeoutSeconds`, `availableAt`, `delaySeconds`, and `retry` (`retry-policy`)
- creating tasks: the header `Prefer` (`minimal-answers`)
- creating a job, a stage or tasks: the header [`Idempotency-Key`](#idempotency-keys) (`idempotency-keys`)
- reading one job or one stage: `should_return_progress` (`weighted-progress`)
- [lists](protocol.md#lists) of jobs, stages and tasks: `limit` and `cursor` (`lists`); `order`, `status`, `metadata`,
  `page` and `page_size` (`list-filters`)

This page lists these requests too, with all their fields. Their answers contain more only if the request used these
fields.

Every request may also be answered with the errors of part A: 400 `VALIDATION_ERROR`, 413, 415, 500, 503; and with 401
and 403 if the manager [has tokens](access.md)."""

_KEYS = """\
## Idempotency keys

The header `Idempotency-Key` has 1 to 255 printable ASCII characters that identify a request, such as a UUID. It has the
name and the meaning of the IETF draft "The Idempotency-Key HTTP Header Field"; the characters are not interpreted, so
that quotation marks belong to the key. `POST /v1/jobs`, `POST /v1/jobs/{jobId}/stage` and
`POST /v1/stages/{stageId}/tasks` have it. Other requests ignore it, because they can be repeated anyway.

| a request with the key of an earlier one | answer |
|---|---|
| the same request | the status and the body of the first answer. Nothing is created. With `Prefer: return=minimal`, \
the minimal body, whatever the first request preferred. |
| while the earlier one is in progress | the same, once that has ended. After 10 s, 503. |
| the earlier one was refused, or failed (4xx, 5xx) | as if it were the first |
| another path or another body | 422 `IDEMPOTENCY_KEY_REUSED`. Bodies are compared after validation, without trace \
contexts. The order of an object's members, and a default that is written out, make no difference, except \
`maxAttempts` of a task, whose default depends on the stage, and `stages` of a job, with which the answer has stages. |
| the job was deleted meanwhile | 404 `JOB_NOT_FOUND` or `STAGE_NOT_FOUND`. Nothing is created. |
| the first one was answered 200, because of `uniqueKey` | 200 with the same job, as it is now |
| more than 24 hours later | as if it were the first, once maintenance has deleted the key |

All managers on a database share the keys. A manager of an earlier release ignores them."""

_TAGS = {"work", "history", "access"}
_OTHER_OPERATIONS = {
    *("get_capabilities", "get_retention", "set_retention"),
    *("add_stage", "add_tasks", "create_job", "get_job", "get_stage"),
}
_HEAD = ("field", "type", "default", "meaning")

Schema = Mapping[str, Any]


def page() -> str:
    """Return the text of the page."""
    whole = json.loads(openapi.page())
    schemas: Mapping[str, Schema] = whole["components"]["schemas"]
    parts: list[str] = []
    shown: dict[str, None] = {}
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            if _TAGS & set(operation["tags"]) or operation["operationId"] in _OTHER_OPERATIONS:
                parts.append(f"## {method.upper()} {path}\n\n{operation['description']}")
                parts += _parameters(operation)
                for name, role in _roles(operation):
                    parts.append(f"{role}: {_linked(name)}.")
                    shown[name] = None
    for name in _with_inner(shown, schemas):
        parts.append(f"## {name}\n\n{schemas[name].get('description', '')}")
        parts.append(table(_HEAD, _rows(schemas[name], schemas)))
    return document("Part B of the protocol", _INTRODUCTION, _KEYS, *parts)


def _parameters(operation: Schema) -> Iterator[str]:
    """Describe the parameters that part A does not have."""
    for parameter in operation.get("parameters", ()):
        if parameter["schema"].items() >= PART_B.items():
            where = parameter["in"].capitalize()
            yield f"{where}: `{parameter['name']}`: {parameter['description']}"


def _roles(operation: Schema) -> Iterator[tuple[str, str]]:
    """Yield each schema of an operation with its role."""
    if body := operation.get("requestBody"):
        for name in _references(body):
            yield name, "Body"
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            for name, many in _response_schemas(_schema(response)):
                yield name, f"Response {status}{', a list' if many else ''}"


def _response_schemas(schema: Schema) -> Iterator[tuple[str, bool]]:
    """Yield each possible schema of a response, and whether the response is a list of it."""
    for alternative in schema.get("anyOf", (schema,)):
        for name in _references(alternative):
            yield name, alternative.get("type") == "array"


def _schema(response: Schema) -> Schema:
    return response.get("content", {}).get("application/json", {}).get("schema", {})


def _references(node: object) -> Iterator[str]:
    """Yield the schemas that part of the document refers to, in order of appearance."""
    if isinstance(node, Mapping):
        if isinstance(reference := node.get("$ref"), str):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            yield reference.rpartition("/")[2]
        for value in node.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _references(value)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(node, list):
        for value in node:  # pyright: ignore[reportUnknownVariableType]
            yield from _references(value)  # pyright: ignore[reportUnknownArgumentType]


def _with_inner(names: Mapping[str, None], schemas: Mapping[str, Schema]) -> list[str]:
    """Return these schemas and the ones nested in them, if they have fields."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name not in found and "properties" in schemas.get(name, {}):
            found[name] = None
            waiting += _references(schemas[name])
            waiting += re.findall(r'"title": "(\w+)"', json.dumps(schemas[name]["properties"]))
    return list(found)


def _rows(schema: Schema, schemas: Mapping[str, Schema]) -> Iterator[tuple[str, str, str, str]]:
    required: list[str] = schema.get("required", [])
    for name, field in schema["properties"].items():
        default = "" if name in required else f"`{json.dumps(field['default'])}`" if "default" in field else "none"
        yield f"`{name}`", _type(field, schemas), default, field.get("description", "")


def _type(field: Schema, schemas: Mapping[str, Schema]) -> str:
    """Describe the type of a field, such as ``string of 1 to 200 characters``."""
    if "anyOf" in field:
        return " or ".join(_type(choice, schemas) for choice in field["anyOf"])
    name: str = field.get("$ref", "").rpartition("/")[2] or field.get("title", "")
    if name in schemas:
        return _linked(name) if "properties" in schemas[name] else _type({**schemas[name], "title": ""}, schemas)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind: str = field.get("format", field.get("type", "anything"))
    if kind == "array":
        return f"list of {_between(field, 'minItems', 'maxItems')}{_type(field.get('items', {}), schemas)}"
    if kind == "string" and "maxLength" in field:
        return f"string of {_between(field, 'minLength', 'maxLength')}characters"
    return f"{kind} {_between(field, 'minimum', 'maximum')}".rstrip()


def _between(field: Schema, least: str, most: str) -> str:
    match field.get(least), field.get(most):
        case None, None:
            return ""
        case low, None:
            return f"from {low:.10g} "
        case None, high:
            return f"up to {high:.10g} "
        case low, high:
            return f"{low:.10g} to {high:.10g} "


def _linked(name: str) -> str:
    return f"[{name}](#{name.lower()})"
