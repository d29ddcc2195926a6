"""The document itself: valid, complete in what every operation has, and the one that the manager serves."""

from typing import Any

import httpx2
import pytest

from tests.contract.document import DOCUMENT, SCHEMA

OPERATIONS: dict[str, dict[str, Any]] = {
    operation["operationId"]: operation for path in DOCUMENT["paths"].values() for operation in path.values()
}
any_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def test_the_document_is_valid() -> None:
    """It is what OpenAPI 3.1 calls a description, and every operation has an id of its own."""
    SCHEMA.validate()
    assert len(OPERATIONS) == sum(len(path) for path in DOCUMENT["paths"].values())


def test_the_manager_serves_the_document(manager_url: str) -> None:
    """What the tests hold the manager to is what it tells its clients."""
    assert httpx2.get(f"{manager_url}/openapi.json").json() == DOCUMENT


@any_operation
def test_an_operation_tells_its_refusals(operation: dict[str, Any]) -> None:
    """Bad input and a database in trouble may be met everywhere, a wrong or large body where there is one."""
    expected = {"400", "500", "503", *(("413", "415") if "requestBody" in operation else ())}
    assert operation["responses"].keys() >= expected
    for status in operation["responses"].keys() & {"400", "404", "409", *expected}:
        examples = operation["responses"][status]["content"]["application/json"]["examples"]
        assert {code: example["value"]["code"] for code, example in examples.items()} == {
            code: code for code in examples
        }


@any_operation
def test_a_parameter_is_never_null(operation: dict[str, Any]) -> None:
    """A URL has no null: what is not given is left out."""
    assert not any("null" in str(parameter["schema"]) for parameter in operation.get("parameters", ()))


@any_operation
def test_links_lead_somewhere(operation: dict[str, Any]) -> None:
    """Each names an operation, and parameters that it has."""
    for response in operation["responses"].values():
        for link in response.get("links", {}).values():
            taken = {parameter["name"] for parameter in OPERATIONS[link["operationId"]].get("parameters", ())}
            assert taken >= link.get("parameters", {}).keys()
