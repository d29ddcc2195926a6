"""Requests that no document can describe, sent to every operation: each is refused with a code and the place."""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.contract.document import DOCUMENT
from tests.support.protocol import refused

ANY = "00000000-0000-7000-8000-000000000000"
"""An id that nothing has, and a text like any other."""


class Route(NamedTuple):
    """An operation, as far as a malformed request to it needs to know it."""

    id: str
    method: str
    template: str
    in_path: list[str]
    in_query: list[str]
    takes_body: bool

    def path(self, **raw: str) -> str:
        """The path with these values, as they go over the wire, in the place of its parameters; else with ANY."""
        return self.template.format(**dict.fromkeys(self.in_path, ANY) | raw)


def _names(operation: dict[str, Any], place: str) -> list[str]:
    return [one["name"] for one in operation.get("parameters", ()) if one["in"] == place]


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

NO_JSON = {
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


def _refused_at(response: httpx2.Response, place: str) -> None:
    refused(response, 400, "VALIDATION_ERROR")
    assert response.json()["message"].startswith(f"{place}: "), response.text


@with_body
def test_a_body_that_is_not_json_is_refused(http: httpx2.Client, route: Route) -> None:
    """Whatever cannot be parsed, or not kept as it is, is a validation error of the body, before all else."""
    for body in NO_JSON.values():
        response = http.request(route.method, route.path(), content=body, headers=JSON)
        _refused_at(response, "body")
    response = http.request(route.method, route.path(), headers=JSON)
    _refused_at(response, "body")


@with_body
def test_a_body_of_another_type_is_refused(http: httpx2.Client, route: Route) -> None:
    """JSON in UTF-8 is all that is understood, and the header must say so."""
    for media_type in OTHER_TYPES:
        response = http.request(route.method, route.path(), content=b"{}", headers={"Content-Type": media_type})
        refused(response, 415, "UNSUPPORTED_MEDIA_TYPE")


@with_body
def test_a_body_over_the_limit_is_refused(http: httpx2.Client, route: Route) -> None:
    """One byte more than the limit is too much."""
    body = b" " * (1024 * 1024 + 1)
    response = http.request(route.method, route.path(), content=body, headers=JSON)
    refused(response, 413, "BODY_TOO_LARGE")


@with_path
def test_a_path_that_is_no_text_is_refused(http: httpx2.Client, route: Route) -> None:
    """A parameter in the path is neither NUL nor half a character nor a novel."""
    for name in route.in_path:
        for raw in ("%00", "a%00", "%FF", "%ED%A0%80", "x" * 50_000):
            response = http.request(route.method, route.path(**{name: raw}), content=b"{}", headers=JSON)
            _refused_at(response, f"path.{name}")


@with_query
def test_a_query_that_is_no_text_is_refused(http: httpx2.Client, route: Route) -> None:
    """Nor is one in the query; and where one value is wanted, two are too many."""
    for name in route.in_query:
        _refused_at(http.request(route.method, f"{route.path()}?{name}=%00"), f"query.{name}")
        _refused_at(http.request(route.method, f"{route.path()}?{name}=1&{name}=1"), f"query.{name}")


@any_route
def test_a_parameter_that_is_not_known_is_refused(http: httpx2.Client, route: Route) -> None:
    """A query has no parameters but those in the document, and is UTF-8."""
    for query, place in (("unknown=1", "query.unknown"), ("=", "query."), ("%00=1", "query.\0")):
        _refused_at(http.request(route.method, f"{route.path()}?{query}"), place)


def test_what_lies_just_within_is_taken(http: httpx2.Client) -> None:
    """The deepest, the longest and the strangest that is allowed comes back as it was sent; 3.0 is an integer."""
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


def test_a_body_at_the_limit_is_taken(http: httpx2.Client) -> None:
    """Only one byte more would be too much; and of a name that comes twice, the last counts."""
    body = b'{"name": "first", "data": {}, "name": "last"}'.ljust(1024 * 1024)
    job = http.post("/v1/jobs", content=body, headers=JSON | {"Content-Type": "application/json; charset=UTF-8"})
    assert (job.status_code, job.json()["name"]) == (201, "last")


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/jobs%2F", "/v1/jobs%0A", "//v1/jobs", "/v1//jobs", "/V1/jobs", "/"])
def test_a_path_has_one_spelling(http: httpx2.Client, path: str) -> None:
    """What is nearly a path is another one."""
    refused(http.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize("spelling", [ANY.replace("-", ""), f"{{{ANY}}}", f"urn:uuid:{ANY}", f" {ANY}", f"{ANY}%0A"])
def test_an_id_has_one_spelling(http: httpx2.Client, spelling: str) -> None:
    """What Python would take for a UUID as well is none here; the case of its letters does not matter."""
    _refused_at(http.get(f"/v1/jobs/{spelling}"), "path.jobId")
    _refused_at(http.get(f"/v1/stages?job_id={spelling}"), "query.job_id")
    job = http.post("/v1/jobs", json={"name": "a job", "data": {}}).json()
    assert http.get(f"/v1/jobs/{job['id'].upper()}").json() == job


@pytest.mark.parametrize("headers", [{}, {"Expect": "100-continue"}], ids=["hot path", "framework"])
@pytest.mark.parametrize("stage_type", ["a/b", "a b", "100%", "ä", "..", "a?b#c", "\n", "%2F"])
def test_a_stage_type_may_have_any_character(http: httpx2.Client, stage_type: str, headers: dict[str, str]) -> None:
    """Encoded as URLs have it, each is claimed by its name, on the hot path and off it."""
    job = http.post("/v1/jobs", json={"name": "a job", "data": {}}).json()
    stage = http.post(f"/v1/jobs/{job['id']}/stage", json={"type": stage_type, "data": {}}).json()
    (task,) = http.post(f"/v1/stages/{stage['id']}/tasks", json=[{"data": {}}]).json()
    encoded = "".join(f"%{byte:02X}" for byte in stage_type.encode())
    claimed = http.patch(f"/v1/stages/{encoded}/tasks/dequeue", headers=headers)
    assert claimed.json()["id"] == task["id"], claimed.text
    assert [one["id"] for one in http.get(f"/v1/stages?stage_type={encoded}&job_id={job['id']}").json()] == [
        stage["id"]
    ]
