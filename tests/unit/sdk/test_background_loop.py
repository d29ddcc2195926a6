"""The event loop behind a SyncProducer, at the moments at which a call is least expected."""

import sys
import threading
from collections.abc import Iterator

import pytest
from jobnik_sdk import ConfigurationError
from jobnik_sdk.producer.blocking import background


@pytest.fixture(autouse=True)
def _own_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first call of each test starts a loop."""
    monkeypatch.setattr(background, "loops", {})
    yield
    background.stop()


async def _answer() -> int:
    return 42


@pytest.mark.timeout(10)
def test_a_signal_handler_can_call_while_the_first_call_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It interrupts the thread at any line, and must not wait for it."""
    answers: list[int] = []
    start = threading.Thread.start

    def start_interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "jobnik producer":
            answers.append(background.run(_answer()))

    monkeypatch.setattr(threading.Thread, "start", start_interrupted)
    assert background.run(_answer()) == 42
    assert answers == [42]


def test_a_call_during_the_shutdown_of_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's thread cannot run any more, so the call would never return."""
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    with pytest.raises(ConfigurationError, match="the interpreter is shutting down"):
        background.run(_answer())


def test_a_callback_must_be_a_plain_function() -> None:
    """A coroutine function would never run."""

    async def note(_value: int) -> None: ...

    with pytest.raises(ConfigurationError, match="must be a plain function"):
        background.Caller().callback(note)


def test_a_call_after_the_end_starts_another_loop() -> None:
    """Functions of `atexit` that run later can still use a producer."""
    assert background.run(_answer()) == 42
    background.stop()
    assert background.run(_answer()) == 42
