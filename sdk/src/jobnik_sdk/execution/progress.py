"""Progress and checkpoints of an attempt: recorded by the handler at any time, sent beside the heartbeat."""

import math
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, SupportsFloat, cast

from pydantic import JsonValue

from jobnik_sdk.errors import InvalidPayloadError
from jobnik_sdk.execution.additions import Additions
from jobnik_sdk.model.payloads import encode_json, fit_text

# The limits of the protocol.
_LONGEST_MESSAGE: Final = 500
_LONGEST_ETA: Final = timedelta(days=365)

MAX_CHECKPOINT_SIZE: Final = 500_000
"""In bytes of JSON: about half of the size that a manager usually accepts in a request."""


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """The progress of an attempt: `fraction` is 0 to 1, `eta` the estimated time until it is done (None: unknown)."""

    fraction: float
    message: str = ""
    eta: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state that an attempt saves for the next one, as JSON."""

    document: bytes

    @classmethod
    def of(cls, value: JsonValue) -> Self:
        """Return a checkpoint with this value.

        Raises:
            InvalidPayloadError: the value is not the same after a round trip through JSON, or is larger than
                `MAX_CHECKPOINT_SIZE`.
        """
        document = encode_json(value, "checkpoint")
        if len(document) > MAX_CHECKPOINT_SIZE:
            reason = f"has {len(document)} bytes, but the limit is {MAX_CHECKPOINT_SIZE}: save a reference instead."
            raise InvalidPayloadError("checkpoint", reason)
        return cls(document)


class AttemptState:
    """The latest progress and checkpoint of an attempt, and the tasks that it has added.

    Progress and checkpoint are sent if they are new objects since the last request. Recording replaces one attribute,
    so it never blocks, and is safe in any thread.
    """

    __slots__ = ("additions", "checkpoint", "progress", "root_phase")

    def __init__(self) -> None:
        self.progress: ProgressUpdate | None = None
        self.checkpoint: Checkpoint | None = None
        self.root_phase: Phase | None = None
        self.additions: Additions | None = None

    def record_progress(self, progress: ProgressUpdate) -> None:
        """Replace the progress."""
        self.progress = progress

    def record_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        self.checkpoint = checkpoint


class Phase:
    """A step of an attempt with its own progress; a `with` block starts and ends it.

    It may contain further phases. Each phase starts where the previous one ended.
    """

    __slots__ = ("_name", "_parent", "_share", "_start", "_state", "completed_share")

    def __init__(self, state: AttemptState, name: str = "", parent: "Phase | None" = None, share: float = 1.0) -> None:
        self._state = state
        self._name = name
        self._parent = parent
        self._share = share
        self._start = 0.0
        self.completed_share = 0.0  # the share of this phase that its own phases have completed

    def __enter__(self) -> Self:
        if self._parent is not None:
            self._start = self._parent.completed_share
        self.progress(0.0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.progress(1.0)
        if self._parent is not None:
            self._parent.completed_share = self._start + self._share

    def progress(self, fraction: SupportsFloat, message: str = "", eta: timedelta | None = None) -> None:
        """Report the share of this phase that is done, 0 to 1; `eta` is the time until the whole attempt is done.

        Raises:
            InvalidPayloadError: the fraction is not a number, the message is not text, or `eta` is not a timedelta.
        """
        fraction = min(max(0.0, _number(fraction, "progress.fraction")), 1.0)  # in this order, NaN becomes 0
        _check(message, str, "progress.message")
        if eta is not None:
            _check(eta, timedelta, "progress.eta")
        if self._parent is None:
            if eta is not None:
                eta = min(max(timedelta(), eta), _LONGEST_ETA)
            self._state.record_progress(ProgressUpdate(fraction, fit_text(message, _LONGEST_MESSAGE), eta))
        else:
            text = f"{self._name}: {message}" if message else self._name
            self._parent.progress(self._start + self._share * fraction, text, eta)

    def phase(self, name: str, weight: SupportsFloat = 1.0, *, of: SupportsFloat = 1.0) -> "Phase":
        """Return a phase of this phase; see `TaskContext.phase`."""
        _check(name, str, "phase.name")
        part, whole = _number(weight, "phase.weight"), _number(of, "phase.of")
        if not (0 <= part < math.inf and 0 < whole < math.inf):
            raise InvalidPayloadError("phase.weight", f"{part:g} of {whole:g} is not a share: both must be positive.")
        return Phase(self._state, name, self, part / whole)


def _check(value: object, kind: type, path: str) -> None:
    if not isinstance(value, kind):
        raise InvalidPayloadError(path, f"must be a {kind.__name__}, not a {type(value).__name__}.")


def _number(value: SupportsFloat, path: str) -> float:
    """Return any real number as a float; infinity if it is too large.

    Raises:
        InvalidPayloadError: the value is not a number.
    """
    if isinstance(value, str | bytes | bytearray):
        raise InvalidPayloadError(path, f"must be a number, not a {type(value).__name__}.")
    try:
        return float(value)
    except OverflowError:
        return math.inf if cast("Any", value) > 0 else -math.inf
    except Exception as error:  # noqa: BLE001 `__float__` may be the application's code
        raise InvalidPayloadError(path, f"must be a number, not a {type(value).__name__}: {error}.") from None
