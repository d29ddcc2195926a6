"""Tokens over their life, on several managers: who makes them, when they count, and when they no longer do."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest
from reference_manager.access import registry as registry_module
from reference_manager.access.errors import TokenNameTakenError, TokenNotFoundError
from reference_manager.access.principals import Scope
from reference_manager.access.registry import CHANNEL, Registry
from reference_manager.access.secrets import PATTERN, digest, generate_secret
from reference_manager.access.tokens import NewToken, Tokens
from reference_manager.engine.errors import DatabaseUnavailableError
from reference_manager.store.pool import Database

from tests.support.access import bearer, run_manager, run_token_command
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.protocol import Client, branch
from tests.support.sessions import Session
from tools.manager import ManagerProcess

EVERYWHERE = ("--host", "0.0.0.0")  # noqa: S104 - on purpose
ADMIN = frozenset({Scope.ADMIN})
WORKER = frozenset({Scope.WORKER})


@asynccontextmanager
async def client_of(manager: ManagerProcess, secret: str | None = None) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client with a token."""
    url = manager.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - as above
    headers = bearer(secret) if secret else {}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=15, verify=NO_CERTIFICATES) as client:
        yield client


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Wait until a condition holds; the test's timeout is the limit."""
    while not await condition():  # noqa: ASYNC110 - the condition is in another process
        await asyncio.sleep(0.02)


async def status(client: httpx2.AsyncClient, path: str = "/v1/jobs") -> int:
    """Return the status of a request."""
    return (await client.get(path)).status_code


async def test_a_manager_without_tokens_serves_only_its_own_machine(database_url: str) -> None:
    """On any other address, it refuses to start, and its message says what to do."""
    code, output = await run_manager("serve", "--port", "0", "--database-url", database_url, *EVERYWHERE)
    assert code == 2
    for advice in ("no token exists", "token create", "JOBNIK_MANAGER_ADMIN_TOKEN_FILE", "--insecure"):
        assert advice in output


async def test_an_insecure_manager_serves_everyone_until_a_token_exists(
    database_url: str, start_manager: Callable[..., ManagerProcess]
) -> None:
    """It warns at its start. The first token closes it, for ever: also when that is revoked, and after a restart."""
    manager = start_manager(*EVERYWHERE, "--insecure")
    (warning,) = [json.loads(line) for line in manager.log.splitlines() if '"manager is open"' in line]
    assert (warning["level"], warning["address"]) == ("warning", EVERYWHERE[1])
    async with client_of(manager) as client:
        assert await status(client) == 200
        token = await run_token_command(database_url, "create", "--name", "first", "--scope", "viewer")

        async def is_closed() -> bool:
            return await status(client) == 401

        await until(is_closed)
        await run_token_command(database_url, "revoke", "first")
        async with client_of(manager, token["token"]) as revoked:

            async def is_revoked() -> bool:
                return await status(revoked) == 401

            await until(is_revoked)
        assert await status(client) == 401
    again = start_manager()
    assert '"access": "tokens"' in again.log
    assert '"no valid admin token"' in again.log
    async with client_of(again) as client:
        assert await status(client) == 401


async def test_the_given_admin_token_is_created_once(
    database_url: str, start_manager: Callable[..., ManagerProcess], connection: Session, tmp_path: Path
) -> None:
    """Managers that start at once share it. If it was revoked, it stays so."""
    secret = generate_secret()
    file = tmp_path / "token"
    file.write_text(f"{secret}\n")
    start = (start_manager, *EVERYWHERE, "--admin-token-file", str(file))
    managers = await asyncio.gather(*(asyncio.to_thread(*start) for _ in range(2)))
    rows = await connection.fetch("SELECT name, scopes, created_by, digest FROM tokens")
    name = f"admin-{digest(secret.encode()).hex()[:8]}"
    expected = (name, ["admin"], "JOBNIK_MANAGER_ADMIN_TOKEN_FILE", digest(secret.encode()))
    assert [tuple(row) for row in rows] == [expected]
    for manager in managers:
        async with client_of(manager, secret) as client:
            assert await status(client) == 200
    await run_token_command(database_url, "revoke", name)
    again = start_manager(*EVERYWHERE, "--admin-token-file", file)
    assert '"the given admin token was revoked; it stays so"' in again.log
    async with client_of(again, secret) as client:
        assert await status(client) == 401
    assert await connection.fetchval("SELECT count(*) FROM tokens") == 1
    assert secret not in "".join(manager.log for manager in (*managers, again))


@pytest.mark.parametrize("content", ["", "jobnik_abc", None])
async def test_an_invalid_token_file_is_refused(database_url: str, tmp_path: Path, content: str | None) -> None:
    """The message names the setting and the file, and does not quote the content."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    arguments = ("serve", "--port", "0", "--database-url", database_url, "--admin-token-file", file)
    code, output = await run_manager(*arguments)
    assert code == 2
    assert "--admin-token-file or JOBNIK_MANAGER_ADMIN_TOKEN_FILE: " in output
    assert str(file) in output
    assert "jobnik_abc" not in output


async def test_a_change_counts_on_every_manager(
    database_url: str, start_manager: Callable[..., ManagerProcess]
) -> None:
    """A new token is accepted by every manager at once. A rotated one has two secrets for a while."""
    managers = [start_manager(), start_manager()]
    await run_token_command(database_url, "create", "--name", "admin", "--scope", "admin")
    created = await run_token_command(
        database_url, "create", "--name", "w", "--scope", "worker", "--stage-type", "a", "--expires-in", "P1D"
    )
    assert re.fullmatch(PATTERN, created["token"])
    assert (created["scopes"], created["stageTypes"], created["jobNames"]) == (["worker"], ["a"], None)
    for manager in managers:
        async with client_of(manager, created["token"]) as client:
            assert await status(client) == 200

    rotated = await run_token_command(database_url, "rotate", "w", "--overlap", "PT1H")
    assert rotated["id"] == created["id"]
    for secret in (rotated["token"], created["token"]):
        for manager in managers:
            async with client_of(manager, secret) as client:
                assert await status(client) == 200
    again = await run_token_command(database_url, "rotate", created["id"], "--overlap", "PT0S")
    refused = (created["token"], rotated["token"])
    for secret in refused:
        for manager in managers:
            async with client_of(manager, secret) as client:

                async def is_refused(client: httpx2.AsyncClient = client) -> bool:
                    return await status(client) == 401

                await until(is_refused)
    async with client_of(managers[1], again["token"]) as client:
        assert await status(client) == 200
    listed = {token["name"]: token for token in await run_token_command(database_url, "list")}
    assert listed["w"]["rotatedAt"] is not None
    assert listed["w"]["previousExpiresAt"] is None
    assert "token" not in listed["w"]
    assert not any(secret in manager.log for manager in managers for secret in (*refused, again["token"]))


async def test_a_command_says_what_is_wrong(database_url: str) -> None:
    """The exit code is 2 for invalid arguments, and 1 if the database says no."""
    database = ("--database-url", database_url)
    create = ("token", "create", "--name", "a", "--scope", "viewer", *database)
    assert (await run_manager(*create))[0] == 0
    for arguments, code, message in (
        (create, 1, "Another token has the name 'a'"),
        ((*create, "--stage-type", "x"), 2, "stage types limit the scope worker"),
        ((*create, "--expires-in", "soon"), 2, "must be a duration"),
        ((*create, "--scope", "root"), 2, "invalid choice"),
        (("token", "revoke", "none", *database), 1, "There is no such token"),
        (("token", "rotate", "none", *database), 1, "There is no such token"),
    ):
        ended, output = await run_manager(*arguments)
        assert (ended, message in output) == (code, True), output
    ended, output = await run_manager("token", "list", *database)
    assert (ended, len(output.splitlines())) == (0, 2)
    ended, output = await run_manager("token", "generate")
    assert (ended, bool(re.fullmatch(PATTERN, output.strip()))) == (0, True)


async def test_a_command_finds_the_embedded_database(open_folder: Path) -> None:
    """While a manager runs it, and while none does."""
    create = ("token", "create", "--scope", "admin", "--data-dir", open_folder, "--name")
    with ManagerProcess("--data-dir", open_folder) as manager:
        async with client_of(manager) as client:
            assert await status(client) == 200
            code, output = await run_manager(*create, "first")
            assert code == 0
            (secret,) = re.findall(PATTERN, output)

            async def is_closed() -> bool:
                return await status(client) == 401

            await until(is_closed)
        async with client_of(manager, secret) as client:
            assert await status(client) == 200
    assert (await run_manager(*create, "first"))[0] == 1
    assert (await run_manager(*create, "second"))[0] == 0


async def test_one_connection_may_carry_several_tokens(
    database_url: str, start_manager: Callable[..., ManagerProcess]
) -> None:
    """Each of its requests is judged by its own token, also if they are sent before the first answer."""
    viewer, worker = [
        (await run_token_command(database_url, "create", "--name", scope, "--scope", scope))["token"]
        for scope in ("viewer", "worker")
    ]
    url = urlsplit(start_manager().url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    claim = "PATCH /v1/stages/one/tasks/dequeue HTTP/1.1\r\nHost: x\r\n{}\r\n"
    header = "Authorization: Bearer {}\r\n"
    works, views = header.format(worker), header.format(viewer)
    writer.write("".join(claim.format(given) for given in (works, views, "", works, 2 * works)).encode())
    statuses: list[int] = []
    for _ in range(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        statuses.append(int(head.split(" ")[1]))
        await reader.readexactly(int(re.findall(r"content-length: (\d+)", head)[0]))
    assert statuses == [404, 403, 401, 404, 400]

    # The body of a request without a valid token is not awaited.
    writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    assert b" 401 " in await reader.readuntil(b"\r\n")
    writer.close()


async def test_a_waiting_claim_of_a_revoked_token_gets_no_task(
    database_url: str, start_manager: Callable[..., ManagerProcess]
) -> None:
    """Its task is released without an attempt, and goes to another worker. Other waiting claims are not disturbed."""
    admin, revoked, kept = [
        (await run_token_command(database_url, "create", "--name", name, "--scope", scope))["token"]
        for name, scope in (("admin", "admin"), ("revoked", "worker"), ("kept", "worker"))
    ]
    manager = start_manager()
    body = {"workerId": "w", "waitSeconds": 20}
    async with client_of(manager, admin) as http, client_of(manager, revoked) as one, client_of(manager, kept) as two:
        waiting = asyncio.create_task(one.post("/v1/stages/held/tasks/claim", json=body))
        undisturbed = asyncio.create_task(two.post("/v1/stages/free/tasks/claim", json=body))

        async def both_wait() -> bool:
            return "jobnik_manager_claims_waiting 2.0" in (await http.get("/metrics")).text

        await until(both_wait)
        await run_token_command(database_url, "revoke", "revoked")
        async with client_of(manager, revoked) as again:

            async def is_refused() -> bool:
                return await status(again) == 401

            await until(is_refused)
        await Client(http).job(stages=[branch("held", 1)])
        await Client(http).job(stages=[branch("free", 1)])
        refused = await waiting
        assert (refused.status_code, refused.json()["code"]) == (401, "TOKEN_INVALID")
        assert len((await undisturbed).json()["tasks"]) == 1
        (task,) = (await two.post("/v1/stages/held/tasks/claim", json=body)).json()["tasks"]
        assert task["attempts"] == 0


async def test_part_a_alone_has_the_same_access(
    database_url: str, start_manager: Callable[..., ManagerProcess]
) -> None:
    """The format of errors is that of the protocol, and features are unknown without a token."""
    viewer = (await run_token_command(database_url, "create", "--name", "v", "--scope", "viewer"))["token"]
    manager = start_manager("--part-a-only", "--metrics-open")
    async with client_of(manager) as stranger, client_of(manager, viewer) as http:
        refused = await stranger.get("/v1/jobs")
        assert (refused.status_code, refused.json()["code"]) == (401, "TOKEN_REQUIRED")
        assert refused.json().keys() == {"message", "code"}
        assert (await stranger.get("/v1/capabilities")).status_code == 401
        assert (await stranger.get("/metrics")).status_code == 200
        forbidden = await http.post("/v1/jobs", json={"name": "a job", "data": {}})
        assert (forbidden.status_code, forbidden.json()["code"]) == (403, "FORBIDDEN")
        assert await status(http) == 200


@asynccontextmanager
async def running(registry: Registry) -> AsyncGenerator[None]:
    """Run a registry that gets no notifications."""
    task = asyncio.create_task(registry.run(lambda: None))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_lost_notification_only_takes_longer(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next poll finds the change."""
    monkeypatch.setattr(registry_module, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr(registry_module, "UNKNOWN_INTERVAL", 0.02)
    tokens, registry = Tokens(database), Registry(database)
    issued = await tokens.create(NewToken("a", ADMIN), "test")
    await registry.load()
    hashed = digest(issued.secret.encode())
    principal = registry.find(hashed)
    assert principal is not None
    async with running(registry):
        await tokens.revoke(json.loads(issued.token)["id"])
        while registry.find(hashed) is not None:  # noqa: ASYNC110 - the poll has no signal
            await asyncio.sleep(0.01)
    assert principal.ended
    assert registry.closed


async def test_a_change_notifies_all_managers(database: Database) -> None:
    """Within the same transaction."""
    notified = asyncio.Event()
    async with database.listener(CHANNEL, lambda *_: notified.set()):
        await Tokens(database).create(NewToken("a", ADMIN), "test")
        await notified.wait()


async def test_unknown_tokens_cause_at_most_one_poll_each_second(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are. A token that was created before the request is found."""
    registry = Registry(database)
    await registry.load()
    polls = 0
    load = registry.load

    async def count() -> None:
        nonlocal polls
        polls += 1
        await load()

    monkeypatch.setattr(registry, "load", count)
    async with running(registry):
        assert await asyncio.gather(*(registry.find_unknown(b"%d" % number) for number in range(500))) == [None] * 500
        issued = await Tokens(database).create(NewToken("a", ADMIN), "test")
        found = await registry.find_unknown(digest(issued.secret.encode()))
    assert found is not None
    assert found.name == "a"
    assert polls <= 3


async def test_the_last_known_tokens_survive_the_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown tokens cannot be checked meanwhile: neither accepted nor called wrong."""
    registry = Registry(database)
    issued = await Tokens(database).create(NewToken("a", ADMIN), "test")
    await registry.load()

    def fail(**_options: object) -> AbstractAsyncContextManager[Any]:
        raise DatabaseUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(database, "connection", fail)
        async with running(registry):
            with pytest.raises(DatabaseUnavailableError):
                await registry.find_unknown(b"unknown")
        assert registry.find(digest(issued.secret.encode())) is not None
        assert registry.closed
    async with running(registry):
        assert await registry.find_unknown(b"unknown") is None


async def test_the_clock_of_the_database_decides_about_expiry(
    database: Database, connection: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A jump of the manager's own clock changes nothing; between polls, the monotonic clock continues it."""
    tokens, registry = Tokens(database), Registry(database)
    issued = await tokens.create(NewToken("a", ADMIN, lifetime=timedelta(hours=1)), "test")
    hashed = digest(issued.secret.encode())
    await registry.load()
    monkeypatch.setattr("time.time", lambda: 10e9)
    assert registry.find(hashed) is not None
    later = monotonic() + 3601
    with monkeypatch.context() as patch:
        patch.setattr(registry_module, "monotonic", lambda: later)
        assert registry.find(hashed) is None
        assert registry.is_known(hashed)
        assert not registry.has_admin()
    assert registry.find(hashed) is not None
    await connection.execute("UPDATE tokens SET expires_at = now(); UPDATE access_state SET version = version + 1")
    await registry.load()
    assert registry.find(hashed) is None


async def test_a_rotation_renews_the_lifetime(database: Database, connection: Session) -> None:
    """The previous secret does not live longer than before."""
    tokens = Tokens(database)
    issued = await tokens.create(NewToken("a", ADMIN, lifetime=timedelta(hours=2)), "test")
    token_id = json.loads(issued.token)["id"]
    await connection.execute(
        "UPDATE tokens SET created_at = now() - interval '90 minutes', expires_at = now() + interval '30 minutes'"
    )
    await tokens.rotate(token_id, timedelta(hours=1))
    row = await connection.fetchrow("SELECT expires_at - rotated_at, previous_expires_at - rotated_at FROM tokens")
    assert row is not None
    assert timedelta(minutes=119) < row[0] < timedelta(minutes=121)
    assert timedelta(minutes=29) < row[1] < timedelta(minutes=31)
    await tokens.revoke(token_id)
    with pytest.raises(TokenNotFoundError):
        await tokens.rotate(token_id, timedelta())
    first = json.loads(await tokens.revoke(token_id))
    assert first == json.loads(await tokens.revoke(token_id))
    with pytest.raises(TokenNotFoundError):
        await tokens.find("a")
    await tokens.create(NewToken("a", WORKER), "test")
    with pytest.raises(TokenNameTakenError):
        await tokens.create(NewToken("a", WORKER), "test")


async def test_unknown_tokens_do_not_close_a_manager(database: Database) -> None:
    """Rotating or revoking a token that does not exist would otherwise lock everyone out."""
    tokens, registry = Tokens(database), Registry(database)
    with pytest.raises(TokenNotFoundError):
        await tokens.rotate(uuid4(), timedelta())
    with pytest.raises(TokenNotFoundError):
        await tokens.revoke(uuid4())
    await registry.load()
    assert not registry.closed


async def test_use_is_recorded_now_and_then(database: Database, connection: Session) -> None:
    """At most once a minute, however many managers there are, and without changing the version."""
    registry = Registry(database)
    issued = await Tokens(database).create(NewToken("a", ADMIN), "test")
    await registry.load()
    assert registry.find(digest(issued.secret.encode())) is not None
    record: Any = getattr(registry, "_record_use")  # noqa: B009 - not a part of its interface
    await record()
    used = await connection.fetchval("SELECT last_used_at FROM tokens")
    assert used is not None
    assert registry.find(digest(issued.secret.encode())) is not None
    await record()
    assert await connection.fetchval("SELECT last_used_at FROM tokens") == used
    assert await connection.fetchval("SELECT version FROM access_state") == 1
