"""Every operation of the document, one by one: what it permits, what it forbids, and what lies just beyond."""

from tests.contract.document import SCHEMA, Case, effort, sensible


@SCHEMA.parametrize()
@effort(examples=5)
def test_an_operation_does_what_the_document_says(case: Case, manager_url: str) -> None:
    """Valid input is taken, other input is refused, and every answer is one that the document describes."""
    sensible(case).call_and_validate(base_url=manager_url)
