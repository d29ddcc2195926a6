"""Settings from the environment."""

from datetime import timedelta
from pathlib import Path

import pytest
from jobnik_sdk import SettingsError, WorkerSettings
from jobnik_sdk.service.settings import environment, misspelled
from pydantic import Field, SecretStr


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in WorkerSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://manager:8080")
    monkeypatch.chdir(tmp_path)


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
    monkeypatch.setenv("TELEMETRY_TRACING_ENABLED", "true")
    monkeypatch.setenv("TELEMETRY_TRACING_URL", "http://127.0.0.1:4318/v1/traces")
    settings = WorkerSettings()
    assert settings.jobnik_base_url == "http://manager:8080"
    assert (settings.worker_concurrency, settings.poll_initial_delay, settings.poll_max_delay) == (
        4,
        timedelta(milliseconds=250),
        timedelta(seconds=5),
    )
    assert (settings.log_level, settings.probe_port) == ("DEBUG", 0)
    assert settings.telemetry_tracing_enabled
    assert settings.telemetry_tracing_url == "http://127.0.0.1:4318/v1/traces"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("WORKER_CONCURRENCY", "0", "greater than or equal to 1"),
        ("WORKER_CONCURRENCY", "abc", "a valid integer"),
        ("WORKER_RETRY_MAX_DELAY_MS", "-1", "greater than 0"),
        ("JOBNIK_BASE_URL", "manager:8080", "The manager's address is like http://"),
        ("JOBNIK_BASE_URL", "http://manager:8080/v1/", "is said without /v1"),
        ("LOG_LEVEL", "loud", "'DEBUG', 'INFO'"),
        ("WORKER_DRAIN_SECONDS", "0", "greater than 0"),
        ("TELEMETRY_TRACING_URL", "collector:4317", "it is like http://"),
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
    with pytest.raises(SettingsError, match=r"^SIZES: it is not JSON\.$"):
        OwnSettings()


def test_what_the_environment_does_not_say_is_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` in the working directory is read, the environment wins, and what is empty is not set."""
    Path(".env").write_text("BUCKET=pictures\nWORKER_CONCURRENCY=2\nLOG_LEVEL=ERROR\nOTHER=theirs\nPROBE_PORT=\n")
    monkeypatch.setenv("WORKER_CONCURRENCY", "3")
    monkeypatch.setenv("LOG_LEVEL", "")
    settings = OwnSettings()
    assert (settings.bucket, settings.worker_concurrency, settings.log_level) == ("pictures", 3, "ERROR")
    assert settings.probe_port == 8080
    there = environment(OwnSettings)
    assert (there["OTHER"], there["WORKER_CONCURRENCY"]) == ("theirs", "3")


def test_a_slip_of_the_pen_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told with what it may be meant for, where that is not set itself; others' variables are left alone.

    Those in the environment, that is: what is in `.env` is the worker's. Names are read in any case.
    """
    monkeypatch.setenv("WORKER_CONCURENCY", "3")
    monkeypatch.setenv("JOBNIK_BASE_URI", "http://manager:8080")
    monkeypatch.setenv("JOBNIK_MANAGER_SERVICE_PORT", "8080")
    monkeypatch.setenv("BUCKETS", "pictures")
    monkeypatch.setenv("TOKENS_OF_OTHERS", "3")
    monkeypatch.setenv("TOKEN_", "3")
    Path(".env").write_text("PROB_PORT=1\nPROBE_PROT=0\nsizes=[]\nLGO_LEVEL=INFO\n")
    assert misspelled(OwnSettings) == {
        "WORKER_CONCURENCY": "WORKER_CONCURRENCY",
        "PROBE_PROT": "PROBE_PORT",
        "PROB_PORT": "PROBE_PORT",
        "LGO_LEVEL": "LOG_LEVEL",
        "TOKEN_": "TOKEN",
    }
    monkeypatch.delenv("JOBNIK_BASE_URL")
    with pytest.raises(SettingsError, match=r"^JOBNIK_BASE_URL is not set, but JOBNIK_BASE_URI is: The manager's"):
        WorkerSettings()


@pytest.mark.parametrize(("seconds", "drain", "flush"), [("10", 9, 1), ("60", 57, 3)])
def test_the_time_to_drain_is_shared(seconds: str, drain: int, flush: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of it is for the last spans, but never more than 3 s."""
    monkeypatch.setenv("WORKER_DRAIN_SECONDS", seconds)
    settings = WorkerSettings()
    assert (settings.drain_timeout, settings.flush_timeout) == (timedelta(seconds=drain), timedelta(seconds=flush))
