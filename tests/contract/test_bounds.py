"""Every value that a client may send has a documented bound; a value just beyond it is refused by name."""

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote, urlsplit

import httpx2
import pytest

from tests.contract.document import DOCUMENT
from tests.support.protocol import refused

Schema: TypeAlias = dict[str, Any]
Location: TypeAlias = tuple[str | int, ...]
"""The path to a value, such as ("body", "results", 0, "leaseId")."""

ANY = "00000000-0000-7000-8000-000000000000"
TIMESTAMP = "2026-01-31T12:00:00Z"
UNKNOWN = "unknown"

BOUNDED_BY_BODY = {"data", "userMetadata", "result", "checkpoint", "body", "tasks"}
"""Names of payloads and of task lists, which only the size of the body limits."""


class Value(NamedTuple):
    """One value of a request."""

    location: Location
    schema: Schema


class Operation(NamedTuple):
    """An operation that a client may call."""

    id: str
    method: str
    path: str
    parameters: list[Value]
    body: Schema | None


def resolved(schema: Schema) -> Schema:
    """Resolve references; of a nullable schema, return the alternative that is not null."""
    if "$ref" in schema:
        return resolved(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    for alternative in schema.get("anyOf", ()):
        if alternative != {"type": "null"}:
            return resolved(alternative)
    return schema


OPERATIONS = [
    Operation(
        operation["operationId"],
        method.upper(),
        path,
        [
            Value((one["in"], one["name"]), resolved(one["schema"]))
            for one in operation.get("parameters", ())
            if one["in"] != "header"
        ],
        operation["requestBody"]["content"]["application/json"]["schema"] if "requestBody" in operation else None,
    )
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if "access" not in operation["tags"]  # the first token would close the manager
]
any_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.id for operation in OPERATIONS])


def example(schema: Schema) -> Any:  # noqa: ANN401, PLR0911 - any JSON; a table of types
    """Return a value that the schema allows, with all its fields; null if the schema allows null instead of a text."""
    plain = resolved(schema)
    if {"type": "null"} in schema.get("anyOf", ()) and plain.get("type") != "object":
        return None
    match plain:
        case {"enum": [first, *_]} | {"const": first}:
            return first
        case {"type": "object"}:
            return {name: example(field) for name, field in plain.get("properties", {}).items()}
        case {"type": "array"}:
            return [example(plain["items"])]
        case {"type": "string", "format": "uuid"}:
            return ANY
        case {"type": "string", "format": "date-time"}:
            return TIMESTAMP
        case {"type": "string"}:
            return "x" * max(plain.get("minLength", 1), 1)
        case {"type": "integer" | "number"}:
            return plain["minimum"]
        case {"type": "boolean"}:
            return False
        case _:
            return None


def values(schema: Schema, location: Location) -> Iterator[Value]:
    """Yield a value and all values inside it."""
    plain = resolved(schema)
    yield Value(location, plain)
    for name, field in plain.get("properties", {}).items():
        yield from values(field, (*location, name))
    if "items" in plain:
        yield from values(plain["items"], (*location, 0))


def all_values(operation: Operation) -> list[Value]:
    """Return all values in a request of this operation."""
    return [*operation.parameters, *(values(operation.body, ("body",)) if operation.body else ())]


def is_bounded(schema: Schema) -> bool:  # noqa: PLR0911 - a table of types
    """Whether the document bounds the length, size or choice of a value; fields are checked separately."""
    match schema:
        case {"enum": _} | {"const": _} | {"type": "boolean"} | {"properties": _} | {"format": "uuid" | "date-time"}:
            return True
        case {"type": "string", "pattern": pattern} if not set("*+") & set(pattern):
            return pattern.startswith("^") and pattern.endswith("$")
        case {"type": "string"}:
            return "maxLength" in schema
        case {"type": "array"}:
            return "maxItems" in schema
        case {"propertyNames": {"maxLength": _}}:
            return "maxProperties" in schema
        case {"type": "integer" | "number"}:
            return schema.keys() >= {"minimum", "maximum"}
        case _:
            return False


def beyond(value: Value) -> Iterator[object]:  # noqa: C901, PLR0912 - a table of types
    """Yield values just beyond the bounds, and some far beyond them."""
    schema = value.schema
    match schema:
        case {"enum": _} | {"const": _}:
            yield from (UNKNOWN, "")
        case {"type": "boolean"}:
            yield from ("perhaps", 2)
        case {"type": "integer" | "number" as kind}:
            yield from (schema["minimum"] - 1, schema["maximum"] + 1, 2**63, 10**400, -(10**400), "ten", [])
            if kind == "integer":
                yield from (1.5, 1e300)
        case {"type": "array"}:
            yield from ({}, None, "x")
            items = resolved(schema["items"])
            one = example(items)
            if "required" in items:
                one = {name: one[name] for name in items["required"]}
            if "maxItems" in schema:
                yield [one] * (schema["maxItems"] + 1)
            if "minItems" in schema:
                yield [one] * (schema["minItems"] - 1)
        case {"type": "object"}:
            yield from ([], "x", 1)
            if "maxProperties" in schema:
                (one,) = (example(resolved(member)) for member in schema["patternProperties"].values())
                yield {f"name {number}": one for number in range(schema["maxProperties"] + 1)}
        case {"type": "string"}:
            yield "\0"
            if "maxLength" in schema:
                yield "x" * (schema["maxLength"] + 1)
                yield "\U0001f389" * (schema["maxLength"] + 1)
            if "minLength" in schema:
                yield "x" * (schema["minLength"] - 1)
            if "format" in schema:
                yield from ("", UNKNOWN, ANY.replace("-", ""), "0000-00-00", "+292278994-08-17")
        case _:
            pass


def changed(body: Any, location: Location, value: object) -> Any:  # noqa: ANN401 - any JSON
    """Return the body with this value at that location."""
    if not location:
        return value
    first, *rest = location
    if isinstance(first, int):
        return [changed(body[first], tuple(rest), value)]
    return body | {first: changed(body[first], tuple(rest), value)}


def send(http: httpx2.Client, operation: Operation, location: Location = (), value: object = None) -> httpx2.Response:
    """Send a request that is valid except for one value."""
    path = operation.path
    query: dict[str, str] = {}
    body = example(operation.body) if operation.body else None
    for parameter in operation.parameters:
        where, name = parameter.location
        text = str(value if parameter.location == location else example(parameter.schema))
        if where == "path":
            path = path.replace(f"{{{name}}}", quote(text, safe=""))
        elif parameter.location == location:
            query[str(name)] = text
    if location[:1] == ("body",):
        body = changed(body, location[1:], value)
    content = None if operation.body is None else json.dumps(body)
    headers = {"Content-Type": "application/json"}
    return http.request(operation.method, path, params=query, headers=headers, content=content)


def check_refused(response: httpx2.Response, location: Location) -> None:
    """Check that a refusal names the location; a settle request refuses the single report."""
    if location[:3] == ("body", "results", 0):
        assert response.status_code == 200, response.text
        (refusal,) = response.json()["results"]
        assert refusal["code"] == "VALIDATION_ERROR"
        location = location[3:]
    else:
        refused(response, 400, "VALIDATION_ERROR")
        refusal = response.json()
    # An integer with more digits than the parser accepts causes a refusal of the whole body.
    assert refusal["message"].startswith((".".join(map(str, location)), "body: not JSON, number out of range"))


@pytest.fixture(scope="module")
def http(manager_url: str) -> Iterator[httpx2.Client]:
    """A client of the manager."""
    with httpx2.Client(base_url=manager_url, timeout=15) as client:
        yield client


@any_operation
def test_every_value_has_a_documented_bound(operation: Operation) -> None:
    """The document bounds the length, size or choice of every value except payloads, which the body limit bounds."""
    free = [value.location for value in all_values(operation) if not is_bounded(value.schema)]
    assert [location for location in free if location[-1] not in BOUNDED_BY_BODY] == []


@any_operation
def test_a_value_beyond_its_bound_is_refused(http: httpx2.Client, operation: Operation) -> None:
    """Each value of each request is refused if it is too long, too large, too numerous or of another type."""
    assert "VALIDATION_ERROR" not in send(http, operation).text
    for value in all_values(operation):
        for wrong in beyond(value):
            if value.location[0] == "path" and wrong == "":
                continue  # an empty parameter is another path
            if value.location[0] == "query" and isinstance(wrong, list):
                continue
            check_refused(send(http, operation, value.location, wrong), value.location)


@any_operation
def test_an_unknown_field_is_refused(http: httpx2.Client, operation: Operation) -> None:
    """Every object in a request accepts only the fields that the document names."""
    for value in all_values(operation):
        if value.location[0] == "body" and "properties" in value.schema:
            location = (*value.location, UNKNOWN)
            wrong = example(value.schema) | {UNKNOWN: 1}
            check_refused(send(http, operation, value.location, wrong), location)


@any_operation
def test_a_payload_that_cannot_be_stored_is_refused(http: httpx2.Client, operation: Operation) -> None:
    """Non-finite numbers and excessive nesting are refused in every payload, including results."""
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    for location, schema in all_values(operation):
        if location[0] != "body" or is_bounded(schema) or schema.get("type") == "array":
            continue
        for wrong in (float("inf"), deep):
            response = send(http, operation, location, {"a": wrong})
            check_refused(response, ("body",))


def send_raw(url: str, method: str, path: str, headers: dict[str, str]) -> httpx2.Response:
    """Send a request that a regular HTTP client would not send."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port)
    with closing(connection):
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name, value)
        with suppress(ConnectionError):  # the response and the end of the connection may come before everything is sent
            connection.endheaders()
        answer = connection.getresponse()
        return httpx2.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def test_the_size_of_a_request_head_is_bounded(manager_url: str) -> None:
    """Excessive headers and queries are refused before they fill the manager's memory."""
    many = {f"x-{number}": "x" * 1000 for number in range(1000)}
    for method, path, headers in (
        ("GET", "/liveness", {"x-long": "x" * 1_000_000}),
        ("GET", "/liveness", many),
        ("GET", "/v1/tasks?status=" + "x" * 1_000_000, {}),
        ("PATCH", "/v1/stages/x/tasks/dequeue", many),
    ):
        response = send_raw(manager_url, method, path, headers)
        refused(response, 431, "HEAD_TOO_LARGE")
        assert response.headers["Connection"] == "close"
    assert send_raw(manager_url, "GET", "/liveness", {"x-long": "x" * 60_000}).status_code == 200


def test_invalid_http_is_refused_in_the_error_format(manager_url: str) -> None:
    """A refusal by the HTTP parser has a code and a message like any other refusal."""
    refused(send_raw(manager_url, "GET", "/liveness", {"Content-Length": "many"}), 400, "VALIDATION_ERROR")


def test_trace_context_in_headers_is_bounded(http: httpx2.Client) -> None:
    """A tracestate header is kept up to its maximum length and ignored beyond it, as the W3C specifies."""
    traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    for tracestate, kept in (("x" * 512, True), ("x" * 513, False), ("é", False)):
        headers = [(b"traceparent", traceparent.encode()), (b"tracestate", tracestate.encode())]
        job = http.post("/v1/jobs", json={"name": "a job", "data": {}}, headers=headers).json()
        assert job["traceparent"] == traceparent
        assert ("tracestate" in job) is kept
