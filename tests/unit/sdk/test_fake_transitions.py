"""The state machines of the fake manager are those of the reference manager: every status, edge, cause and effect."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias, get_args

import pytest
from jobnik_sdk import JobStatus, Priority, StageStatus, TaskStatus
from jobnik_sdk.testing.fake import bodies, transitions
from jobnik_sdk.testing.fake.transitions import CLIENT, MANAGER, Edge
from reference_manager.domain import states
from reference_manager.domain.state_machine import Consequence, Driver, Machine
from reference_manager.domain.transitions import JOB, RESERVED, STAGE, TASK

Edges: TypeAlias = Mapping[Any, Edge]
"""By pairs of statuses."""

PAIRS: list[tuple[Edges, Machine[Any], type[StrEnum], frozenset[StrEnum]]] = [
    (transitions.JOB, JOB, JobStatus, transitions.JOB_FINAL),
    (transitions.STAGE, STAGE, StageStatus, transitions.STAGE_FINAL),
    (transitions.TASK, TASK, TaskStatus, transitions.TASK_FINAL),
]
NAMES = ["job", "stage", "task"]
DRIVERS = {Driver.CLIENT: CLIENT, Driver.MANAGER: MANAGER}

Row: TypeAlias = tuple[str, str, str, str, tuple[str, ...]]


def _rows(edges: Edges) -> set[Row]:
    return {
        (str(source), str(target), edge.by, edge.reason, tuple(effect.name for effect in edge.effects))
        for (source, target), edge in edges.items()
    }


def _reference_rows(machine: Machine[Any]) -> set[Row]:
    # The fake implements version 1 of the protocol, and no rule of version 1 takes a reserved edge.
    return {
        (
            str(edge.source),
            str(edge.target),
            DRIVERS[edge.driver],
            edge.cause,
            tuple(effect.name for effect in edge.follows),
        )
        for edge in machine.edges
        if edge.cause != RESERVED
    }


@pytest.mark.parametrize(("edges", "machine"), [pair[:2] for pair in PAIRS], ids=NAMES)
def test_edges_are_equal(edges: Edges, machine: Machine[Any]) -> None:
    """Both have the same edges, with the same driver, cause and effects in the same order."""
    fake, reference = _rows(edges), _reference_rows(machine)
    assert fake - reference == set(), "only the fake has these"
    assert reference - fake == set(), "only the reference manager has these"


@pytest.mark.parametrize(("statuses", "final", "machine"), [(*p[2:], p[1]) for p in PAIRS], ids=NAMES)
def test_statuses_are_equal(statuses: type[StrEnum], final: frozenset[StrEnum], machine: Machine[Any]) -> None:
    """Both have the same statuses, and the same of them are final."""
    assert set(statuses) == set(machine.statuses)
    assert final == machine.final


def test_effects_are_equal() -> None:
    """Both know the same effects."""
    assert {effect.name for effect in transitions.Effect} == {effect.name for effect in Consequence}


@pytest.mark.parametrize(
    ("body", "machine"),
    [(bodies.JobStatusBody, JOB), (bodies.StageStatusBody, STAGE), (bodies.TaskStatusBody, TASK)],
    ids=NAMES,
)
def test_clients_may_set_the_same_statuses(body: type[bodies.Body], machine: Machine[Any]) -> None:
    """The fake accepts exactly the statuses that an edge lets a client ask for."""
    assert set(get_args(body.model_fields["status"].annotation)) == machine.requests()


def test_tasks_can_be_claimed_in_the_same_statuses() -> None:
    """A queue is open in the statuses that no edge enters with CLOSE_QUEUES, and that are not final."""
    closed = {edge.target for edge in JOB.edges if Consequence.CLOSE_QUEUES in edge.follows} | JOB.final
    assert set(JobStatus) - closed - {JobStatus.CREATED} == transitions.JOB_OPEN
    assert set(StageStatus) - STAGE.final - {StageStatus.CREATED, StageStatus.WAITING} == transitions.STAGE_OPEN


def test_outcomes_and_priorities_are_equal() -> None:
    """Both have the same outcomes, and the same priorities in the same order."""
    assert set(transitions.ENDS) == set(states.Outcome)
    assert set(get_args(bodies.ReportBody.model_fields["outcome"].annotation)) == transitions.REPORTED
    assert set(states.Outcome) - transitions.REPORTED == {states.Outcome.EXPIRED, states.Outcome.TIMED_OUT}
    assert list(Priority) == list(states.Priority)
