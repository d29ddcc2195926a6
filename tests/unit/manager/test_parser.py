"""The process that parses large bodies."""

import json
import pickle
import sys
from datetime import timedelta
from io import BytesIO
from typing import Any

import psutil
import pytest
from fastapi import params
from reference_manager.api import parser
from reference_manager.api.common import parser_client
from reference_manager.api.common.fields import BodyContext
from reference_manager.api.common.parser_client import (
    BodyFormat,
    Parsed,
    ParserClient,
    ParserEndedError,
    read_frame,
    write_frame,
)
from reference_manager.api.tasks.requests import TaskStatusBody
from reference_manager.domain.commands import NO_TRACE

FORMAT = pickle.dumps(BodyFormat(params.Body(annotation=TaskStatusBody), frozenset()))
CONTEXT = BodyContext({}, NO_TRACE, part_a_only=False)


class _Stream:
    def __init__(self, content: bytes = b"") -> None:
        self.buffer = BytesIO(content)


def run(monkeypatch: pytest.MonkeyPatch, *bodies: bytes) -> list[Parsed]:
    """Run the process with these bodies, and return its answers."""
    source, target = BytesIO(), _Stream()
    for body in bodies:
        write_frame(source, pickle.dumps((FORMAT, CONTEXT)))
        write_frame(source, body)
    monkeypatch.setattr(sys, "stdin", _Stream(source.getvalue()))
    monkeypatch.setattr(sys, "stdout", target)
    parser.main()
    target.buffer.seek(0)
    answers = list[Parsed]()
    while answer := read_frame(target.buffer):
        answers.append(pickle.loads(answer))  # noqa: S301 - from the code above
    return answers


def test_bodies_are_answered_until_the_input_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is a command, or what is wrong with the body."""
    bodies: tuple[Any, ...] = ({"status": "FAILED"}, {"status": "LOST"}, {"status": "COMPLETED"})
    first, second, third = run(monkeypatch, *(json.dumps(body).encode() for body in bodies))
    assert [first.command, second.command, third.command] == [
        TaskStatusBody(status="FAILED"),
        None,
        TaskStatusBody(status="COMPLETED"),
    ]
    assert second.errors[0]["loc"] == ("body", "status")


def test_a_process_that_took_much_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer says that it was the last one."""
    monkeypatch.setattr(parser, "MAX_MEMORY", 0)
    (answer,) = run(monkeypatch, b'{"status": "FAILED"}', b'{"status": "FAILED"}')
    assert answer.is_last


def test_a_process_that_takes_too_long_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that is stopped. The next body gets a new process."""
    client = ParserClient()
    body = b'{"status": "FAILED"}'
    assert client.parse(body, FORMAT, CONTEXT) == TaskStatusBody(status="FAILED")
    (process,) = _parsers()
    process.suspend()
    monkeypatch.setattr(parser_client, "PARSE_TIMEOUT", timedelta(seconds=0.2))
    with pytest.raises(ParserEndedError):
        client.parse(body, FORMAT, CONTEXT)
    monkeypatch.undo()
    assert client.parse(body, FORMAT, CONTEXT) == TaskStatusBody(status="FAILED")
    client.close()
    assert not _parsers()


def _parsers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if parser_client.PARSER in child.cmdline()]
