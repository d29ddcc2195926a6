"""What a worker and a handler's process tell each other, and how it goes over a stream: its length, then a pickle."""

import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from jobnik_sdk.execution.outcomes import Failed, Outcome
from jobnik_sdk.execution.progress import Checkpoint, Progress

LENGTH: Final = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Ready:
    """The handler is loaded; tasks may come."""


@dataclass(frozen=True, slots=True)
class Unloadable:
    """The handler cannot be loaded, so the process ends."""

    failure: Failed


@dataclass(frozen=True, slots=True)
class Noted:
    """What the handler has to say in the middle of the process's `number`th task."""

    number: int
    note: Progress | Checkpoint


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The handler was asked to end the process's `number`th task when it was here."""

    number: int
    stack: str


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt is over; `leaving` says why the process ends as well, None: it takes the next task."""

    outcome: Outcome
    leaving: str | None


Message: TypeAlias = Ready | Unloadable | Noted | Interrupted | Ended


def framed(pickled: bytes) -> bytes:
    """Return a pickle as it goes over the stream."""
    return LENGTH.pack(len(pickled)) + pickled


class Inbox:
    """Makes messages of the pieces in which they arrive."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def take(self, piece: bytes) -> Iterator[Any]:
        """Yield each message that is whole now."""
        self._bytes += piece
        while len(self._bytes) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._bytes)[0]
            if len(self._bytes) < end:
                return
            pickled = bytes(self._bytes[LENGTH.size : end])
            del self._bytes[:end]
            yield pickle.loads(pickled)  # noqa: S301 our own process wrote it
