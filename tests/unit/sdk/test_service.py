"""Errors before a worker's process has started; the integration tests run whole processes."""

import pytest
from jobnik_sdk import Handler, SettingsError, TaskContext, Worker, WorkerSettings, run

from tests.unit.sdk.script import Word, words


class _ContainerWithoutSettings:
    def settings(self) -> WorkerSettings:
        raise SettingsError("ONE is not set: it has no default.\nTWO: it is not valid JSON.")

    def worker(self) -> Worker:
        raise AssertionError("a worker is created without settings")


def test_invalid_settings_are_named_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, and each setting has a line of its own."""
    assert run(_ContainerWithoutSettings()) == 2
    assert capsys.readouterr().err == "ONE is not set: it has no default.\nTWO: it is not valid JSON.\n"


async def do_nothing(_task: Word, _context: TaskContext) -> Word:
    """Return nothing new."""
    return Word()


def test_handlers_alone_have_the_settings_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are read and checked as those of a container."""
    monkeypatch.setenv("JOBNIK_BASE_URL", "no address")
    assert run([Handler(words, do_nothing)]) == 2
    assert capsys.readouterr().err.startswith("JOBNIK_BASE_URL: ")
