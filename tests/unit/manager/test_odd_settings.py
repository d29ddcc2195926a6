"""An invalid setting or variable ends the command with one line that names it and contains no password."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import structlog
from reference_manager.server import addresses, process
from reference_manager.server.tracing import InvalidVariableError, tracing
from reference_manager.settings import Settings, flag, is_http_url, variable

from reference_manager import cli

SECRET = "s3cret"  # noqa: S105 a password of nothing
ODD_VALUES = [
    *("inf", "nan", "1e300", "1e10", "-1", "0", "", "9" * 20, "9" * 5000, "99999", " 5 ", "0x10", "\x7f", "\udc80"),
    *("é", "[]", "::", "a" * 300, "P99999999999D", "PT1e300S", "9" * 30 + "TB", f"http://u:{SECRET}@[::1"),
    *(f"postgresql://u:{SECRET}@[::1", f"postgresql://u:{SECRET}@h:x/d", f"postgresql://u:a/{SECRET}@h/d"),
]


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("JOBNIK_MANAGER_", "TELEMETRY_", "OTEL_")):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level, uvicorn = list(root.handlers), root.level, logging.getLogger("uvicorn").level
    previous: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in process.STOP_SIGNALS}
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn").setLevel(uvicorn)
    structlog.reset_defaults()
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture
def _listens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command opens its port, and ends."""

    def serve(settings: Settings, *_: object) -> None:
        process._listen(settings).close()  # pyright: ignore[reportPrivateUsage]

    monkeypatch.setattr(cli, "serve", serve)
    monkeypatch.setattr(cli, "_serve_embedded", serve)


@pytest.mark.usefixtures("_listens_only")
@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_odd_setting_works_or_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its value, a setting is accepted, or the command ends with code 2 and one line with its name."""
    monkeypatch.setenv("JOBNIK_MANAGER_PORT", "0")
    for value in ODD_VALUES:
        monkeypatch.setenv(variable(name), value)
        code = cli.main(["serve"])
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        assert "Traceback" not in out + err
        if name == "port" and value in {"99999", " 5 "}:  # a port of root, who may run these tests
            continue
        assert (code, len(err.splitlines())) in {(0, 0), (2, 1)}, value
        assert code == 0 or flag(name) in err


@pytest.mark.usefixtures("_listens_only")
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@h:99999/d",
        f"postgresql://u:{SECRET}@h:0x1/d",
        f"postgresql://u:{SECRET}@a,b:x/d",
        f"postgresql://u:{SECRET}@a b/d",
        f"postgresql://u:{SECRET}@{'a' * 64}/d",
        f"mysql://u:{SECRET}@h/d",
        f"u:{SECRET}@h/d",
        "",
    ],
)
def test_an_odd_database_url_is_not_quoted(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The URL is not quoted, because it may contain a password."""
    assert cli.main(["serve", "--database-url", url, "--port", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--database-url or JOBNIK_MANAGER_DATABASE_URL: ")
    assert SECRET not in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://u@%2Frun%2Fpostgresql/d",
        "postgresql://u:p%2Fw@a.b_c:5432,[::1]:5433,10.0.0.1/d?sslmode=require",
    ],
)
def test_usual_database_urls_are_accepted(url: str) -> None:
    """Sockets, several hosts, and percent-encoded characters in passwords are accepted."""
    settings = Settings(database_url=url)  # pyright: ignore[reportArgumentType] pydantic converts it
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == url
    assert "p%2Fw" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "valid"),
    [
        ("http://collector:4318/v1/traces", True),
        ("https://u:p@[::1]:1", True),
        ("http://", False),
        ("http://h:99999", False),
        ("http://[::1", False),
        ("http://a b", False),
        ("ftp://h", False),
    ],
)
def test_urls_of_services(url: str, valid: bool) -> None:  # noqa: FBT001 expected
    """The host and the port of a URL must be valid."""
    assert is_http_url(url) is valid


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://u:{SECRET}@[::1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"Bearer {SECRET}"),
    ],
)
def test_odd_variables_of_opentelemetry_are_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command then ends with code 2."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidVariableError, match=f"^{name}: ") as caught, tracing("http://127.0.0.1:9"):
        pass
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "it must be a URL such as http://127.0.0.1:4318."),
        ("OTEL_PYTHON_TRACER_PROVIDER", "bogus", "'bogus' is not installed."),
        ("OTEL_PROPAGATORS", "tracecontext, bogus", "'bogus' is not installed."),
    ],
)
def test_an_invalid_variable_ends_the_command(
    name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is that of an invalid setting."""
    monkeypatch.setenv(name, value)
    assert cli.main(["serve", "--database-url", "postgresql://127.0.0.1:1/none", "--port", "0"]) == 2
    assert capsys.readouterr().err == f"jobnik-manager: {name}: {problem}\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::", "::ffff:127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104 on purpose
def test_any_address_can_be_listened_on(host: str) -> None:
    """`::` includes IPv4, and an IPv6 address is in brackets in a URL."""
    try:
        listener = addresses.listen(host, 0)
    except OSError:
        assert ":" in host, "this machine has no IPv4"
        pytest.skip("this machine has no IPv6")
    with closing(listener):
        port = listener.getsockname()[1]
        target = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(host, host)  # noqa: S104 on purpose
        with closing(socket.create_connection((target, port), timeout=30)):
            pass
    assert addresses.url(host, port) == (f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


def test_an_address_may_be_in_brackets() -> None:
    """The address is the part between the brackets, as in a URL."""
    assert Settings(host="[::1]").host == "::1"
