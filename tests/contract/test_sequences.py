"""Sequences of operations, which use the values of earlier responses in later requests."""

from copy import deepcopy
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.contract.client import LINKS, Client
from tests.contract.document import DOCUMENT, OPERATIONS, Case, Operation, effort, operation_id
from tests.support.long_runs import is_long

STEPS = 15
LINKED = {source for source, _ in LINKS} | {link["operationId"] for links in LINKS.values() for link in links}
LIFECYCLE = [one for one in OPERATIONS if operation_id(one) in LINKED]
"""The operations that links connect, in document order: the lifecycle of a job from creation to end."""


def _cases(operation: Operation, mode: GenerationMode) -> st.SearchStrategy[Case]:
    return operation.as_strategy(generation_mode=mode)


VALID = {operation_id(one): _cases(one, GenerationMode.POSITIVE) for one in OPERATIONS}
INVALID = [_cases(one, GenerationMode.NEGATIVE) for one in OPERATIONS if one.path_parameters or one.body or one.query]


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[Case], list[Case]]:
    """Draw the calls of a client: the lifecycle once, with the document's examples, then arbitrary calls, some invalid.

    All calls are drawn before the first request, so that no drawn value depends on the manager's responses.
    """
    lifecycle = [draw(VALID[operation_id(one)]) for one in LIFECYCLE]
    for case in lifecycle:
        case.body = _example(case.operation.definition.raw.get("requestBody"), case.body)
    return lifecycle, [draw(draw(st.sampled_from([*VALID.values()] * 3 + INVALID))) for _ in range(STEPS)]


def _example(body: dict[str, Any] | None, otherwise: object) -> object:
    """Return the document's example of a request body; the examples of an item also serve as a list."""
    schema: dict[str, Any] = body["content"]["application/json"]["schema"] if body else {}
    for one in (schema, schema.get("items", {})):
        resolved = DOCUMENT["components"]["schemas"].get(one.get("$ref", "").rpartition("/")[2], {})
        if examples := deepcopy(resolved.get("examples")):
            return examples[0] if one is schema else examples
    return otherwise


@pytest.mark.timeout(0 if is_long() else 60)  # draws nearly two hundred requests from large schemas each time
def test_any_sequence_of_operations_conforms_to_the_document(manager_url: str) -> None:
    """An operation conforms to the document whatever came before it, and the lifecycle reaches its end."""
    done = set[str]()

    @effort(examples=6)
    @given(plans(), st.randoms(use_true_random=True))
    def run_plan(plan: tuple[list[Case], list[Case]], random: Random) -> None:
        client = Client(manager_url, random)
        lifecycle, random_cases = plan
        try:
            for case in lifecycle:
                client.call(case, randomly=False)
            for case in random_cases:
                client.call(case, randomly=True)
        except Exception as error:
            error.add_note(f"after {', '.join(client.log)}")
            raise
        done.update(client.done)

    run_plan()
    assert done >= LINKED
