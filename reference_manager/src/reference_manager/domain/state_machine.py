"""A state machine as data: its edges, the driver of each edge, and its consequences."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Generic, TypeVar

Status = TypeVar("Status", bound=StrEnum)


class Driver(Enum):
    """The party that may take an edge."""

    CLIENT = "a client, through the API"
    MANAGER = "the manager"


class Consequence(Enum):
    """A change that the manager makes in the same transaction as the edge."""

    START_STAGE = "its stage becomes IN_PROGRESS"
    START_JOB = "its job becomes IN_PROGRESS"
    COMPLETE_STAGE = "its stage becomes COMPLETED if this was its last task"
    FAIL_STAGE = "its stage becomes FAILED"
    OPEN_NEXT_STAGE = "the next stage, if CREATED, becomes PENDING"
    COMPLETE_JOB = "its job becomes COMPLETED if this was its last stage"
    FAIL_JOB = "its job becomes FAILED"
    ABORT_STAGES = "its unfinished stages become ABORTED"
    ABORT_TASKS = "its unfinished tasks become ABORTED"
    CLOSE_QUEUES = "its tasks are no longer handed out"
    OPEN_QUEUES = "its tasks are handed out again"


@dataclass(frozen=True, slots=True)
class Edge(Generic[Status]):
    """A permitted transition, with its cause and its consequences."""

    source: Status
    target: Status
    driver: Driver
    cause: str
    follows: tuple[Consequence, ...] = ()
    """The consequences, in the order in which the manager applies them."""


class IllegalTransitionError(Exception):
    """A transition that the machine has no edge for."""

    def __init__(self, machine: str, source: StrEnum, target: StrEnum) -> None:
        self.machine = machine
        self.source = source
        self.target = target
        super().__init__(f"Illegal status transition from {source} to {target}")


class Machine(Generic[Status]):
    """The state machine of one entity.

    Args:
        name: The entity, in lower case: ``job``, ``stage`` or ``task``.
        edges: Every permitted transition.

    Raises:
        ValueError: Two edges have the same source and target.
    """

    def __init__(self, name: str, edges: Iterable[Edge[Status]]) -> None:
        self.name = name
        self.edges = tuple(edges)
        self._edges_by_statuses = {(edge.source, edge.target): edge for edge in self.edges}
        if len(self._edges_by_statuses) != len(self.edges):
            raise ValueError(f"The {name} machine has the same edge twice")

    @property
    def statuses(self) -> tuple[Status, ...]:
        """All statuses of the entity, in the order of their declaration."""
        return tuple(type(self.edges[0].source))

    @property
    def final(self) -> frozenset[Status]:
        """The statuses without outgoing edges."""
        return frozenset(self.statuses) - {edge.source for edge in self.edges}

    def requests(self) -> frozenset[Status]:
        """Return the statuses that a client may request."""
        return frozenset(edge.target for edge in self.edges if edge.driver is Driver.CLIENT)

    def edge(self, source: Status, target: Status) -> Edge[Status]:
        """Return the edge between two statuses; KeyError if there is none."""
        return self._edges_by_statuses[source, target]

    def move(self, source: Status, target: Status, driver: Driver) -> Edge[Status]:
        """Return the edge from source to target.

        Raises:
            IllegalTransitionError: There is no such edge, or this driver may not take it.
        """
        edge = self._edges_by_statuses.get((source, target))
        if edge is None or edge.driver is not driver:
            raise IllegalTransitionError(self.name, source, target)
        return edge
