"""Writing log lines to outputs that do not accept them."""

import errno
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from jobnik_sdk import configure_logging
from jobnik_sdk.observability import log_writer
from jobnik_sdk.observability.log_writer import LogWriter, writer_of


class Pipe:
    """A pipe with a stream that writes to it."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.stream: TextIO = os.fdopen(writer, "w")

    def read(self, end: str) -> str:
        """Read until a text that ends with `end` has arrived, and return it."""
        text = b""
        while not text.endswith(end.encode()):
            text += os.read(self.reader, 65_536)
        return text.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """An empty pipe."""
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    pipe.stream.close()


def test_lines_follow_what_the_program_printed(pipe: Pipe) -> None:
    """All lines arrive in order, after the text that was printed before them."""
    writer = LogWriter(pipe.stream)
    pipe.stream.write("printed\n")
    for number in range(100):
        writer.write(f"{number}\n")
    assert writer.flush()
    assert pipe.read("99\n").splitlines() == ["printed", *map(str, range(100))]
    assert writer.take_lost() == 0


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="needs Linux")
def test_a_line_is_written_at_once_if_possible(pipe: Pipe) -> None:
    """It is there even if no other thread of this process can run afterwards."""
    writer = LogWriter(pipe.stream)
    threads = threading.active_count()
    writer.write("line\n")
    os.set_blocking(pipe.reader, False)
    try:
        assert os.read(pipe.reader, 100) == b"line\n"
    except BlockingIOError:
        pytest.skip("this version of Linux cannot do this for pipes")
    assert threading.active_count() == threads


def test_nobody_waits_for_a_pipe_that_is_not_read(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines beyond the limit are lost and counted, and all others arrive whole as soon as the pipe is read."""
    monkeypatch.setattr(log_writer, "MAX_WAITING_BYTES", 1_000_000)
    writer = LogWriter(pipe.stream)
    lines = [f"{number} {'a' * 100_000}" for number in range(20)]
    for line in lines:
        writer.write(f"{line}\n")
    with monkeypatch.context() as hurry:
        hurry.setattr(log_writer, "FLUSH_SECONDS", 0.0)
        assert not writer.flush()
    assert writer.take_lost() == 0  # not while further lines would be lost

    kept = len(lines) - writer.lost
    assert 9 < kept < 13
    read = pipe.read(f"{lines[kept - 1]}\n").splitlines()
    assert read == lines[:kept]
    assert writer.flush()
    writer.write("last\n")
    assert pipe.read("last\n") == "last\n"
    assert writer.flush()
    assert writer.take_lost() == len(lines) - kept
    assert writer.take_lost() == 0


def test_a_full_disk_tears_no_line(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was written in part is completed when there is space again; the others are lost and counted."""
    space = 8
    write = os.write

    def write_if_there_is_space(file: int, text: bytes) -> int:
        nonlocal space
        if space == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, text[:space])
        space -= written
        return written

    monkeypatch.setattr(os, "write", write_if_there_is_space)
    monkeypatch.setattr(os, "pwritev", _refuse)
    writer = LogWriter(pipe.stream)
    for line in ("first\n", "second\n", "third\n", "fourth\n"):
        writer.write(line)
        assert writer.flush()
    assert (writer.take_lost(), writer.reason) == (0, "No space left on device")
    space = 1000
    writer.write("fifth\n")
    assert pipe.read("fifth\n") == "first\nsecond\nfifth\n"
    assert writer.flush()
    assert writer.take_lost() == 2


def test_an_output_may_be_non_blocking(pipe: Pipe) -> None:
    """Lines wait for a full pipe that another program has made non-blocking."""
    os.set_blocking(pipe.stream.fileno(), False)
    writer = LogWriter(pipe.stream)
    lines = [f"{number} {'a' * 100_000}" for number in range(5)]
    for line in lines:
        writer.write(f"{line}\n")
    assert pipe.read(f"{lines[-1]}\n").splitlines() == lines
    assert writer.take_lost() == 0


def test_a_closed_stream_is_not_mistaken_for_another_file(pipe: Pipe, tmp_path: Path) -> None:
    """Lines still arrive after the program has closed the stream and another file has its number."""
    writer = LogWriter(pipe.stream)
    number = pipe.stream.fileno()
    pipe.stream.close()
    with (tmp_path / "other").open("w+") as other:
        assert other.fileno() == number
        writer.write("line\n")
        assert pipe.read("line\n") == "line\n"
        assert other.read() == ""


def test_a_stream_without_a_file_has_no_writer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in memory and cannot block, so its lines are written at once."""
    _restore_logging(monkeypatch)
    assert writer_of(sys.stdout, os.getpid()) is None
    configure_logging()
    logging.getLogger().warning("seen")
    assert '"event": "seen"' in capsys.readouterr().out


def test_lost_lines_are_logged(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line that arrives is followed by one with the number of lost lines and the reason."""
    root = _restore_logging(monkeypatch)
    monkeypatch.setattr(sys, "stdout", pipe.stream)
    configure_logging()
    with monkeypatch.context() as full:
        full.setattr(os, "write", _refuse)
        full.setattr(os, "pwritev", _refuse)
        for number in range(3):
            root.warning("lost %d", number)
        root.handlers[0].flush()
    for number in range(2):
        root.warning("written %d", number)
        root.handlers[0].flush()
    written, again, lost = map(json.loads, pipe.read("}\n").splitlines())
    assert (written["event"], again["event"]) == ("written 0", "written 1")
    assert (lost["event"], lost["level"], lost["lines"]) == ("log lines lost", "warning", 3)
    assert lost["reason"] == "No space left on device"


def _restore_logging(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """Return the root logger, whose configuration is restored after the test."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    return root


def _refuse(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
