"""Starting and stopping the server, and its configuration."""

import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from reference_manager.embedded import EmbeddedPostgres, EmbeddedPostgresError
from reference_manager.embedded import server as server_module

Query = Callable[[str, str], Awaitable[object]]


@pytest.fixture(scope="module")
def running(shared_data_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A durable server, as the manager starts it, for read-only tests."""
    with EmbeddedPostgres(shared_data_dir) as server:
        yield server


async def test_data_survives_a_restart(data_dir: Path, query: Query) -> None:
    """Data written before a stop is there after the next start."""
    with EmbeddedPostgres(data_dir) as server:
        await query(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with EmbeddedPostgres(data_dir) as server:
        assert await query(server.url, "SELECT answer FROM kept") == 42


async def test_the_cluster_is_durable_and_private(running: EmbeddedPostgres, query: Query) -> None:
    """The cluster has durability, checksums, UTF-8 and scram, and listens on loopback only."""
    expected = {
        "data_checksums": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "server_encoding": "UTF8",
        "password_encryption": "scram-sha-256",
        "TimeZone": "UTC",
    }
    assert {name: await query(running.url, f"SHOW {name}") for name in expected} == expected


async def test_the_collation_is_the_same_on_every_machine(running: EmbeddedPostgres, query: Query) -> None:
    """Indexes on text do not depend on the operating system's locales."""
    collation = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
    assert await query(running.url, collation) == "C"


async def test_the_database_requires_the_password(running: EmbeddedPostgres, query: Query) -> None:
    """Another user of this machine, who can reach the port, is refused."""
    parts = urlsplit(running.url)
    guessed = urlunsplit(parts._replace(netloc=f"jobnik:guess@127.0.0.1:{parts.port}"))
    with pytest.raises(asyncpg.InvalidPasswordError):
        await query(guessed, "SELECT 1")


def test_only_the_owner_can_read_the_password(running: EmbeddedPostgres, shared_data_dir: Path) -> None:
    """The mode of the password file is 0600, and the URL contains the password."""
    file = shared_data_dir / "postgres.password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert urlsplit(running.url).password == file.read_text().strip()


async def test_a_test_database_is_not_durable(used_dir: Path, query: Query) -> None:
    """`durable=False` switches fsync off, and the caller's settings override the defaults."""
    with EmbeddedPostgres(used_dir, durable=False, settings={"max_connections": "33"}) as server:
        assert await query(server.url, "SHOW fsync") == "off"
        assert await query(server.url, "SHOW max_connections") == "33"


def test_start_and_stop_are_idempotent(used_dir: Path) -> None:
    """A second call changes nothing, and a stopped server has no URL."""
    server = EmbeddedPostgres(used_dir)
    server.start()
    url = server.url
    server.start()
    assert server.url == url
    server.stop()
    server.stop()
    with pytest.raises(EmbeddedPostgresError, match="not running"):
        _ = server.url


def test_a_stop_removes_the_pid_file(used_dir: Path) -> None:
    """After a stop, the folder is free for the next owner."""
    with EmbeddedPostgres(used_dir) as server:
        assert server.log_file.exists()
    assert not (used_dir / "postgres" / "postmaster.pid").exists()


def test_a_port_taken_by_another_program_is_replaced(
    used_dir: Path, running: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another program takes the free port before the server does, the server uses another port."""
    taken = urlsplit(running.url).port
    ports = [taken, server_module._free_port()]  # pyright: ignore[reportPrivateUsage] - the real one
    monkeypatch.setattr(server_module, "_free_port", lambda: ports.pop(0))
    with EmbeddedPostgres(used_dir, durable=False) as server:
        assert urlsplit(server.url).port != taken
    assert ports == []
