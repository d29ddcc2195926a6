"""The settings of a worker, from the environment and from `.env`."""

from datetime import timedelta
from pathlib import Path

import pytest
from jobnik_sdk import SettingsError, WorkerSettings
from jobnik_sdk.worker.settings import environment, misspelled
from pydantic import Field, SecretStr


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in WorkerSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://manager:8080")
    monkeypatch.chdir(tmp_path)


class OwnSettings(WorkerSettings):
    """Settings that a worker adds."""

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


def test_settings_have_the_names_of_the_public_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is read from the variable that the public guide names."""
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
    ("name", "value", "problem"),
    [
        ("WORKER_CONCURRENCY", "0", "greater than or equal to 1"),
        ("WORKER_CONCURRENCY", "abc", "a valid integer"),
        ("WORKER_RETRY_MAX_DELAY_MS", "-1", "greater than 0"),
        ("JOBNIK_BASE_URL", "manager:8080", "The manager's address must be a URL such as http://"),
        ("JOBNIK_BASE_URL", "http://manager:8080/v1/", "must not end with /v1"),
        ("LOG_LEVEL", "loud", "'DEBUG', 'INFO'"),
        ("WORKER_DRAIN_SECONDS", "0", "greater than 0"),
        ("TELEMETRY_TRACING_URL", "collector:4317", "it must be a URL such as http://"),
    ],
)
def test_invalid_values_are_errors(name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the environment variable."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: .*{problem}"):
        WorkerSettings()


def test_all_problems_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each problem has a line, also for settings that a worker adds. Values do not appear, as they may be secret."""
    monkeypatch.setenv("WORKER_CONCURRENCY", "secret")
    with pytest.raises(SettingsError) as caught:
        OwnSettings()
    first, second = str(caught.value).splitlines()
    assert first.startswith("WORKER_CONCURRENCY: ")
    assert second == "BUCKET is not set: Where the pictures are."
    assert "secret" not in str(caught.value)


def test_a_list_must_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that cannot be parsed is an error of its setting."""
    monkeypatch.setenv("SIZES", "64,128")
    with pytest.raises(SettingsError, match=r"^SIZES: it is not valid JSON\.$"):
        OwnSettings()


def test_variables_are_also_read_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment takes precedence over `.env` in the working directory; an empty variable counts as not set."""
    Path(".env").write_text("BUCKET=pictures\nWORKER_CONCURRENCY=2\nLOG_LEVEL=ERROR\nOTHER=theirs\nPROBE_PORT=\n")
    monkeypatch.setenv("WORKER_CONCURRENCY", "3")
    monkeypatch.setenv("LOG_LEVEL", "")
    settings = OwnSettings()
    assert (settings.bucket, settings.worker_concurrency, settings.log_level) == ("pictures", 3, "ERROR")
    assert settings.probe_port == 8080
    variables = environment(OwnSettings)
    assert (variables["OTHER"], variables["WORKER_CONCURRENCY"]) == ("theirs", "3")


def test_misspelled_names_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelled variable is found with the setting of the closest name, if that setting is not set itself.

    Unrelated variables of the environment are ignored. All variables in `.env` are checked. Case does not matter.
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
def test_a_part_of_the_drain_time_is_reserved_for_spans(
    seconds: str, drain: int, flush: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of `WORKER_DRAIN_SECONDS` is reserved for the last spans, but at most 3 s."""
    monkeypatch.setenv("WORKER_DRAIN_SECONDS", seconds)
    settings = WorkerSettings()
    assert (settings.drain_timeout, settings.flush_timeout) == (timedelta(seconds=drain), timedelta(seconds=flush))
