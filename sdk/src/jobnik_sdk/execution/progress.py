"""How far an attempt has come: noted by the handler whenever it likes, taken along by the next heartbeat."""

import json
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from pydantic import JsonValue

from jobnik_sdk.errors import InvalidPayloadError
from jobnik_sdk.model.payloads import fit_text

# As long as the protocol allows.
_LONGEST_MESSAGE: Final = 500
_LONGEST_ETA: Final = timedelta(days=365)

MAX_CHECKPOINT_SIZE: Final = 500_000
"""Bytes of its JSON: half of what a manager usually takes in a request."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt has come: `fraction` is 0 to 1, `eta` how long it will still take (None: unknown)."""

    fraction: float
    message: str = ""
    eta: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the next attempt is to find, should this one fail: a JSON document."""

    document: bytes

    @classmethod
    def of(cls, value: JsonValue) -> Self:
        """Return the checkpoint with this value.

        Raises:
            InvalidPayloadError: the value cannot be said in JSON, or is too large.
        """
        try:
            document = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidPayloadError("checkpoint", str(error)) from None
        if len(document) > MAX_CHECKPOINT_SIZE:
            reason = f"it has {len(document)} bytes, and {MAX_CHECKPOINT_SIZE} at most: keep a reference to the thing."
            raise InvalidPayloadError("checkpoint", reason)
        return cls(document)


class AttemptState:
    """The newest that a handler has noted: each heartbeat takes along what is another object than the last time.

    Noting replaces one attribute, so it never waits, and may be done in any thread.
    """

    __slots__ = ("checkpoint", "progress", "whole")

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.checkpoint: Checkpoint | None = None
        self.whole: Phase | None = None

    def record_progress(self, progress: Progress) -> None:
        """Keep what is newest."""
        self.progress = progress

    def record_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep what is newest."""
        self.checkpoint = checkpoint


class Phase:
    """A part of an attempt with a progress of its own; `with` begins and ends it.

    It may have phases itself. They follow each other: each begins where the one before it ended.
    """

    __slots__ = ("_name", "_notes", "_outer", "_share", "_start", "reached")

    def __init__(self, notes: AttemptState, name: str = "", outer: "Phase | None" = None, share: float = 1.0) -> None:
        self._notes = notes
        self._name = name
        self._outer = outer
        self._share = share
        self._start = 0.0
        self.reached = 0.0  # how much of this phase its own phases have done

    def __enter__(self) -> Self:
        if self._outer is not None:
            self._start = self._outer.reached
        self.progress(0.0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.progress(1.0)
        if self._outer is not None:
            self._outer.reached = self._start + self._share

    def progress(self, fraction: float, message: str = "", eta: timedelta | None = None) -> None:
        """Note how much of this phase is done, 0 to 1; `eta` is how long the whole attempt will still take."""
        fraction = min(max(0.0, fraction), 1.0)  # in this order not a number becomes 0
        if self._outer is None:
            if eta is not None:
                eta = min(max(timedelta(), eta), _LONGEST_ETA)
            self._notes.record_progress(Progress(fraction, fit_text(message, _LONGEST_MESSAGE), eta))
        else:
            said = f"{self._name}: {message}" if message else self._name
            self._outer.progress(self._start + self._share * fraction, said, eta)

    def phase(self, name: str, weight: float = 1.0, *, of: float = 1.0) -> "Phase":
        """Return a phase that makes up `weight` of this one, where all weights together are `of`."""
        return Phase(self._notes, name, self, weight / of)
