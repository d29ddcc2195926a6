"""Each operation by itself, with valid, invalid and borderline input."""

from tests.contract.document import SCHEMA, Case, effort, sendable


@SCHEMA.parametrize()
@effort(examples=5)
def test_an_operation_conforms_to_the_document(case: Case, manager_url: str) -> None:
    """Valid input is accepted, invalid input is refused, and the document describes every response."""
    sendable(case).call_and_validate(base_url=manager_url)
