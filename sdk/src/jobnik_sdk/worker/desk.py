"""Where a worker fetches tasks and brings back how they ended: one Protocol, with leases and without."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from jobnik_sdk.definitions import StageType
from jobnik_sdk.entities import ClaimedTask
from jobnik_sdk.errors import UnreadableTaskError
from jobnik_sdk.handlers.endings import Ending
from jobnik_sdk.progress import Checkpoint

AnyStageType: TypeAlias = StageType[Any, Any, Any, Any, Any]
Claimed: TypeAlias = ClaimedTask[Any, Any] | UnreadableTaskError
"""A task in hand, or one that does not fit its models, which is in hand as well."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt at a task ended."""

    task: ClaimedTask[Any, Any]
    ending: Ending
    checkpoint: Checkpoint | None = None
    """What it leaves for the next one, None: nothing new."""


class Verdict(NamedTuple):
    """What the manager says of a settlement."""

    accepted: bool
    """Whether it counts; it does too where it was said before."""
    code: str = ""
    """Why not, in the protocol's word."""
    message: str = ""


class Desk(Protocol):
    """A manager, as far as a worker needs it."""

    @property
    def waits(self) -> bool:
        """Whether a claim waits at the manager while there are no tasks, so that the next may follow at once."""
        ...

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Claimed]:
        """Claim up to `limit` tasks; none where there are none.

        Raises:
            JobnikError: the manager is in trouble, or cannot be reached.
        """
        ...

    async def settle(self, settlement: Settlement) -> Verdict:
        """Say how an attempt ended, until the manager has decided: trouble on the way is waited out."""
        ...

    async def leave(self) -> None:
        """Give back what was claimed for this worker and never reached it."""
        ...
