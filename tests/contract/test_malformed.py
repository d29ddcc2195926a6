"""Malformed requests that no document can describe; every operation refuses them with a code and a location."""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.contract.document import DOCUMENT
from tests.support.protocol import refused

ANY = "00000000-0000-7000-8000-000000000000"
"""An id that no entity has, which also serves as an ordinary text."""


class Route(NamedTuple):
    """The parts of an operation that a malformed request needs."""

    id: str
    method: str
    template: str
    in_path: list[str]
    in_query: list[str]
    takes_body: bool

    def path(self, **raw: str) -> str:
        """Return the path with these raw values for its parameters, and ANY for the others."""
        return self.template.format(**dict.fromkeys(self.in_path, ANY) | raw)


def _names(operation: dict[str, Any], location: str) -> list[str]:
    return [one["name"] for one in operation.get("parameters", ()) if one["in"] == location]


ROUTES = [
    Route(
        operation["operationId"],
        method.upper(),
        path,
        _names(operation, "path"),
        _names(operation, "query"),
        "requestBody" in operation,
    )
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
with_body = pytest.mark.parametrize("route", [one for one in ROUTES if one.takes_body], ids=attrgetter("id"))
with_path = pytest.mark.parametrize("route", [one for one in ROUTES if one.in_path], ids=attrgetter("id"))
with_query = pytest.mark.parametrize("route", [one for one in ROUTES if one.in_query], ids=attrgetter("id"))
any_route = pytest.mark.parametrize("route", ROUTES, ids=attrgetter("id"))

INVALID_JSON = {
    "truncated": b'{"a": ',
    "two": b"{} {}",
    "not a number": b'{"a": NaN}',
    "infinite": b'{"a": -Infinity}',
    "half a character": b'{"a": "\\ud800"}',
    "a name of half a character": b'{"\\udc00": 1}',
    "a number of 5000 digits": b'{"a": %s}' % (b"9" * 5000),
    "201 levels": b'{"a":' + b"[" * 200 + b"1" + b"]" * 200 + b"}",
    "100000 levels": b'{"a":' * 100_000,
    "ISO 8859-1": '{"a": "ä"}'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": '\ufeff{"a": 1}'.encode(),
}
OTHER_TYPES = (
    "",
    "text/plain",
    "json",
    "application/jsonl",
    "application/json; charset=utf-16",
    'application/json; charset="iso-8859-1"',
    "multipart/form-data; boundary=x",
)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def http(manager_url: str) -> Iterator[httpx2.Client]:
    """A client of the manager."""
    with httpx2.Client(base_url=manager_url, timeout=15) as client:
        yield client


def _refused_at(response: httpx2.Response, location: str) -> None:
    refused(response, 400, "VALIDATION_ERROR")
    assert response.json()["message"].startswith(f"{location}: "), response.text


@with_body
def test_a_body_that_is_not_json_is_refused(http: httpx2.Client, route: Route) -> None:
    """A body that cannot be parsed or stored is a validation error of the body, before any other check."""
    for body in INVALID_JSON.values():
        response = http.request(route.method, route.path(), content=body, headers=JSON)
        _refused_at(response, "body")
    response = http.request(route.method, route.path(), headers=JSON)
    _refused_at(response, "body")


@with_body
def test_a_body_of_another_type_is_refused(http: httpx2.Client, route: Route) -> None:
    """A body is accepted only as JSON in UTF-8, and its header must say so."""
    for media_type in OTHER_TYPES:
        response = http.request(route.method, route.path(), content=b"{}", headers={"Content-Type": media_type})
        refused(response, 415, "UNSUPPORTED_MEDIA_TYPE")


@with_body
def test_a_body_over_the_limit_is_refused(http: httpx2.Client, route: Route) -> None:
    """A body is refused if it exceeds the limit by one byte."""
    body = b" " * (1024 * 1024 + 1)
    response = http.request(route.method, route.path(), content=body, headers=JSON)
    refused(response, 413, "BODY_TOO_LARGE")


@with_path
def test_a_path_parameter_that_is_not_text_is_refused(http: httpx2.Client, route: Route) -> None:
    """A path parameter with NUL, invalid UTF-8 or excessive length is refused."""
    for name in route.in_path:
        for raw in ("%00", "a%00", "%FF", "%ED%A0%80", "x" * 50_000):
            response = http.request(route.method, route.path(**{name: raw}), content=b"{}", headers=JSON)
            _refused_at(response, f"path.{name}")


@with_query
def test_a_query_parameter_that_is_not_text_is_refused(http: httpx2.Client, route: Route) -> None:
    """A query parameter with NUL is refused, and so is a repeated parameter that takes one value."""
    for name in route.in_query:
        _refused_at(http.request(route.method, f"{route.path()}?{name}=%00"), f"query.{name}")
        _refused_at(http.request(route.method, f"{route.path()}?{name}=1&{name}=1"), f"query.{name}")


@any_route
def test_an_unknown_parameter_is_refused(http: httpx2.Client, route: Route) -> None:
    """A query is refused if it has a parameter that is not in the document."""
    for query, location in (("unknown=1", "query.unknown"), ("=", "query."), ("%00=1", "query.\0")):
        _refused_at(http.request(route.method, f"{route.path()}?{query}"), location)


def test_values_at_their_limits_are_accepted(http: httpx2.Client) -> None:
    """The deepest, longest and most unusual allowed values are returned as sent, and 3.0 is a valid integer."""
    deepest: object = 1
    for _ in range(198):
        deepest = [deepest]
    data = {"deepest": deepest, "\0": "\0", "long": int("9" * 4300), "": -0.0, "\U0010ffff": 5e-324}
    job = http.post("/v1/jobs", json={"name": "\U0001f389" * 50, "data": data, "userMetadata": data}).json()
    assert (job["name"], job["data"], job["userMetadata"]) == ("\U0001f389" * 50, data, data)
    stage = http.post(f"/v1/jobs/{job['id']}/stage", json={"type": "\n" * 50, "data": {}}).json()
    tasks = http.post(f"/v1/stages/{stage['id']}/tasks", content=b'[{"data": {}, "maxAttempts": 3.0}]', headers=JSON)
    assert tasks.json()[0]["maxAttempts"] == 3
    for wrong in (b"3.5", b"true", b'"3"', b"1e300", b"null"):
        content = b'[{"data": {}, "maxAttempts": %s}]' % wrong
        response = http.post(f"/v1/stages/{stage['id']}/tasks", content=content, headers=JSON)
        _refused_at(response, "body.0.maxAttempts")


def test_a_body_at_the_limit_is_accepted(http: httpx2.Client) -> None:
    """A body of exactly the maximum size is accepted; if a name occurs twice, the last value counts."""
    body = b'{"name": "first", "data": {}, "name": "last"}'.ljust(1024 * 1024)
    job = http.post("/v1/jobs", content=body, headers=JSON | {"Content-Type": "application/json; charset=UTF-8"})
    assert (job.status_code, job.json()["name"]) == (201, "last")


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/jobs%2F", "/v1/jobs%0A", "//v1/jobs", "/v1//jobs", "/V1/jobs", "/"])
def test_a_path_has_one_spelling(http: httpx2.Client, path: str) -> None:
    """A path with a small deviation from a valid path is not found."""
    refused(http.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize("spelling", [ANY.replace("-", ""), f"{{{ANY}}}", f"urn:uuid:{ANY}", f" {ANY}", f"{ANY}%0A"])
def test_an_id_has_one_spelling(http: httpx2.Client, spelling: str) -> None:
    """Only the canonical form of a UUID is accepted, in upper or lower case."""
    _refused_at(http.get(f"/v1/jobs/{spelling}"), "path.jobId")
    _refused_at(http.get(f"/v1/stages?job_id={spelling}"), "query.job_id")
    job = http.post("/v1/jobs", json={"name": "a job", "data": {}}).json()
    assert http.get(f"/v1/jobs/{job['id'].upper()}").json() == job


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=1"}], ids=["hot path", "framework"])
@pytest.mark.parametrize("stage_type", ["a/b", "a b", "100%", "ä", "...", "a?b#c", "\n", "%2F"])
def test_a_stage_type_may_contain_any_character(http: httpx2.Client, stage_type: str, headers: dict[str, str]) -> None:
    """A stage type with any characters can be claimed by its URL-encoded name, on the hot path and off it."""
    job = http.post("/v1/jobs", json={"name": "a job", "data": {}}).json()
    stage = http.post(f"/v1/jobs/{job['id']}/stage", json={"type": stage_type, "data": {}}).json()
    (task,) = http.post(f"/v1/stages/{stage['id']}/tasks", json=[{"data": {}}]).json()
    encoded = "".join(f"%{byte:02X}" for byte in stage_type.encode())
    claimed = http.patch(f"/v1/stages/{encoded}/tasks/dequeue", headers=headers)
    assert claimed.json()["id"] == task["id"], claimed.text
    assert [one["id"] for one in http.get(f"/v1/stages?stage_type={encoded}&job_id={job['id']}").json()] == [
        stage["id"]
    ]
