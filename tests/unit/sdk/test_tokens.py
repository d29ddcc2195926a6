"""The token of a client: where it comes from, where it goes, and where it never appears."""

import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from jobnik_sdk import (
    ConfigurationError,
    ForbiddenError,
    JobnikClient,
    Producer,
    SettingsError,
    SyncProducer,
    UnauthorizedError,
    UnexpectedAnswerError,
    WorkerSettings,
)
from jobnik_sdk.http.tokens import TokenAuth
from jobnik_sdk.worker.settings import given_token

SECRET = "jobnik_secret"  # noqa: S105 not a real one
Open = Callable[..., JobnikClient]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("JOBNIK_TOKEN", "JOBNIK_TOKEN_FILE", "JOBNIK_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


class Manager(httpx2.MockTransport):
    """Records the Authorization header of each request, and gives one answer."""

    def __init__(self, answer: httpx2.Response | None = None) -> None:
        self.received: list[str | None] = []
        self._answer = answer or httpx2.Response(200, json={})
        super().__init__(self._record)

    def _record(self, request: httpx2.Request) -> httpx2.Response:
        self.received.append(request.headers.get("Authorization"))
        answer = self._answer
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)


async def sent(url: str = "http://manager", token: str | Path | None = None) -> str | None:
    """Return the header of a request to a manager."""
    manager = Manager()
    async with JobnikClient(url, transport=manager, token=token) as client:
        await client.request("GET", "/v1/jobs")
        with client.blocking(timedelta(seconds=5)) as blocking:
            blocking.get("/v1/jobs")
    assert manager.received[0] == manager.received[1]
    return manager.received[0]


async def test_the_token_comes_from_the_argument_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An argument wins. Without any, nothing is sent."""
    assert await sent() is None
    monkeypatch.setenv("JOBNIK_TOKEN", f"{SECRET}\n")
    assert await sent() == f"Bearer {SECRET}"
    assert await sent(token="other") == "Bearer other"  # noqa: S106 not a real one
    monkeypatch.delenv("JOBNIK_TOKEN")
    (tmp_path / "token").write_text(f"{SECRET}\n")
    monkeypatch.setenv("JOBNIK_TOKEN_FILE", "token")
    assert await sent() == f"Bearer {SECRET}"
    monkeypatch.setenv("JOBNIK_TOKEN", SECRET)
    with pytest.raises(ConfigurationError, match="JOBNIK_TOKEN and JOBNIK_TOKEN_FILE are both set"):
        await sent()


async def test_the_token_of_the_environment_is_for_its_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the environment names a manager, a client of another one does not get its token."""
    monkeypatch.setenv("JOBNIK_TOKEN", SECRET)
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://manager:80/path")
    assert await sent("http://manager") == f"Bearer {SECRET}"
    for other in ("http://other", "https://manager", "http://manager:8080", "http://manager.other"):
        assert await sent(other) is None, other


def test_a_token_is_never_sent_to_another_host() -> None:
    """Not even if something sends a request there with the authentication of the client."""
    auth = TokenAuth("http://manager:8080", SECRET)
    for url, expected in (
        ("http://manager:8080/v1/jobs", f"Bearer {SECRET}"),
        ("http://manager/v1/jobs", None),
        ("https://manager:8080/v1/jobs", None),
        ("http://other:8080/v1/jobs", None),
    ):
        request = next(auth.auth_flow(httpx2.Request("GET", url)))
        assert request.headers.get("Authorization") == expected, url


async def test_redirects_are_not_followed() -> None:
    """The error says where the manager wants the client to go, and the token stays."""
    manager = Manager(httpx2.Response(307, headers={"Location": "http://other/v1/jobs"}))
    async with JobnikClient("http://manager", transport=manager, token=SECRET) as client:
        with pytest.raises(UnexpectedAnswerError):
            await client.request("GET", "/v1/jobs")
    assert manager.received == [f"Bearer {SECRET}"]


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Also behind a symbolic link that is replaced. While it is missing or empty, the last token stays in use."""
    first, second, link = tmp_path / "first", tmp_path / "second", tmp_path / "token"
    first.write_text("one")
    second.write_text("two")
    link.symlink_to(first)
    manager = Manager()
    async with JobnikClient("http://manager", transport=manager, token=link) as client:

        async def request() -> str | None:
            await client.request("GET", "/v1/jobs")
            return manager.received[-1]

        assert await request() == "Bearer one"
        (tmp_path / "next").symlink_to(second)
        (tmp_path / "next").replace(link)
        assert await request() == "Bearer two"
        second.unlink()
        assert await request() == "Bearer two"
        second.write_text("")
        assert await request() == "Bearer two"
        second.write_text("three")
        assert await request() == "Bearer three"


def test_an_invalid_token_is_refused_without_quoting_it(tmp_path: Path) -> None:
    """A line break would end the header, and any other text is a mistake."""
    file = tmp_path / "token"
    for wrong in ("", "two words", "line\nbreak", "é", "\x00", "x\r\nHost: other"):
        with pytest.raises(ConfigurationError, match="must be one word") as caught:
            JobnikClient("http://manager", token=wrong)
        assert not wrong or wrong not in str(caught.value)
    file.write_text("two words")
    with pytest.raises(ConfigurationError, match=f"{file} must be one word"):
        JobnikClient("http://manager", token=file)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        JobnikClient("http://manager", token=tmp_path / "none")
    with pytest.raises(TypeError, match="not bytes") as wrong_type:
        JobnikClient("http://manager", token=SECRET.encode())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert SECRET not in str(wrong_type.value)
    with pytest.raises(ConfigurationError, match="use only one"):
        JobnikClient("http://user:password@manager", token=SECRET)


async def test_producers_send_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without an event loop. A client has its own."""
    with pytest.raises(ConfigurationError, match="Pass the token to the client"):
        Producer(JobnikClient("http://manager"), token=SECRET)
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://manager")
    received: list[str | Path | None] = []

    class Recorded(JobnikClient):
        def __init__(self, base_url: str, *, token: str | Path | None = None) -> None:
            received.append(token)
            super().__init__(base_url, token=token)

    monkeypatch.setattr("jobnik_sdk.producer.producer.JobnikClient", Recorded)
    Producer(token=SECRET)
    SyncProducer(token=SECRET)
    assert received == [SECRET, SECRET]


async def test_refusals_are_typed_errors() -> None:
    """The message is that of the manager. A proxy's refusal, which has no code, remains an unexpected answer."""
    for status, code, kind in ((401, "TOKEN_INVALID", UnauthorizedError), (403, "FORBIDDEN", ForbiddenError)):
        manager = Manager(httpx2.Response(status, json={"code": code, "message": "The token has expired"}))
        async with JobnikClient("http://manager", transport=manager, token=SECRET) as client:
            with pytest.raises(kind, match="The token has expired") as caught:
                await client.request("GET", "/v1/jobs")
        assert (caught.value.status, caught.value.code) == (status, code)
        assert len(manager.received) == 1
        trace = "".join(traceback.format_exception(caught.value))
        assert SECRET not in trace
        assert SECRET not in repr(client.__dict__)
    async with JobnikClient("http://manager", transport=Manager(httpx2.Response(401, text="no"))) as client:
        with pytest.raises(UnexpectedAnswerError):
            await client.request("GET", "/v1/jobs")


def test_settings_hold_the_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the environment or from `.env`, and never in a representation."""
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://manager")
    assert given_token(WorkerSettings()) is None
    monkeypatch.setenv("JOBNIK_TOKEN", f"{SECRET}\n")
    assert given_token(WorkerSettings()) == SECRET
    monkeypatch.delenv("JOBNIK_TOKEN")
    (tmp_path / ".env").write_text(f"JOBNIK_TOKEN={SECRET}\n")
    settings = WorkerSettings()
    assert given_token(settings) == SECRET
    assert SECRET not in f"{settings!r} {settings}"
    monkeypatch.setenv("JOBNIK_TOKEN_FILE", "/run/token")
    with pytest.raises(SettingsError, match="both set"):
        given_token(WorkerSettings())
    (tmp_path / ".env").unlink()
    assert given_token(WorkerSettings()) == Path("/run/token")
    monkeypatch.setenv("JOBNIK_TOKEN", "two words")
    with pytest.raises(SettingsError, match=r"^JOBNIK_TOKEN: it must be one word") as caught:
        WorkerSettings()
    assert "two words" not in str(caught.value)


def test_the_token_reaches_a_handlers_process() -> None:
    """What a context is pickled as has it, and its representation does not."""
    client = JobnikClient("http://manager", token=SECRET)
    assert client.given_token == SECRET
    assert pickle.loads(pickle.dumps(client.given_token)) == SECRET  # noqa: S301 our own
    assert SECRET not in repr(TokenAuth("http://manager", SECRET))
    assert os.environ.get("JOBNIK_TOKEN") is None
