"""Decisions that need more than one entity's status, as pure functions."""

from collections.abc import Sequence

from reference_manager.domain.state_machine import Driver
from reference_manager.domain.states import StageStatus
from reference_manager.domain.transitions import STAGE


class PreviousStageNotCompletedError(Exception):
    """A client tries to release a stage before the previous stage is COMPLETED."""

    def __init__(self) -> None:
        super().__init__("Previous stage is not COMPLETED")


def initial_stage_status(previous: StageStatus | None, *, start_as_waiting: bool) -> StageStatus:
    """Return the status of a new stage.

    Args:
        previous: The status of the previous stage; None for the first stage.
        start_as_waiting: Whether the stage waits until a client releases it.
    """
    if start_as_waiting:
        target = StageStatus.WAITING
    elif previous in (None, StageStatus.COMPLETED):
        target = StageStatus.PENDING
    else:
        return StageStatus.CREATED
    return STAGE.move(StageStatus.CREATED, target, Driver.MANAGER).target


def initial_stage_statuses(start_as_waiting: Sequence[bool]) -> Sequence[StageStatus]:
    """Return the statuses of the stages of a new job.

    Args:
        start_as_waiting: For each stage, in order, whether it waits until a client releases it.
    """
    statuses: list[StageStatus] = []
    for waiting in start_as_waiting:
        previous = statuses[-1] if statuses else None
        statuses.append(initial_stage_status(previous, start_as_waiting=waiting))
    return statuses


def release_stage(source: StageStatus, previous: StageStatus | None) -> StageStatus:
    """Return the status of a stage after a client releases it. A stage that is already PENDING stays unchanged.

    Args:
        source: The current status of the stage.
        previous: The status of the previous stage; None for the first stage.

    Raises:
        PreviousStageNotCompletedError: The previous stage is not COMPLETED.
        IllegalTransitionError: The stage is neither WAITING nor PENDING.
    """
    if source is StageStatus.PENDING:
        return source
    previous_completed = previous in (None, StageStatus.COMPLETED)
    if source in (StageStatus.CREATED, StageStatus.WAITING) and not previous_completed:
        raise PreviousStageNotCompletedError
    return STAGE.move(source, StageStatus.PENDING, Driver.CLIENT).target
