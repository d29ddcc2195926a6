"""Operations one after the other: what one answers, the next ones ask for."""

from copy import deepcopy
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.contract.client import LINKS, Client
from tests.contract.document import DOCUMENT, SCHEMA, Case, Operation, effort, operation_id

STEPS = 15
OPERATIONS: list[Operation] = [result.ok() for result in SCHEMA.get_all_operations()]
LINKED = {source for source, _ in LINKS} | {link["operationId"] for links in LINKS.values() for link in links}
WAY = [one for one in OPERATIONS if operation_id(one) in LINKED]
"""The operations that lead on to others and those that they lead to, in their order: the way of a job to its end."""


def _cases(operation: Operation, mode: GenerationMode) -> st.SearchStrategy[Case]:
    return operation.as_strategy(generation_mode=mode)


RIGHT = {operation_id(one): _cases(one, GenerationMode.POSITIVE) for one in OPERATIONS}
WRONG = [_cases(one, GenerationMode.NEGATIVE) for one in OPERATIONS if one.path_parameters or one.body or one.query]


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[Case], list[Case]]:
    """What a client will do: go the way once, as the document's examples show it, then anything, some of it wrong.

    All is drawn before the first request, so that nothing that is drawn depends on what the manager answers.
    """
    way = [draw(RIGHT[operation_id(one)]) for one in WAY]
    for case in way:
        case.body = _example(case.operation.definition.raw.get("requestBody"), case.body)
    return way, [draw(draw(st.sampled_from([*RIGHT.values()] * 3 + WRONG))) for _ in range(STEPS)]


def _example(body: dict[str, Any] | None, otherwise: object) -> object:
    """The document's example of a request body; an example of an item is one of a list as well."""
    schema: dict[str, Any] = body["content"]["application/json"]["schema"] if body else {}
    for one in (schema, schema.get("items", {})):
        resolved = DOCUMENT["components"]["schemas"].get(one.get("$ref", "").rpartition("/")[2], {})
        if examples := deepcopy(resolved.get("examples")):
            return examples[0] if one is schema else examples
    return otherwise


@pytest.mark.timeout(60)  # draws nearly two hundred requests from large schemas
def test_a_client_may_do_anything_at_any_time(manager_url: str) -> None:
    """Whatever came before, an operation is answered as the document says; and the way to the end can be gone."""
    done = set[str]()

    @effort(examples=6)
    @given(plans(), st.randoms(use_true_random=True))
    def walk(plan: tuple[list[Case], list[Case]], random: Random) -> None:
        client = Client(manager_url, random)
        way, wandering = plan
        try:
            for case in way:
                client.call(case, straying=False)
            for case in wandering:
                client.call(case, straying=True)
        except Exception as error:
            error.add_note(f"after {', '.join(client.log)}")
            raise
        done.update(client.done)

    walk()
    assert done >= LINKED
