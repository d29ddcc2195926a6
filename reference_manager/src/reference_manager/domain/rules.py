"""Decisions that need more than one entity's status, as pure functions."""

from collections.abc import Sequence

from reference_manager.domain.state_machine import Driver
from reference_manager.domain.states import StageStatus
from reference_manager.domain.transitions import STAGE


class PreviousStageNotCompletedError(Exception):
    """A stage is asked to start before its turn."""

    def __init__(self) -> None:
        super().__init__("Previous stage is not COMPLETED")


def initial_stage_status(previous: StageStatus | None, *, start_as_waiting: bool) -> StageStatus:
    """The status that a new stage gets.

    Args:
        previous: The status of the stage before it; None if it is the first.
        start_as_waiting: Whether its creator wants to release it by hand.
    """
    if start_as_waiting:
        target = StageStatus.WAITING
    elif previous in (None, StageStatus.COMPLETED):
        target = StageStatus.PENDING
    else:
        return StageStatus.CREATED
    return STAGE.move(StageStatus.CREATED, target, Driver.MANAGER).target


def initial_stage_statuses(start_as_waiting: Sequence[bool]) -> Sequence[StageStatus]:
    """The statuses of the stages that a new job comes with, in their order; of each, whether it starts as waiting."""
    statuses: list[StageStatus] = []
    for waiting in start_as_waiting:
        previous = statuses[-1] if statuses else None
        statuses.append(initial_stage_status(previous, start_as_waiting=waiting))
    return statuses


def release_stage(source: StageStatus, previous: StageStatus | None) -> StageStatus:
    """The status after a client asked for PENDING; the same as before where nothing is to be done.

    Raises:
        PreviousStageNotCompletedError: It is not this stage's turn.
        IllegalTransitionError: It is past the point of being released, or not the client's to release.
    """
    if source is StageStatus.PENDING:
        return source
    its_turn = previous in (None, StageStatus.COMPLETED)
    if source in (StageStatus.CREATED, StageStatus.WAITING) and not its_turn:
        raise PreviousStageNotCompletedError
    return STAGE.move(source, StageStatus.PENDING, Driver.CLIENT).target
