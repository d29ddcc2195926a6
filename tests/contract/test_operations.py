"""Each operation by itself, with valid, invalid and borderline input."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from schemathesis.pytest.lazy import get_all_tests  # pyright: ignore[reportUnknownVariableType] incomplete, as Operation is

from tests.contract.document import OPERATIONS, SCHEMA, Case, Operation, effort, sendable


@pytest.fixture(scope="module")
def prepare(manager_url: str) -> Callable[[str], Callable[[], None]]:
    """Return a function that prepares the cases of an operation, by its label.

    With SCHEMA.parametrize(), each pytest process would prepare the cases of all operations when it collects the tests.
    """

    @effort(examples=5)
    def test_an_operation_conforms_to_the_document(case: Case) -> None:
        sendable(case).call_and_validate(base_url=manager_url)

    pending = cast(
        "Iterator[Any]",
        get_all_tests(
            schema=SCHEMA, test_func=test_an_operation_conforms_to_the_document, settings=None, given_kwargs=None
        ),
    )
    prepared: dict[str, Callable[[], None]] = {}

    def prepare_until(label: str) -> Callable[[], None]:
        while label not in prepared:
            operation, test = next(pending).ok()
            prepared[operation.label] = test
        return prepared[label]

    return prepare_until


@pytest.mark.timeout(180)  # makes the cases from a large schema, and sends them
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_an_operation_conforms_to_the_document(
    operation: Operation, prepare: Callable[[str], Callable[[], None]]
) -> None:
    """Valid input is accepted, invalid input is refused, and the document describes every response."""
    prepare(operation.label)()
