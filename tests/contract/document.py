"""The OpenAPI document as the tests enforce it: responses may contain no undocumented field or code."""

from typing import Any, TypeAlias

import schemathesis
from hypothesis import Phase, settings
from schemathesis import CheckContext, GenerationMode, Response

from tests.support.long_runs import FAST_ENOUGH, is_long
from tools.docs.openapi import reference

# The types of APIOperation and Case are incomplete, so a strict type checker can only treat them as Any.
Operation: TypeAlias = Any
Case: TypeAlias = Any

DOCUMENT = reference()
"""A test compares it with what the manager serves."""

_LONG = 500
"""The number of examples in a long run."""


def _closed(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with schemas that list every field, and without access, which the manager does not require.

    Real clients must tolerate unknown fields.
    """
    schemas = {
        name: schema | ({"additionalProperties": False} if "properties" in schema else {})
        for name, schema in document["components"]["schemas"].items()
    }
    paths = {
        path: {
            method: {key: value for key, value in operation.items() if key != "security"}
            for method, operation in operations.items()
            if "access" not in operation["tags"]  # the first token would close the manager
        }
        for path, operations in document["paths"].items()
    }
    return document | {"paths": paths, "components": {"schemas": schemas}}


SCHEMA: Any = schemathesis.openapi.from_dict(
    _closed(DOCUMENT),
    config=schemathesis.Config.from_dict(  # pyright: ignore[reportUnknownMemberType]
        {
            # valid_input_is_accepted, below, is stricter: it tells invalid input from a conflict with the state.
            "checks": {"positive_data_acceptance": {"enabled": False}},
            # Each report is refused individually: see invalid_reports_are_refused, below.
            "operations": [
                {"include-operation-id": "settle_tasks", "checks": {"negative_data_rejection": {"enabled": False}}}
            ],
        }
    ),
)


def sendable(case: Case) -> Case:
    """Return the case without what the schema allows: invented cursors, two kinds of pages at once, waits for work."""
    if case.meta.generation.mode is GenerationMode.POSITIVE:
        case.query.pop("cursor", None)
        if case.query.keys() & {"page", "page_size"}:
            case.query.pop("limit", None)
    body: Any = case.body
    wait = body.get("waitSeconds", 0) if isinstance(body, dict) else 0  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(wait, float | int) and 0 < wait <= 30:
        body["waitSeconds"] = 0
    return case


OPERATIONS: list[Operation] = [result.ok() for result in SCHEMA.get_all_operations()]


def operation_id(operation: Operation) -> str:
    """Return the operation id."""
    return operation.definition.raw["operationId"]


def effort(examples: int) -> settings:
    """Return settings for a few fixed examples, or for many random ones in a long run."""
    return settings(
        max_examples=_LONG if is_long() else examples,
        derandomize=not is_long(),
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=FAST_ENOUGH,
    )


@schemathesis.check
def code_is_documented(_context: CheckContext, response: Response, case: Case) -> None:
    """The code of a response is one that the document lists for the operation and status."""
    responses = DOCUMENT["paths"][case.operation.path][case.operation.method]["responses"]
    documented = responses.get(str(response.status_code))
    if documented and (code := _code(response)):
        codes = documented["content"]["application/json"]["examples"]
        assert code in codes, f"{code} is not documented for {response.status_code}, only {', '.join(codes)}"


@schemathesis.check
def valid_input_is_accepted(_context: CheckContext, response: Response, case: Case) -> None:
    """Input that the document permits never causes a validation error."""
    if case.meta and case.meta.generation.mode is GenerationMode.POSITIVE:
        assert _code(response) != "VALIDATION_ERROR", response.json()["message"]


@schemathesis.check
def invalid_reports_are_refused(_context: CheckContext, response: Response, case: Case) -> None:
    """If the document forbids a settle request, the request or at least one of its reports is refused."""
    wrong = case.meta and case.meta.generation.mode is GenerationMode.NEGATIVE
    if operation_id(case.operation) == "settle_tasks" and wrong and response.status_code == 200:
        assert "VALIDATION_ERROR" in {report.get("code") for report in response.json()["results"]}


def _code(response: Response) -> str | None:
    """Return the code of a response; None for an entity, a list or an empty body."""
    if not response.headers.get("content-type", [""])[0].startswith("application/json"):
        return None
    body: Any = response.json()
    return body.get("code") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
