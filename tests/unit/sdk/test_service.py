"""What a process says when it cannot even begin; how whole processes run is tested against a manager."""

import pytest
from jobnik_sdk import SettingsError, Worker, WorkerSettings, run


class _Unset:
    def settings(self) -> WorkerSettings:
        raise SettingsError("ONE is not set: it has no default.\nTWO: it is not JSON.")

    def worker(self) -> Worker:
        raise AssertionError("there are no settings to make it with")


def test_settings_that_are_wrong_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, and standard error names each on a line."""
    assert run(_Unset()) == 2
    assert capsys.readouterr().err == "ONE is not set: it has no default.\nTWO: it is not JSON.\n"
