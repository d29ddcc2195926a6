"""The state machines as data, and everything that must agree with them."""

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
MIGRATION = (STORE / "migrations/versions/0001_create_jobs_stages_tasks.sql").read_text()
ANY_MACHINE = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


@ANY_MACHINE
def test_final_statuses_are_those_of_the_protocol(machine: Machine[Any]) -> None:
    """Nothing leaves COMPLETED, FAILED and ABORTED, and everything else can end."""
    assert machine.final == {"COMPLETED", "FAILED", "ABORTED"}


@ANY_MACHINE
def test_every_status_is_reached_and_every_path_ends(machine: Machine[Any]) -> None:
    """From CREATED every status can be reached, and from every status the end."""

    def reachable(start: StrEnum) -> set[StrEnum]:
        seen, ahead = {start}, [start]
        while ahead:
            source = ahead.pop()
            new = {edge.target for edge in machine.edges if edge.source is source} - seen
            seen |= new
            ahead += new
        return seen

    assert reachable(machine.statuses[0]) == set(machine.statuses)
    assert all(reachable(status) & machine.final for status in machine.statuses)


@ANY_MACHINE
@given(data=st.data())
def test_a_move_is_an_edge_or_refused(machine: Machine[Any], data: st.DataObject) -> None:
    """The machine permits exactly its edges, each to its driver alone."""
    status, driver = st.sampled_from(machine.statuses), st.sampled_from(Driver)
    source, target, who = data.draw(status), data.draw(status), data.draw(driver)
    edges = [edge for edge in machine.edges if (edge.source, edge.target, edge.driver) == (source, target, who)]
    if edges:
        assert machine.move(source, target, who) is edges[0]
    else:
        with pytest.raises(IllegalTransitionError, match=f"^Illegal status transition from {source} to {target}$"):
            machine.move(source, target, who)


@ANY_MACHINE
def test_nothing_returns_to_its_beginning_or_stays(machine: Machine[Any]) -> None:
    """No edge leads back to CREATED, nor from a status to itself."""
    assert all(edge.target is not machine.statuses[0] and edge.target is not edge.source for edge in machine.edges)


@ANY_MACHINE
def test_what_follows_from_an_end_is_the_same_from_everywhere(machine: Machine[Any]) -> None:
    """All edges to a final status have the same consequences, so that none is lost on a rare way to it."""
    for status in machine.final:
        assert len({edge.follows for edge in machine.edges if edge.target is status}) == 1


def test_every_end_that_others_depend_on_has_its_consequences() -> None:
    """The end of a task bears on its stage, that of a stage on its job and tasks, and an abort on everything."""
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


AT_WORK = (JobStatus.PENDING, JobStatus.IN_PROGRESS, JobStatus.PAUSED)
"""Where a job may stand while one of its tasks is in progress."""
MOVES: dict[Consequence, tuple[Machine[Any], tuple[StrEnum, ...], StrEnum]] = {
    Consequence.START_STAGE: (STAGE, (StageStatus.PENDING,), StageStatus.IN_PROGRESS),
    Consequence.START_JOB: (JOB, (JobStatus.PENDING,), JobStatus.IN_PROGRESS),
    Consequence.COMPLETE_STAGE: (STAGE, (StageStatus.IN_PROGRESS,), StageStatus.COMPLETED),
    Consequence.FAIL_STAGE: (STAGE, (StageStatus.IN_PROGRESS,), StageStatus.FAILED),
    Consequence.OPEN_NEXT_STAGE: (STAGE, (StageStatus.CREATED,), StageStatus.PENDING),
    Consequence.COMPLETE_JOB: (JOB, AT_WORK, JobStatus.COMPLETED),
    Consequence.FAIL_JOB: (JOB, AT_WORK, JobStatus.FAILED),
    Consequence.ABORT_STAGES: (STAGE, tuple(set(StageStatus) - STAGE.final), StageStatus.ABORTED),
    Consequence.ABORT_TASKS: (TASK, tuple(set(TaskStatus) - TASK.final), TaskStatus.ABORTED),
}
"""Consequences that are moves themselves: whose, from where, to where."""


@pytest.mark.parametrize("consequence", MOVES, ids=lambda consequence: consequence.name)
def test_a_consequence_can_always_be_carried_out(consequence: Consequence) -> None:
    """Wherever it may find the entity that it moves, there is an edge for the manager to take."""
    machine, sources, target = MOVES[consequence]
    assert all(machine.move(source, target, Driver.MANAGER) for source in sources)


def test_every_consequence_follows_from_something() -> None:
    """None is listed that no edge has."""
    assert {consequence for machine in MACHINES for edge in machine.edges for consequence in edge.follows} == set(
        Consequence
    )


def test_a_machine_joins_two_statuses_once() -> None:
    """Two edges between the same statuses would leave open what follows."""
    edge = Edge(TaskStatus.CREATED, TaskStatus.PENDING, Driver.MANAGER, "twice")
    with pytest.raises(ValueError, match="twice"):
        Machine("task", (edge, edge))


@ANY_MACHINE
def test_the_database_knows_the_same_statuses(machine: Machine[Any]) -> None:
    """The enums of the schema list the statuses of the machine in their order."""
    listed = re.search(rf"CREATE TYPE {machine.name}_status AS ENUM \((.*?)\);", MIGRATION)
    assert listed
    assert re.findall(r"'(\w+)'", listed[1]) == list(machine.statuses)


@pytest.mark.parametrize(("machine", "body"), [(JOB, JobStatusBody), (STAGE, StageStatusBody), (TASK, TaskStatusBody)])
def test_the_api_takes_what_a_client_may_ask_for(machine: Machine[Any], body: type[Any]) -> None:
    """The statuses of a request are the targets of the client's edges."""
    assert set(get_args(body.model_fields["status"].annotation)) == machine.requests()


STATUS = r"[A-Z_]{4,}"
MOVE = rf"(?:{STATUS}, )*{STATUS} → {STATUS}(?:, {STATUS})*"


def _announcements() -> Iterator[tuple[str, str]]:
    """Entity and move, as the comments of the SQL files have them."""
    for file in STORE.glob("queries/*.sql"):
        for name, text in re.findall(r"-- name: ([a-z]+)(.*?)(?=-- name:|\Z)", file.read_text(), re.DOTALL):
            for move in re.findall(MOVE, text.replace("\n-- ", " ")):
                yield name.removesuffix("s"), move
    for file in STORE.glob("routines/*.sql"):
        yield from re.findall(rf"(job|stage|task) ({MOVE})", file.read_text().replace("\n-- ", " "))


def test_sql_announces_every_edge_and_no_other() -> None:
    """The moves that SQL comments announce are the edges of the machines, apart from those that no rule takes."""
    announced = {
        (entity, source, target)
        for entity, move in _announcements()
        for sources, targets in [move.split(" → ")]
        for source in sources.split(", ")
        for target in targets.split(", ")
    }
    assert announced == {
        (machine.name, edge.source, edge.target)
        for machine in MACHINES
        for edge in machine.edges
        if edge.cause != RESERVED
    }


@pytest.mark.parametrize("previous", [None, *StageStatus])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_new_stage_is_open_waiting_or_created(previous: StageStatus | None, *, waiting: bool) -> None:
    """It opens when it is its turn, unless its creator wants to release it by hand."""
    status = initial_stage_status(previous, start_as_waiting=waiting)
    if waiting:
        assert status is StageStatus.WAITING
    elif previous in (None, StageStatus.COMPLETED):
        assert status is StageStatus.PENDING
    else:
        assert status is StageStatus.CREATED


@pytest.mark.parametrize("source", StageStatus)
def test_a_stage_is_released_in_its_turn(source: StageStatus) -> None:
    """Only a WAITING stage whose turn it is moves; a PENDING one stays; everything else is refused."""
    if source in (StageStatus.WAITING, StageStatus.PENDING):
        assert release_stage(source, None) is StageStatus.PENDING
    else:
        with pytest.raises(IllegalTransitionError):
            release_stage(source, None)
    if source in (StageStatus.WAITING, StageStatus.CREATED):
        with pytest.raises(PreviousStageNotCompletedError):
            release_stage(source, StageStatus.IN_PROGRESS)


def test_a_job_begins_as_pending() -> None:
    """CREATED is left in the statement that creates the job."""
    assert JOB.move(JobStatus.CREATED, JobStatus.PENDING, Driver.MANAGER).follows == ()
