"""Writes log lines so that nothing waits for a full disk or for a pipe that nobody reads.

A line is written at once if the system can do that without waiting, as Linux can for pipes. Then it is there even if
C code holds Python's lock afterwards, or the process dies. Otherwise, a separate thread writes it.
"""

import os
import select
import threading
from contextlib import suppress
from functools import cache
from queue import SimpleQueue
from typing import Final, TextIO

MAX_WAITING_BYTES: Final = 8 * 1024 * 1024
"""How much text may wait for the output. Further lines are lost."""
FLUSH_SECONDS: Final = 2.0
"""How long the end of a program waits for its last lines."""
_NOWAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)


class LogWriter:
    """Writes lines to the file descriptor of a stream, and drops those that it does not accept.

    Args:
        stream: An output with a file descriptor. Text that the program has printed to it is written first.

    Raises:
        OSError, ValueError: the stream has no file descriptor.
    """

    def __init__(self, stream: TextIO) -> None:
        # A copy, because the number may belong to another file after the program has closed the stream. Lines bypass
        # the stream, which would keep those that cannot be written, and fail again at the end of the program.
        self._file = os.dup(stream.fileno())
        self._stream = stream
        self._entries: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._added = 0
        self._taken = 0
        self._rest: bytes = b""  # of a line that was written in part
        self._dropped = 0
        self._unwritable = 0
        self._reported = 0
        self._failing = False
        self.reason = ""
        """Why lines were last lost."""

    @property
    def lost(self) -> int:
        """The number of lines that were lost."""
        return self._dropped + self._unwritable

    def write(self, line: str) -> None:
        """Write a line, which ends with a line end, without waiting for it."""
        if self._is_full:
            self._dropped += 1
            self.reason = "standard output accepts no more text"
            return
        encoded = line.encode(self._stream.encoding or "utf-8", "backslashreplace")
        if self._added == self._taken and not self._rest and (written := self._write_now(encoded)):
            self._rest = encoded[written:]
            if not self._rest:
                return
            encoded = b""  # the thread writes the rest
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="jobnik-log", daemon=True)
            self._thread.start()
        self._added += len(encoded)
        self._entries.put(encoded)

    def take_lost(self) -> int:
        """Return the number of lines that were lost since the last call; 0 while lines are still lost."""
        if self._failing or self._is_full:
            return 0
        before, self._reported = self._reported, self.lost
        return self._reported - before

    @property
    def _is_full(self) -> bool:
        return self._added - self._taken > MAX_WAITING_BYTES

    def flush(self) -> bool:
        """Wait up to two seconds until all lines are written or lost; return whether they are."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._entries.put(done)
        return done.wait(FLUSH_SECONDS)

    def _write_now(self, line: bytes) -> int:
        """Write as much of a line as the output takes without waiting; return how much that was."""
        if _NOWAIT is None:
            return 0
        self._flush_stream()
        try:
            return os.pwritev(self._file, [line], -1, _NOWAIT)
        except OSError:  # the output is full or broken, or the system cannot do this: the thread finds out
            return 0

    def _flush_stream(self) -> None:
        if self._is_writable(0):  # otherwise, the stream would be locked, and a handler that prints would wait
            with suppress(OSError, ValueError):
                self._stream.flush()

    def _run(self) -> None:
        while True:
            entries = [self._entries.get()]
            while not self._entries.empty():
                entries.append(self._entries.get())
            text = b"".join(entry for entry in entries if isinstance(entry, bytes))
            self._write(text)
            self._taken += len(text)
            for entry in entries:
                if isinstance(entry, threading.Event):
                    entry.set()

    def _write(self, text: bytes) -> None:
        self._flush_stream()
        text, torn = self._rest + text, bool(self._rest)
        written = 0
        try:
            while written < len(text):
                written += self._write_once(text[written:])
            self._failing = False
        except OSError as error:
            self._failing, self.reason = True, error.strerror or str(error)
        if written:
            torn = text[written - 1 : written] != b"\n"
        end = text.index(b"\n", written) + 1 if torn else written
        self._rest = text[written:end]
        self._unwritable += text.count(b"\n", end)

    def _write_once(self, text: bytes) -> int:
        while True:
            try:
                return os.write(self._file, text)
            except BlockingIOError:  # a program that shares the output has made it non-blocking
                self._is_writable(None)

    def _is_writable(self, milliseconds: int | None) -> bool:
        """Wait until the output accepts text or fails, at most for this time; return whether it does."""
        output = select.poll()
        output.register(self._file, select.POLLOUT)
        return bool(output.poll(milliseconds))


_writers: Final[list[LogWriter]] = []


def lost_lines() -> int:
    """Return the number of lines that this process has lost."""
    return sum(writer.lost for writer in _writers)


@cache
def writer_of(stream: TextIO, _process: int) -> LogWriter | None:
    """Return the writer of a stream in a process; None if the stream has no file descriptor, because it cannot block.

    A fork of the process has no thread that writes, and needs a writer of its own.
    """
    try:
        writer = LogWriter(stream)
    except (OSError, ValueError):
        return None
    _writers.append(writer)
    return writer
