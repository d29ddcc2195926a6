"""The journals of worker processes: each event is written as one line of JSON before anything else happens."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


class JournalWriter:
    """Writes a journal. Any number of processes may write to the same file.

    Args:
        file: The file to append to.
    """

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, **fields: object) -> None:
        """Append a line with one system call, so that a killed process has written either the whole line or nothing."""
        os.write(self._file, json.dumps(fields).encode() + b"\n")


class NewLines:
    """Reads the complete lines that were added to files since the last call.

    Args:
        folder: The folder that holds the files.
        pattern: The glob pattern of the file names.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder = folder
        self._pattern = pattern
        self._read: Counter[Path] = Counter()

    def read(self) -> Iterator[bytes]:
        """Yield the new lines, in order within each file."""
        for path in sorted(self._folder.glob(self._pattern)):
            with path.open("rb") as file:
                file.seek(self._read[path])
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] += len(whole)
            yield from whole.splitlines()
