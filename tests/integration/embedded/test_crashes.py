"""After a crash of any process, nothing keeps running, the next start works, and no data is lost."""

import os
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import psutil
import pytest
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.embedded import cluster as cluster_module


class Owner(Protocol):
    """A process that owns a server, from conftest."""

    def url(self) -> str:
        """Wait until the server is up."""
        ...

    def kill(self) -> None:
        """Kill the process with signal 9."""
        ...


Query = Callable[[str, str], Awaitable[object]]
StartOwner = Callable[[], Owner]
WaitFor = Callable[[Callable[[], bool]], None]


def _postmaster(data_dir: Path) -> psutil.Process:
    return psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))


async def test_the_server_of_a_killed_manager_shuts_down(start_owner: StartOwner, data_dir: Path, query: Query) -> None:
    """After kill -9 of the manager, the server shuts down by itself and no committed row is missing."""
    owner = start_owner()
    await query(owner.url(), "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    postmaster = _postmaster(data_dir)
    owner.kill()
    postmaster.wait(timeout=10)
    with EmbeddedPostgres(data_dir) as server:
        assert await query(server.url, "SELECT count(*) FROM kept") == 1000


async def test_a_manager_starts_while_the_server_of_a_killed_one_still_runs(
    start_owner: StartOwner, query: Query
) -> None:
    """After each of five kills followed by an immediate start, every committed row is there."""
    owner = start_owner()
    await query(owner.url(), "CREATE TABLE kept (life serial)")
    for _ in range(5):
        await query(owner.url(), "INSERT INTO kept DEFAULT VALUES")
        owner.kill()
        owner = start_owner()
    assert await query(owner.url(), "SELECT array_agg(life ORDER BY life) FROM kept") == [1, 2, 3, 4, 5]


async def test_a_server_that_outlived_its_manager_is_replaced(used_dir: Path, query: Query) -> None:
    """Where the kernel does not end child processes (macOS), the next owner ends the old server and starts its own."""
    orphan = EmbeddedPostgres(used_dir)
    orphan.start()
    await query(orphan.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    postmaster = _postmaster(used_dir)
    orphan._folder.unlock()  # pyright: ignore[reportPrivateUsage] - as the kernel does at a kill -9
    with EmbeddedPostgres(used_dir) as server:
        assert _postmaster(used_dir) != postmaster
        assert await query(server.url, "SELECT answer FROM kept") == 42
    orphan.stop()


async def test_a_killed_server_recovers(used_dir: Path, query: Query) -> None:
    """After kill -9 of PostgreSQL itself, the next start replays the log and a committed row is there."""
    server = EmbeddedPostgres(used_dir)
    server.start()
    await query(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    _postmaster(used_dir).kill()
    server.stop()
    server.start()
    try:
        assert await query(server.url, "SELECT answer FROM kept") == 42
    finally:
        server.stop()


def test_an_interrupted_initdb_is_repeated(start_owner: StartOwner, data_dir: Path, wait_for: WaitFor) -> None:
    """After kill -9 during initdb, a later start creates the cluster and removes the remains."""
    owner = start_owner()
    wait_for(lambda: any(data_dir.glob("postgres.new-*/base/1")))
    owner.kill()
    assert not (data_dir / "postgres").exists()
    with EmbeddedPostgres(data_dir) as server:
        assert server.url
    assert not list(data_dir.glob("postgres.new-*"))


def test_late_writes_of_a_killed_initdb_are_removed(tmp_path: Path) -> None:
    """The folder of an interrupted attempt is removed after the last program that writes to it has ended."""
    staging = tmp_path / "postgres.new-1"
    staging.mkdir()
    writes_late = ["/bin/sh", "-c", 'read go; mkdir -p "$0/base"', str(staging)]
    with cluster_module._locked(staging) as lock:  # pyright: ignore[reportPrivateUsage] - as a manager does
        initdb = subprocess.Popen(writes_late, stdin=subprocess.PIPE, pass_fds=[lock])  # noqa: S603 - a shell's line
    starting = threading.Thread(target=cluster_module._discard, args=[staging])  # pyright: ignore[reportPrivateUsage]
    starting.start()
    initdb.communicate(b"go\n")
    starting.join()
    assert not staging.exists()


@pytest.fixture
def unrelated_process(used_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another program of the server's user, with the cluster as its working folder."""
    cluster = used_dir / "postgres"
    user = cluster.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["/bin/sleep", "60"], user=user, cwd=cluster) as process:
        yield process
        process.kill()


def _leave_pid_file(data_dir: Path, pid: int) -> None:
    cluster = data_dir / "postgres"
    (cluster / "postmaster.pid").write_text(f"{pid}\n{cluster}\n1700000000\n5432\n\n127.0.0.1\n 1 1\nready   \n")


async def test_a_pid_file_with_the_pid_of_another_program_is_stale(
    unrelated_process: subprocess.Popen[bytes], used_dir: Path, query: Query
) -> None:
    """The pid was reused by another program, which is left alone, and the server starts."""
    _leave_pid_file(used_dir, unrelated_process.pid)
    with EmbeddedPostgres(used_dir) as server:
        assert await query(server.url, "SELECT 42") == 42
    assert unrelated_process.poll() is None


async def test_a_pid_file_of_a_zombie_or_a_missing_process_is_stale(
    unrelated_process: subprocess.Popen[bytes], used_dir: Path, query: Query
) -> None:
    """Neither a zombie process nor an unused pid prevents the server from starting."""
    unrelated_process.kill()
    _leave_pid_file(used_dir, unrelated_process.pid)
    with EmbeddedPostgres(used_dir) as server:
        assert await query(server.url, "SELECT 42") == 42
    unrelated_process.wait()
    _leave_pid_file(used_dir, unrelated_process.pid)
    with EmbeddedPostgres(used_dir) as server:
        assert await query(server.url, "SELECT 42") == 42


def test_a_truncated_pid_file_is_stale(unrelated_process: subprocess.Popen[bytes], used_dir: Path) -> None:
    """An empty postmaster.pid, as a full disk leaves it, is ignored."""
    assert unrelated_process.poll() is None
    (used_dir / "postgres" / "postmaster.pid").touch()
    with EmbeddedPostgres(used_dir):
        pass
