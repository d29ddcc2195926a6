"""docs/reference/state-machines.md: diagrams and tables of the three state machines."""

from collections.abc import Iterator
from typing import Any

from reference_manager.domain.state_machine import Driver, Machine
from reference_manager.domain.transitions import MACHINES, RESERVED

from tools.docs.markdown import document, table

_INTRODUCTION = """\
The statuses of a job, a stage and a task, and the transitions between them. This page is generated from
`reference_manager.domain.transitions`, which the manager itself uses. Tests compare the types of the database, the SQL
and the API with the same tables.

In the diagrams, clients request the transitions marked "client"; the manager makes all others. The consequences of a
transition happen in the same transaction, in the order given. Transitions that the protocol permits but that this
manager never makes are only in the tables."""


def page() -> str:
    """Return the text of the page."""
    return document("State machines", _INTRODUCTION, *(_section(machine) for machine in MACHINES))


def _section(machine: Machine[Any]) -> str:
    diagram = "\n".join(("```mermaid", "stateDiagram-v2", *_arrows(machine), "```"))
    edges = table(("from", "to", "requested by", "cause", "consequences"), _rows(machine))
    return f"## {machine.name.capitalize()}\n\n{diagram}\n\n{edges}"


def _rows(machine: Machine[Any]) -> Iterator[tuple[str, ...]]:
    """Yield one row for all edges that differ only in their source."""
    sources: dict[tuple[str, ...], list[str]] = {}
    for edge in machine.edges:
        driver = "client" if edge.driver is Driver.CLIENT else "manager"
        follows = "; ".join(consequence.value for consequence in edge.follows)
        sources.setdefault((str(edge.target), driver, edge.cause, follows), []).append(str(edge.source))
    for (target, driver, cause, follows), origins in sources.items():
        yield ", ".join(origins), target, driver, cause, follows


def _arrows(machine: Machine[Any]) -> Iterator[str]:
    yield f"    [*] --> {machine.statuses[0]}"
    for edge in machine.edges:
        if edge.cause != RESERVED:
            yield f"    {edge.source} --> {edge.target}" + (" : client" if edge.driver is Driver.CLIENT else "")
    for status in machine.statuses:
        if status in machine.final:
            yield f"    {status} --> [*]"
