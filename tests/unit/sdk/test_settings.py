"""Settings from the environment."""

from datetime import timedelta

import pytest
from jobnik_sdk.settings import JobnikSettings, LogSettings, ProbeSettings, WorkerSettings
from pydantic import ValidationError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JOBNIK_BASE_URL", "WORKER_CONCURRENCY", "LOG_LEVEL", "PROBE_PORT", "PROBE_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_defaults() -> None:
    """Only the manager's address has no default."""
    worker = WorkerSettings()
    assert (worker.concurrency, worker.poll_initial_delay, worker.poll_max_delay) == (
        1,
        timedelta(seconds=1),
        timedelta(seconds=60),
    )
    assert LogSettings().level == "INFO"
    assert ProbeSettings().port == 8080
    with pytest.raises(ValidationError, match="base_url"):
        JobnikSettings.model_validate({})


def test_names_of_the_public_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is read under the name that the public guide gives it."""
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://manager:8080")
    monkeypatch.setenv("WORKER_CONCURRENCY", "4")
    monkeypatch.setenv("WORKER_RETRY_INITIAL_DELAY_MS", "250")
    monkeypatch.setenv("WORKER_RETRY_MAX_DELAY_MS", "5000")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("PROBE_PORT", "0")
    worker = WorkerSettings()
    assert JobnikSettings.model_validate({}).base_url == "http://manager:8080"
    assert (worker.concurrency, worker.poll_initial_delay, worker.poll_max_delay) == (
        4,
        timedelta(milliseconds=250),
        timedelta(seconds=5),
    )
    assert (LogSettings().level, ProbeSettings().port) == ("DEBUG", 0)


@pytest.mark.parametrize(("name", "value"), [("WORKER_CONCURRENCY", "0"), ("WORKER_RETRY_MAX_DELAY_MS", "-1")])
def test_values_that_cannot_work_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting is found at the start."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        WorkerSettings()
