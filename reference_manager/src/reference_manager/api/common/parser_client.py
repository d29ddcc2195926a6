"""A process that parses large bodies, and the frames that it exchanges with the manager.

Parsing JSON holds the interpreter's lock: in a thread of the manager, a body of a few MiB would delay every other
request for as long as it is parsed. The process (``api/parser.py``) parses, validates and converts a body to a command,
whose payloads are JSON text. It starts with the first large body. It ends when the manager closes its input, even if
the manager is killed, and after a body that took a lot of memory; the next large body then starts another one.
"""

import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Timer
from typing import IO, Any, NamedTuple, cast

from fastapi.exceptions import RequestValidationError
from pydantic.fields import FieldInfo

from reference_manager.api.common.fields import BodyContext

PARSER = "reference_manager.api.parser"
"""The program of the process."""
PARSE_TIMEOUT = timedelta(seconds=60)
"""After this time, the process is killed. The largest body takes a few seconds, unless the process is stopped."""
_SIZE_BYTES = 8


class BodyFormat(NamedTuple):
    """What a body has to be."""

    field: FieldInfo
    """The parameter of the route."""
    refused: frozenset[str]
    """Fields that are refused like unknown ones."""


class Parsed(NamedTuple):
    """The answer to a body."""

    command: Any
    """The command; None if the body is invalid."""
    errors: Sequence[Mapping[str, Any]]
    """What is wrong with the body."""
    is_last: bool
    """Whether the process ends after this body."""


class ParserEndedError(Exception):
    """The process that parsed a body ended. Most likely, there was not enough memory."""


class ParserClient:
    """Starts the process, and exchanges bodies for commands, one at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        self.thread = ThreadPoolExecutor(1, "bodies")
        """The thread that calls ``parse``."""

    def parse(self, body: bytes, form: bytes, context: BodyContext) -> Any:  # noqa: ANN401 - the command of the route
        """Return the command of a body. Blocks the thread, but not the interpreter.

        Args:
            body: The body.
            form: A pickled ``BodyFormat``.
            context: What the conversion needs besides the body.

        Raises:
            RequestValidationError: The body is invalid.
            ParserEndedError: The process ended before it answered, or took too long.
        """
        process = self._process
        if self._is_closed or process is None or process.poll() is not None:
            process = self._start()
        deadline = Timer(PARSE_TIMEOUT.total_seconds(), process.kill)
        deadline.start()
        try:
            for content in (pickle.dumps((form, context)), body):
                write_frame(cast("IO[bytes]", process.stdin), content)
            answer = read_frame(cast("IO[bytes]", process.stdout))
        except OSError:
            answer = b""
        finally:
            deadline.cancel()
        parsed: Parsed | None = pickle.loads(answer) if answer else None  # noqa: S301 - from our own process
        if parsed is None or parsed.is_last:
            self._process = None
            _end(process)
        if parsed is None:
            raise ParserEndedError
        if parsed.errors:
            raise RequestValidationError(parsed.errors)
        return parsed.command

    def close(self) -> None:
        """End the process, even if it is parsing. Bodies that wait for it raise ParserEndedError; idempotent."""
        self._is_closed = True
        process, self._process = self._process, None
        if process:
            process.kill()
        self.thread.shutdown()
        if process:
            _end(process)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._is_closed:
            raise ParserEndedError
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            (sys.executable, "-P", "-m", PARSER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for the manager, which first answers its requests
        )
        if self._is_closed:  # meanwhile, so that `close` may not have seen the process
            self._process.kill()
        return self._process


def write_frame(stream: IO[bytes], content: bytes) -> None:
    """Write bytes, preceded by their number."""
    stream.write(len(content).to_bytes(_SIZE_BYTES))
    stream.write(content)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes:
    """Return the bytes of a frame; empty at the end of the stream."""
    size = int.from_bytes(stream.read(_SIZE_BYTES))
    content = stream.read(size)
    return content if len(content) == size else b""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
