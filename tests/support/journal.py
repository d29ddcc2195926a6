"""What worker processes write down: a line of JSON for each thing that happens, before anything else does."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


class Pen:
    """Writes a journal; any number of processes may write the same one.

    Args:
        file: To be appended to.
    """

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, **said: object) -> None:
        """Add a line: with one system call, so that a process which is killed leaves all of it or nothing."""
        os.write(self._file, json.dumps(said).encode() + b"\n")


class NewLines:
    """The lines that files have got since the last look, as far as they are whole.

    Args:
        folder: Of the files.
        pattern: Of their names.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder = folder
        self._pattern = pattern
        self._read: Counter[Path] = Counter()

    def read(self) -> Iterator[bytes]:
        """Those of one file in their order."""
        for path in sorted(self._folder.glob(self._pattern)):
            with path.open("rb") as file:
                file.seek(self._read[path])
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] += len(whole)
            yield from whole.splitlines()
