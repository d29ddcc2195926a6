"""Settings from the environment."""

from datetime import timedelta

import pytest
from jobnik_sdk.errors import SettingsError
from jobnik_sdk.settings import WorkerSettings
from pydantic import Field, SecretStr


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://manager:8080")
    for name in ("WORKER_CONCURRENCY", "LOG_LEVEL", "PROBE_PORT", "PROBE_HOST"):
        monkeypatch.delenv(name, raising=False)


class OwnSettings(WorkerSettings):
    """A worker's own settings."""

    bucket: str = Field(default=..., description="Where the pictures are.")
    token: SecretStr = SecretStr("")
    sizes: tuple[int, ...] = ()


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the manager's address has no default."""
    settings = WorkerSettings()
    assert (settings.worker_concurrency, settings.poll_initial_delay, settings.poll_max_delay) == (
        1,
        timedelta(seconds=1),
        timedelta(seconds=60),
    )
    assert settings.log_level == "INFO"
    assert settings.probe_port == 8080
    monkeypatch.delenv("JOBNIK_BASE_URL")
    with pytest.raises(SettingsError, match=r"^JOBNIK_BASE_URL is not set: .*http://127\.0\.0\.1:8080"):
        WorkerSettings()


def test_names_of_the_public_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is read under the name that the public guide gives it."""
    monkeypatch.setenv("WORKER_CONCURRENCY", "4")
    monkeypatch.setenv("WORKER_RETRY_INITIAL_DELAY_MS", "250")
    monkeypatch.setenv("WORKER_RETRY_MAX_DELAY_MS", "5000")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("PROBE_PORT", "0")
    settings = WorkerSettings()
    assert settings.jobnik_base_url == "http://manager:8080"
    assert (settings.worker_concurrency, settings.poll_initial_delay, settings.poll_max_delay) == (
        4,
        timedelta(milliseconds=250),
        timedelta(seconds=5),
    )
    assert (settings.log_level, settings.probe_port) == ("DEBUG", 0)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("WORKER_CONCURRENCY", "0", "greater than or equal to 1"),
        ("WORKER_CONCURRENCY", "abc", "a valid integer"),
        ("WORKER_RETRY_MAX_DELAY_MS", "-1", "greater than 0"),
        ("JOBNIK_BASE_URL", "manager:8080", "The manager's address is like http://"),
        ("LOG_LEVEL", "loud", "'DEBUG', 'INFO'"),
    ],
)
def test_values_that_cannot_work_are_refused(
    name: str, value: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong setting is found at the start, and named as the environment names it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: .*{complaint}"):
        WorkerSettings()


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a worker's own settings, each on its line, and never a value: it may be secret."""
    monkeypatch.setenv("WORKER_CONCURRENCY", "secret")
    with pytest.raises(SettingsError) as caught:
        OwnSettings()
    first, second = str(caught.value).splitlines()
    assert first.startswith("WORKER_CONCURRENCY: ")
    assert second == "BUCKET is not set: Where the pictures are."
    assert "secret" not in str(caught.value)


def test_a_list_that_is_not_json_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot even be read is told as well."""
    monkeypatch.setenv("SIZES", "64,128")
    with pytest.raises(SettingsError, match=r"sizes.*not JSON"):
        OwnSettings()
