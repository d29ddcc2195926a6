"""The plan of an attempt. It depends only on the task data and the lease, so workers and checks can both compute it."""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple


class Kind(StrEnum):
    """How a task behaves."""

    STEADY = "steady"
    """Completes eventually."""
    DOOMED = "doomed"
    """Fails finally at the first attempt."""
    STUBBORN = "stubborn"
    """Fails until its attempts are used up."""
    SURE = "sure"
    """Completes at the first attempt that ends."""


class Step(NamedTuple):
    """The planned end of an attempt."""

    outcome: str
    retryable: bool = True
    delay: float = 0.0
    """Seconds before the task may be claimed again."""


# The distribution of 16 attempts at a steady task.
_STEADY = (
    [Step("COMPLETED")] * 9
    + [Step("FAILED")] * 2
    + [Step("FAILED", delay=0.2)]
    + [Step("RELEASED")] * 2
    + [Step("SNOOZED", delay=0.1), Step("SNOOZED", delay=0.5)]
)
_ENDS = {
    Kind.DOOMED: Step("FAILED", retryable=False),
    Kind.STUBBORN: Step("FAILED"),
    Kind.SURE: Step("COMPLETED"),
}

# Seconds, as a distribution of 16 attempts: most are short, the longest ones need a lease renewal.
_SECONDS = [0.02] * 4 + [0.05] * 4 + [0.1] * 4 + [0.3] * 2 + [0.6, 1.5]


def step(data: Mapping[str, Any], lease: int) -> Step:
    """Return how the attempt ends."""
    kind = Kind(data["kind"])
    return _STEADY[_digest(data, lease)[0] % len(_STEADY)] if kind is Kind.STEADY else _ENDS[kind]


def seconds(data: Mapping[str, Any], lease: int) -> float:
    """Return how long the handler runs, in seconds."""
    return _SECONDS[_digest(data, lease)[1] % len(_SECONDS)]


def is_reported_twice(lease: int) -> bool:
    """Return whether the worker reports the attempt twice."""
    return lease % 8 == 0


def result(lease: int) -> Mapping[str, Any]:
    """Return the result of a completed attempt."""
    return {"lease": lease}


def error(lease: int) -> Mapping[str, Any]:
    """Return the error of a failed attempt."""
    return {"type": "Planned", "message": f"lease {lease}", "stack": ""}


def _digest(data: Mapping[str, Any], lease: int) -> bytes:
    return sha256(f"{data['dice']} {lease}".encode()).digest()
