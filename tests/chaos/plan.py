"""What a worker does with a task: decided by the task's data and the lease, so that everybody can say it afterwards."""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple


class Kind(StrEnum):
    """What sort of task it is."""

    STEADY = "steady"
    """Completes sooner or later."""
    DOOMED = "doomed"
    """Fails for good as soon as it is tried."""
    STUBBORN = "stubborn"
    """Fails until no attempt is left."""


class Step(NamedTuple):
    """One attempt."""

    outcome: str
    retryable: bool = True
    delay: float = 0.0
    """Seconds before a task that goes back may be claimed again."""


# Of 16 attempts at a steady task.
_STEADY = (
    [Step("COMPLETED")] * 9
    + [Step("FAILED")] * 2
    + [Step("FAILED", delay=0.2)]
    + [Step("RELEASED")] * 2
    + [Step("SNOOZED", delay=0.1), Step("SNOOZED", delay=0.5)]
)
_ENDS = {Kind.DOOMED: Step("FAILED", retryable=False), Kind.STUBBORN: Step("FAILED")}

# Seconds, of 16 attempts: most are short, the longest ones need their lease renewed.
_SECONDS = [0.02] * 4 + [0.05] * 4 + [0.1] * 4 + [0.3] * 2 + [0.6, 1.5]


def step(data: Mapping[str, Any], lease: int) -> Step:
    """How an attempt at a task with this data ends."""
    kind = Kind(data["kind"])
    return _STEADY[_dice(data, lease)[0] % len(_STEADY)] if kind is Kind.STEADY else _ENDS[kind]


def seconds(data: Mapping[str, Any], lease: int) -> float:
    """How long the attempt takes."""
    return _SECONDS[_dice(data, lease)[1] % len(_SECONDS)]


def is_said_twice(lease: int) -> bool:
    """Whether the worker reports the attempt twice."""
    return lease % 8 == 0


def result(lease: int) -> Mapping[str, Any]:
    """What a completed attempt gives."""
    return {"lease": lease}


def error(lease: int) -> Mapping[str, Any]:
    """Why a failed attempt failed."""
    return {"type": "Planned", "message": f"lease {lease}", "stack": ""}


def _dice(data: Mapping[str, Any], lease: int) -> bytes:
    return sha256(f"{data['dice']} {lease}".encode()).digest()
