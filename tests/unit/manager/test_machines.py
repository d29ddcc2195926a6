"""The state machines, and the code and SQL that must agree with them."""

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest
import reference_manager.store
from hypothesis import given
from hypothesis import strategies as st
from reference_manager.api.jobs.requests import JobStatusBody
from reference_manager.api.stages.requests import StageStatusBody
from reference_manager.api.tasks.requests import TaskStatusBody
from reference_manager.domain.rules import PreviousStageNotCompletedError, initial_stage_status, release_stage
from reference_manager.domain.state_machine import Consequence, Driver, Edge, IllegalTransitionError, Machine
from reference_manager.domain.states import JobStatus, StageStatus, TaskStatus
from reference_manager.domain.transitions import JOB, MACHINES, RESERVED, STAGE, TASK

STORE = Path(reference_manager.store.__file__).parent
MIGRATION = (STORE / "migrations/0001_create_jobs_stages_tasks.sql").read_text()
ANY_MACHINE = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


@ANY_MACHINE
def test_final_statuses_are_those_of_the_protocol(machine: Machine[Any]) -> None:
    """COMPLETED, FAILED and ABORTED are the statuses that no edge leaves."""
    assert machine.final == {"COMPLETED", "FAILED", "ABORTED"}


@ANY_MACHINE
def test_every_status_is_reachable_and_can_end(machine: Machine[Any]) -> None:
    """Every status is reachable from CREATED, and from every status a final one is reachable."""

    def reachable(start: StrEnum) -> set[StrEnum]:
        seen, pending = {start}, [start]
        while pending:
            source = pending.pop()
            new = {edge.target for edge in machine.edges if edge.source is source} - seen
            seen |= new
            pending += new
        return seen

    assert reachable(machine.statuses[0]) == set(machine.statuses)
    assert all(reachable(status) & machine.final for status in machine.statuses)


@ANY_MACHINE
@given(data=st.data())
def test_only_edges_are_legal_moves(machine: Machine[Any], data: st.DataObject) -> None:
    """The machine permits exactly its edges, each only to its driver."""
    status, driver = st.sampled_from(machine.statuses), st.sampled_from(Driver)
    source, target, mover = data.draw(status), data.draw(status), data.draw(driver)
    edges = [edge for edge in machine.edges if (edge.source, edge.target, edge.driver) == (source, target, mover)]
    if edges:
        assert machine.move(source, target, mover) is edges[0]
    else:
        with pytest.raises(IllegalTransitionError, match=f"^Illegal status transition from {source} to {target}$"):
            machine.move(source, target, mover)


@ANY_MACHINE
def test_no_edge_returns_to_created_or_to_its_source(machine: Machine[Any]) -> None:
    """No edge leads back to CREATED or from a status to itself."""
    assert all(edge.target is not machine.statuses[0] and edge.target is not edge.source for edge in machine.edges)


@ANY_MACHINE
def test_all_edges_to_a_final_status_have_the_same_consequences(machine: Machine[Any]) -> None:
    """The consequences of an end do not depend on the status before it."""
    for status in machine.final:
        assert len({edge.follows for edge in machine.edges if edge.target is status}) == 1


def test_final_statuses_have_the_expected_consequences() -> None:
    """The end of a task affects its stage, the end of a stage its job and tasks, and an abort everything."""
    follows = {
        (machine.name, str(edge.target)): set(edge.follows)
        for machine in MACHINES
        for edge in machine.edges
        if edge.target in machine.final
    }
    assert follows == {
        ("task", "COMPLETED"): {Consequence.COMPLETE_STAGE},
        ("task", "FAILED"): {Consequence.FAIL_STAGE},
        ("task", "ABORTED"): set(),
        ("stage", "COMPLETED"): {Consequence.OPEN_NEXT_STAGE, Consequence.COMPLETE_JOB},
        ("stage", "FAILED"): {Consequence.FAIL_JOB},
        ("stage", "ABORTED"): {Consequence.ABORT_TASKS},
        ("job", "COMPLETED"): set(),
        ("job", "FAILED"): {Consequence.CLOSE_QUEUES},
        ("job", "ABORTED"): {Consequence.CLOSE_QUEUES, Consequence.ABORT_TASKS, Consequence.ABORT_STAGES},
    }


UNFINISHED = (JobStatus.PENDING, JobStatus.IN_PROGRESS, JobStatus.PAUSED)
"""The statuses that a job can have while one of its tasks is in progress."""
MOVES: dict[Consequence, tuple[Machine[Any], tuple[StrEnum, ...], StrEnum]] = {
    Consequence.START_STAGE: (STAGE, (StageStatus.PENDING,), StageStatus.IN_PROGRESS),
    Consequence.START_JOB: (JOB, (JobStatus.PENDING,), JobStatus.IN_PROGRESS),
    Consequence.COMPLETE_STAGE: (STAGE, (StageStatus.IN_PROGRESS,), StageStatus.COMPLETED),
    Consequence.FAIL_STAGE: (STAGE, (StageStatus.IN_PROGRESS,), StageStatus.FAILED),
    Consequence.OPEN_NEXT_STAGE: (STAGE, (StageStatus.CREATED,), StageStatus.PENDING),
    Consequence.COMPLETE_JOB: (JOB, UNFINISHED, JobStatus.COMPLETED),
    Consequence.FAIL_JOB: (JOB, UNFINISHED, JobStatus.FAILED),
    Consequence.ABORT_STAGES: (STAGE, tuple(set(StageStatus) - STAGE.final), StageStatus.ABORTED),
    Consequence.ABORT_TASKS: (TASK, tuple(set(TaskStatus) - TASK.final), TaskStatus.ABORTED),
}
"""Consequences that change a status: the machine, the possible sources and the target."""


@pytest.mark.parametrize("consequence", MOVES, ids=lambda consequence: consequence.name)
def test_the_manager_can_always_carry_out_a_consequence(consequence: Consequence) -> None:
    """For every status that the entity can have, there is an edge that the manager may take."""
    machine, sources, target = MOVES[consequence]
    assert all(machine.move(source, target, Driver.MANAGER) for source in sources)


def test_every_consequence_belongs_to_an_edge() -> None:
    """No consequence is defined that no edge has."""
    assert {consequence for machine in MACHINES for edge in machine.edges for consequence in edge.follows} == set(
        Consequence
    )


def test_two_edges_between_the_same_statuses_are_refused() -> None:
    """With two edges between the same statuses, the consequences would be ambiguous."""
    edge = Edge(TaskStatus.CREATED, TaskStatus.PENDING, Driver.MANAGER, "twice")
    with pytest.raises(ValueError, match="twice"):
        Machine("task", (edge, edge))


@ANY_MACHINE
def test_the_database_has_the_same_statuses(machine: Machine[Any]) -> None:
    """The enums of the schema list the statuses of the machine in the same order."""
    listed = re.search(rf"CREATE TYPE {machine.name}_status AS ENUM \((.*?)\);", MIGRATION)
    assert listed
    assert re.findall(r"'(\w+)'", listed[1]) == list(machine.statuses)


@pytest.mark.parametrize(("machine", "body"), [(JOB, JobStatusBody), (STAGE, StageStatusBody), (TASK, TaskStatusBody)])
def test_the_api_accepts_the_statuses_that_a_client_may_set(machine: Machine[Any], body: type[Any]) -> None:
    """The statuses that a request accepts are the targets of the client's edges."""
    assert set(get_args(body.model_fields["status"].annotation)) == machine.requests()


STATUS = r"[A-Z_]{4,}"
MOVE = rf"(?:{STATUS}, )*{STATUS} → {STATUS}(?:, {STATUS})*"


def _documented_moves() -> Iterator[tuple[str, str]]:
    """Yield the entity and the move of each comment in the SQL files."""
    for file in STORE.glob("queries/*.sql"):
        for name, text in re.findall(r"-- name: ([a-z]+)(.*?)(?=-- name:|\Z)", file.read_text(), re.DOTALL):
            for move in re.findall(MOVE, text.replace("\n-- ", " ")):
                yield name.removesuffix("s"), move
    for file in STORE.glob("routines/*.sql"):
        yield from re.findall(rf"(job|stage|task) ({MOVE})", file.read_text().replace("\n-- ", " "))


def test_the_sql_comments_document_every_edge() -> None:
    """The moves in the SQL comments are the edges of the machines, except for reserved edges."""
    documented = {
        (entity, source, target)
        for entity, move in _documented_moves()
        for sources, targets in [move.split(" → ")]
        for source in sources.split(", ")
        for target in targets.split(", ")
    }
    assert documented == {
        (machine.name, edge.source, edge.target)
        for machine in MACHINES
        for edge in machine.edges
        if edge.cause != RESERVED
    }


@pytest.mark.parametrize("previous", [None, *StageStatus])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_new_stage_is_pending_waiting_or_created(previous: StageStatus | None, *, waiting: bool) -> None:
    """A new stage is PENDING if it is its turn, and WAITING if its creator asked for that."""
    status = initial_stage_status(previous, start_as_waiting=waiting)
    if waiting:
        assert status is StageStatus.WAITING
    elif previous in (None, StageStatus.COMPLETED):
        assert status is StageStatus.PENDING
    else:
        assert status is StageStatus.CREATED


@pytest.mark.parametrize("source", StageStatus)
def test_a_stage_can_be_released_when_it_is_its_turn(source: StageStatus) -> None:
    """Only a WAITING stage whose turn it is becomes PENDING; a PENDING stage stays; any other release is refused."""
    if source in (StageStatus.WAITING, StageStatus.PENDING):
        assert release_stage(source, None) is StageStatus.PENDING
    else:
        with pytest.raises(IllegalTransitionError):
            release_stage(source, None)
    if source in (StageStatus.WAITING, StageStatus.CREATED):
        with pytest.raises(PreviousStageNotCompletedError):
            release_stage(source, StageStatus.IN_PROGRESS)


def test_a_new_job_becomes_pending() -> None:
    """A job leaves CREATED without consequences, in the statement that creates it."""
    assert JOB.move(JobStatus.CREATED, JobStatus.PENDING, Driver.MANAGER).follows == ()
