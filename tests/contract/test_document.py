"""The document is valid and complete, and the manager serves exactly this document."""

from typing import Any

import httpx2
import pytest

from tests.contract.document import DOCUMENT, SCHEMA

OPERATIONS: dict[str, dict[str, Any]] = {
    operation["operationId"]: operation for path in DOCUMENT["paths"].values() for operation in path.values()
}
any_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def test_the_document_is_valid() -> None:
    """The document conforms to OpenAPI 3.1, and every operation id is unique."""
    SCHEMA.validate()
    assert len(OPERATIONS) == sum(len(path) for path in DOCUMENT["paths"].values())


def test_the_manager_serves_the_document(manager_url: str) -> None:
    """The manager serves the document that the tests enforce."""
    assert httpx2.get(f"{manager_url}/openapi.json").json() == DOCUMENT


@any_operation
def test_an_operation_documents_its_refusals(operation: dict[str, Any]) -> None:
    """Every operation documents bad input and database failures, and those with a body a wrong or large one."""
    expected = {"400", "500", "503", *(("413", "415") if "requestBody" in operation else ())}
    assert operation["responses"].keys() >= expected
    for status in operation["responses"].keys() & {"400", "404", "409", *expected}:
        examples = operation["responses"][status]["content"]["application/json"]["examples"]
        assert {code: example["value"]["code"] for code, example in examples.items()} == {
            code: code for code in examples
        }


@any_operation
def test_a_parameter_is_never_null(operation: dict[str, Any]) -> None:
    """No query parameter is nullable, because a URL cannot express null."""
    assert not any("null" in str(parameter["schema"]) for parameter in operation.get("parameters", ()))


@any_operation
def test_links_name_existing_operations(operation: dict[str, Any]) -> None:
    """Each link names an existing operation and parameters of that operation."""
    for response in operation["responses"].values():
        for link in response.get("links", {}).values():
            taken = {parameter["name"] for parameter in OPERATIONS[link["operationId"]].get("parameters", ())}
            assert taken >= link.get("parameters", {}).keys()
