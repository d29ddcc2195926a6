"""An invalid setting, variable or file ends the process with one line that names it and contains no password."""

import asyncio
import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import structlog
from jobnik_sdk import ConfigurationError, JobnikClient, SettingsError, UnreachableError, Worker, WorkerSettings, run
from jobnik_sdk.http.addresses import Address
from jobnik_sdk.observability import metrics
from jobnik_sdk.observability.logging import configure_logging
from jobnik_sdk.observability.secrets import mask_secrets, mask_url
from jobnik_sdk.service.tracing import tracing
from jobnik_sdk.worker.settings import environment, misspelled
from opentelemetry import trace as otel
from prometheus_client import REGISTRY, generate_latest

SECRET = "s3cret"  # noqa: S105 a password of nothing

ODD_VALUES = [
    *("inf", "nan", "1e300", "1e10", "-1", "0", "", "9" * 20, "9" * 5000, "99999", " 5 ", "0x10", "\x7f", "\udc80"),
    *("é", "[]", "{}", "::", "a" * 300, f"http://u:{SECRET}@[::1", f"http://u:{SECRET}/x@h", f"u:{SECRET}@h"),
]


class Container:
    """A worker whose creation ends the test."""

    def __init__(self, settings: type[WorkerSettings] = WorkerSettings) -> None:
        self._settings = settings

    def settings(self) -> WorkerSettings:
        """Read the settings."""
        return self._settings()

    def worker(self) -> Worker:
        """End the process, which has its settings, as if the environment were wrong."""
        raise ConfigurationError("the worker is created")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name in WorkerSettings.model_fields or name.upper().endswith("_PROXY") or name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    for name in WorkerSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PROBE_HOST", "127.0.0.1")
    monkeypatch.setenv("PROBE_PORT", "0")
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.mark.parametrize("name", WorkerSettings.model_fields)
def test_an_odd_setting_works_or_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its value, a setting is accepted, or the process ends with code 2 and one line with its name."""
    _disable_tracing(monkeypatch)
    for value in ODD_VALUES:
        monkeypatch.setenv(name.upper(), value)
        assert run(Container()) == 2, value
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        assert "Traceback" not in out + err
        (line,) = err.splitlines()
        assert name.upper() in line or line == "the worker is created"


def _disable_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_enabled(*_: object) -> bool:
        return False

    monkeypatch.setattr("jobnik_sdk.service.process.tracing.is_enabled", is_enabled)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_DRAIN_SECONDS", "inf"),
        ("WORKER_DRAIN_SECONDS", "nan"),
        ("WORKER_DRAIN_SECONDS", "1e10"),
        ("WORKER_RETRY_MAX_DELAY_MS", "9" * 20),
        ("WORKER_RETRY_INITIAL_DELAY_MS", "9" * 20),
        ("WORKER_CONCURRENCY", "9" * 20),
        ("PROBE_PORT", "99999"),
        ("PROBE_HOST", "nowhere.invalid"),
        ("PROBE_HOST", "192.0.2.1"),
        ("PROBE_HOST", "a" * 70 + ".org"),
        ("JOBNIK_BASE_URL", "http://127.0.0.1:99999"),
        ("JOBNIK_BASE_URL", "http://127.0.0.1:0"),
        ("JOBNIK_BASE_URL", "http://127.0.0.1/?tenant=a"),
        ("JOBNIK_BASE_URL", "http://a b"),
        ("JOBNIK_BASE_URL", f"http://{'a' * 64}.org"),
        ("TELEMETRY_TRACING_URL", "http://[::1"),
        ("TELEMETRY_TRACING_URL", "http://127.0.0.1:99999"),
    ],
)
def test_values_that_cannot_work_are_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value that would fail later is an error at the start."""
    _disable_tracing(monkeypatch)
    monkeypatch.setenv(name, value)
    assert run(Container()) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["BUCKET=é".encode("latin-1"), "BUCKET=a".encode("utf-16"), b"BUCKET=a\0b\n", None],
    ids=["latin-1", "utf-16", "NUL", "directory"],
)
def test_an_unreadable_file_is_named(content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    """A file `.env` that is not text in UTF-8 ends the process with one line."""
    if content is None:
        Path(".env").mkdir()
    else:
        Path(".env").write_bytes(content)
    assert run(Container()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(".env: it ")
    for read in (environment, misspelled):
        with pytest.raises(SettingsError, match=r"^\.env: it "):
            read(WorkerSettings)


def test_a_file_without_permission_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is simulated, because root may read any file."""
    Path(".env").touch()

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", ".env")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(SettingsError, match=r"^\.env: it cannot be read: Permission denied\.$"):
        WorkerSettings()


def test_a_byte_order_mark_is_no_part_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Editors on Windows write a byte order mark, which is ignored."""
    Path(".env").write_bytes("\ufeffWORKER_CONCURRENCY=7\n".encode())
    assert WorkerSettings().worker_concurrency == 7
    Path(".env").write_bytes(b"WORKER_CONCURRENCY=8\n")
    assert WorkerSettings().worker_concurrency == 8
    monkeypatch.setattr(WorkerSettings, "model_config", WorkerSettings.model_config | {"env_file": ("a", ".env")})
    Path("a").mkdir()
    with pytest.raises(SettingsError, match=r"^a: it cannot be read: Is a directory"):
        WorkerSettings()


PROXIES = [
    ("ALL_PROXY", "socks5://127.0.0.1:9"),
    ("ALL_PROXY", "bogus://x"),
    ("HTTPS_PROXY", ":foo"),
    ("HTTP_PROXY", f"http://u:{SECRET}@[::1"),
    ("HTTP_PROXY", f"http://u:{SECRET}@h:99999"),
    ("http_proxy", "h:x"),
    ("all_proxy", "http://"),
    ("HTTPS_PROXY", "http://a b"),
    ("HTTP_PROXY", "\udc80"),
]


@pytest.mark.parametrize(("name", "value"), PROXIES)
def test_an_odd_proxy_is_named_unless_the_manager_is_local(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies do not apply to a manager on this machine. Elsewhere, an invalid one is an error with its variable."""
    monkeypatch.setenv(name, value)
    for address in (
        "http://127.0.0.1:9",
        "http://[::1]:9",
        "http://localhost:9",
        "http://a.localhost",
        "http://[::]:9",
    ):
        assert JobnikClient(address).base_url == address
    for address in ("http://manager:8080", "https://manager", "http://mylocalhost"):
        with pytest.raises(ConfigurationError, match=rf"^{name}: ") as caught:
            JobnikClient(address)
        assert SECRET not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "*")
    assert JobnikClient("http://manager:8080").base_url == "http://manager:8080"


@pytest.mark.parametrize("value", ["[::1", "http://", "a b", "\x7f", ",,,", "1.2.3.4/99", "::1/999", "🎉"], ids=ascii)
def test_an_odd_list_of_exceptions_is_harmless(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All programs interpret NO_PROXY differently, so parts in an unknown format are not an error."""
    monkeypatch.setenv("NO_PROXY", value)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert JobnikClient("http://manager:8080").base_url == "http://manager:8080"


@pytest.mark.parametrize(
    ("name", "value"), [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_FILE", __file__), ("SSLKEYLOGFILE", "/nowhere/keys")]
)
def test_odd_files_for_tls_are_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid file is an error for https, and is ignored for http."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv(name, value)
    assert JobnikClient("http://manager").base_url == "http://manager"
    with pytest.raises(ConfigurationError, match=rf"^{name}: TLS cannot use this file: "):
        JobnikClient("https://manager")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999999"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "bogus"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://u:{SECRET}@[::1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"Bearer {SECRET}"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"a=b,authorization={SECRET}€"),
    ],
)
def test_odd_variables_of_opentelemetry_are_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Variables that OpenTelemetry itself replaces by a default, with a warning, are not errors."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(otel, "get_tracer_provider", otel.ProxyTracerProvider)
    assert run(Container()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: ")
    assert SECRET not in line


def test_headers_in_both_forms_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values may be encoded as in a URL or, as in other languages, contain spaces."""
    for value in ("a=b", "authorization=Bearer abc=, x-y = z", "authorization=Basic%20abc%3D", "", " , a=b,"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", value)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        monkeypatch.setattr(otel, "get_tracer_provider", otel.ProxyTracerProvider)
        monkeypatch.setattr(otel, "set_tracer_provider", id)
        with tracing("http://127.0.0.1:9", WorkerSettings().flush_timeout):
            pass


PASSWORDS = [f"http://u:{SECRET}@127.0.0.1:9", f"http://:{SECRET}@127.0.0.1:9", f"http://{SECRET}@127.0.0.1:9"]


@pytest.mark.parametrize("url", [*PASSWORDS, f"http://u:a%40{SECRET}@127.0.0.1:9", f"http://u:a@{SECRET}@127.0.0.1:9"])
async def test_a_password_in_the_address_is_sent_and_not_shown(url: str) -> None:
    """Requests carry it; errors, representations and the attribute `base_url` do not."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(404, json={"message": "none", "code": "JOB_NOT_FOUND"})

    async with JobnikClient(url, transport=httpx2.MockTransport(answer)) as client:
        assert client.base_url == "http://127.0.0.1:9"
        with pytest.raises(Exception) as refused:  # noqa: PT011 its text is what matters
            await client.request("GET", "/v1/jobs/1")
    expected = httpx2.BasicAuth(httpx2.URL(url).username, httpx2.URL(url).password)
    assert seen[0].headers["Authorization"] == next(expected.auth_flow(seen[0])).headers["Authorization"]
    async with JobnikClient(url) as client:
        with pytest.raises(UnreachableError) as unreachable:
            await client.request("GET", "/v1/jobs", retry=False)
    shown = [str(refused.value), str(unreachable.value), str(seen[0].url), repr(Address.parse(url)), repr(vars(client))]
    assert not any(SECRET in text for text in shown)


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{SECRET}@h:99999",
        f"http://u:{SECRET}@[::1",
        f"ftp://u:{SECRET}@h",
        f"http://u:{SECRET}@h/v1",
        f"http://u:{SECRET}@h?q",
        f"http://u:a/{SECRET}@h",
        f"http://u:a#{SECRET}@h",
        f"http://u:{SECRET}\n@h",
    ],
)
def test_a_password_is_not_shown_in_the_error_of_an_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the client nor the settings show it."""
    with pytest.raises(ConfigurationError) as client:
        JobnikClient(url)
    monkeypatch.setenv("JOBNIK_BASE_URL", url)
    with pytest.raises(SettingsError) as settings:
        WorkerSettings()
    assert SECRET not in str(client.value) + str(settings.value)


def test_settings_show_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their representation may get into log lines and tracebacks."""

    class Own(WorkerSettings):
        database: str = f"postgresql://u:{SECRET}@db/x"

    monkeypatch.setenv("JOBNIK_BASE_URL", f"http://u:{SECRET}@manager")
    settings = Own()
    assert settings.jobnik_base_url == f"http://u:{SECRET}@manager"
    assert SECRET not in repr(settings) + str(settings)
    assert "http://u:***@manager" in repr(settings)


def test_log_lines_show_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords are masked in lines of any logger, including the errors of libraries."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    configure_logging("INFO")
    url = f"http://u:{SECRET}@proxy:3128"
    try:
        httpx2.URL("http://h").copy_with(host=url)
    except httpx2.InvalidURL:
        structlog.get_logger("a").exception("failed", proxy=url, nested={"urls": [url]})
        logging.getLogger("b").exception("Cannot connect to %s", url)
    assert SECRET not in out.getvalue()
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["proxy"] == "http://u:***@proxy:3128"
    assert second["event"] == "Cannot connect to http://u:***@proxy:3128"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://host/a@b:c@d", "https://host/a@b:c@d"),
        ("mail a@b.org, http://h:1/x", "mail a@b.org, http://h:1/x"),
        ("ssh://git@host", "ssh://git@host"),
        ("jobnik_sdk_worker_active " + "a" * 60, "jobnik_sdk_worker_active " + "a" * 60),
        (f"Bearer jobnik_{'aB3' * 16}x, and more", "Bearer jobnik_***, and more"),
        ("postgresql://u:a@b@h/d and redis://:x@r", "postgresql://u:***@h/d and redis://:***@r"),
    ],
)
def test_only_passwords_and_tokens_are_masked(text: str, masked: str) -> None:
    """Other text stays as it is."""
    assert mask_secrets(text) == masked


def test_masking_is_linear() -> None:
    """The time to mask a line is proportional to its length."""
    for part in ("://", "://a:", "@", "a", "://a:b", ":/", "jobnik_"):
        text = part * 100_000 + "://@"
        assert mask_secrets(text) == text


def test_a_url_is_shown_without_its_user() -> None:
    """This holds for invalid URLs as well."""
    assert mask_url("http://u:a/b@c@h:1/x") == "http://***@h:1/x"
    assert mask_url("http://h:1/x") == "http://h:1/x"
    assert mask_url("u:a@h") == "***@h"
    assert mask_url("http://h/x?token=a#b") == "http://h/x?***"
    assert mask_url("http://u:a?b#c@h/#d") == "http://***@h/#***"


def test_labels_have_a_limited_number_of_values() -> None:
    """Code of the application chooses error types and stage types, so the metrics count all further ones as `other`."""
    stage_metrics = metrics.stage_metrics("capped")
    for number in range(500):
        stage_metrics.record_attempt("failed", 0.1, f"Error{number}")
    read = REGISTRY.get_sample_value
    failed = "jobnik_sdk_worker_tasks_failed_total"
    assert read(failed, {"stage_type": "capped", "error_type": "Error0"}) == 1
    assert read(failed, {"stage_type": "capped", "error_type": "other"}) == 500 - metrics.MAX_ERROR_TYPES
    capped = [line for line in generate_latest().decode().splitlines() if line.startswith(f'{failed}{{error_type="')]
    assert len([line for line in capped if 'stage_type="capped"' in line]) == metrics.MAX_ERROR_TYPES + 1


def test_stage_types_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may claim from any number of stage types."""
    monkeypatch.setattr(metrics, "_stage_types", metrics.LabelValues(3))
    labels = [metrics.stage_label(name) for name in ("a", "b", "c", "d", "a", "e")]
    assert labels == ["a", "b", "c", "other", "a", "other"]
    assert metrics.stage_metrics("d") is metrics.stage_metrics("e")


def test_an_address_may_be_an_ipv6_literal() -> None:
    """The address keeps its brackets."""
    for url in ("http://[::1]:8080", "http://[fe80::1%25eth0]:8080", "https://[2001:db8::1]/jobnik"):
        assert Address.parse(url).url == url


def test_the_event_loop_is_not_needed_for_a_client() -> None:
    """A client is created before the loop runs, as in a container."""
    client = JobnikClient("http://[::1]:9")
    assert asyncio.run(client.aclose()) is None
