"""Errors before a worker's process has started; the integration tests run whole processes."""

import pytest
from jobnik_sdk import SettingsError, Worker, WorkerSettings, run


class _ContainerWithoutSettings:
    def settings(self) -> WorkerSettings:
        raise SettingsError("ONE is not set: it has no default.\nTWO: it is not valid JSON.")

    def worker(self) -> Worker:
        raise AssertionError("a worker is created without settings")


def test_invalid_settings_are_named_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, and each setting has a line of its own."""
    assert run(_ContainerWithoutSettings()) == 2
    assert capsys.readouterr().err == "ONE is not set: it has no default.\nTWO: it is not valid JSON.\n"
