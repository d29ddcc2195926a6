"""Messages between a worker and the processes of its handlers. In a stream, each is a length followed by a pickle."""

import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from jobnik_sdk.execution.outcomes import Failed, Outcome
from jobnik_sdk.execution.progress import Checkpoint, ProgressUpdate

LENGTH: Final = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Ready:
    """The handler is imported, its lifespan is open, and the process accepts tasks."""

    pid: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The handler cannot be imported, or its lifespan cannot be opened, so the process ends."""

    failure: Failed


@dataclass(frozen=True, slots=True)
class StateUpdate:
    """The handler recorded progress or a checkpoint; `task_number` counts the tasks of the process from 1."""

    task_number: int
    update: ProgressUpdate | Checkpoint


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The handler was interrupted; `stack` is its stack at that moment."""

    task_number: int
    stack: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """A formatted log line. The worker writes it, so that lines of several processes are never mixed."""

    text: str


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """The attempt has ended. `exit_reason` is the reason why the process ends too; None: it accepts the next task."""

    outcome: Outcome
    exit_reason: str | None


Message: TypeAlias = Ready | StartFailed | StateUpdate | Interrupted | LogLine | AttemptEnded


def frame(pickled: bytes) -> bytes:
    """Return a pickle with its length in front, as it is sent over a stream."""
    return LENGTH.pack(len(pickled)) + pickled


class MessageDecoder:
    """Decodes messages from the chunks in which they arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """Add a chunk, and yield each message that is now complete."""
        self._buffer += chunk
        while len(self._buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            pickled = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            yield pickle.loads(pickled)  # noqa: S301 written by our own process
