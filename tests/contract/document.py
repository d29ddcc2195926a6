"""The OpenAPI document as the tests hold the manager to it: answers may have no field and no code that is not in it."""

import json
from typing import Any, TypeAlias

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import CheckContext, GenerationMode, Response

from tools.docs.openapi import page

# APIOperation and Case, whose own types are half written: a strict checker accepts all or nothing.
Operation: TypeAlias = Any
Case: TypeAlias = Any

DOCUMENT: dict[str, Any] = json.loads(page())


def _closed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with schemas that name every field. Clients must bear more: there will be more one day."""
    schemas = {
        name: schema | ({"additionalProperties": False} if "properties" in schema else {})
        for name, schema in document["components"]["schemas"].items()
    }
    return document | {"components": {"schemas": schemas}}


SCHEMA: Any = schemathesis.openapi.from_dict(
    _closed(DOCUMENT),
    config=schemathesis.Config.from_dict(  # pyright: ignore[reportUnknownMemberType]
        {
            # valid_input_is_taken, below, is stricter: it tells refusals of input from those of a state.
            "checks": {"positive_data_acceptance": {"enabled": False}},
            # Each report is refused for itself: wrong_reports_are_refused, below.
            "operations": [
                {"include-operation-id": "settle_tasks", "checks": {"negative_data_rejection": {"enabled": False}}}
            ],
        }
    ),
)


def sensible(case: Case) -> Case:
    """The case as it is sent, without what only looks right: a cursor that no list gave, and a wait for work."""
    if case.meta.generation.mode is GenerationMode.POSITIVE:
        case.query.pop("cursor", None)
    body: Any = case.body
    wait = body.get("waitSeconds", 0) if isinstance(body, dict) else 0  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(wait, float | int) and 0 < wait <= 30:
        body["waitSeconds"] = 0
    return case


def operation_id(operation: Operation) -> str:
    """The name that the document gives an operation."""
    return operation.definition.raw["operationId"]


def effort(examples: int) -> settings:
    """How many examples a test tries: so few and always the same, or as many as the profile says."""
    long = settings.get_current_profile_name() == "long"
    return settings(
        max_examples=settings().max_examples if long else examples,
        derandomize=not long,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


@schemathesis.check
def code_is_documented(_context: CheckContext, response: Response, case: Case) -> None:
    """The code of an answer is one of those that the document lists for the operation and status."""
    responses = DOCUMENT["paths"][case.operation.path][case.operation.method]["responses"]
    documented = responses.get(str(response.status_code))
    if documented and (code := _code(response)):
        codes = documented["content"]["application/json"]["examples"]
        assert code in codes, f"{code} is not documented for {response.status_code}, only {', '.join(codes)}"


@schemathesis.check
def valid_input_is_taken(_context: CheckContext, response: Response, case: Case) -> None:
    """What the document permits is not a validation error."""
    if case.meta and case.meta.generation.mode is GenerationMode.POSITIVE:
        assert _code(response) != "VALIDATION_ERROR", response.json()["message"]


@schemathesis.check
def wrong_reports_are_refused(_context: CheckContext, response: Response, case: Case) -> None:
    """A request to settle that the document forbids is refused, or some of its reports are."""
    wrong = case.meta and case.meta.generation.mode is GenerationMode.NEGATIVE
    if operation_id(case.operation) == "settle_tasks" and wrong and response.status_code == 200:
        assert "VALIDATION_ERROR" in {report.get("code") for report in response.json()["results"]}


def _code(response: Response) -> str | None:
    """The code of an answer; None where it is an entity, a list, or nothing."""
    if not response.headers.get("content-type", [""])[0].startswith("application/json"):
        return None
    body: Any = response.json()
    return body.get("code") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
