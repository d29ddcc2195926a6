"""Fixtures for the embedded PostgreSQL: a data folder, a process that owns one, and a query."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from reference_manager.embedded import EmbeddedPostgres

from tools.data_folder import temporary_data_folder

_OWNER = Path(__file__).with_name("owner.py")


class Owner:
    """A process that runs an embedded PostgreSQL, for tests that kill it."""

    def __init__(self, data_dir: Path, *user: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, str(_OWNER), str(data_dir), *user],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._url = ""

    def url(self) -> str:
        """Wait until the server is up, and return its URL."""
        assert self.process.stdout is not None
        self._url = self._url or self.process.stdout.readline().strip()
        if not self._url:
            _, errors = self.process.communicate()
            pytest.fail(f"the owner did not start its server:\n{errors}")
        return self._url

    def kill(self) -> None:
        """End the process with kill -9, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> int:
        """Let the process stop its server, and return the exit code."""
        if self.process.poll() is None:
            self.process.communicate()
        return self.process.wait()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder for one test."""
    with temporary_data_folder(in_memory=True) as folder:
        yield folder


@pytest.fixture(scope="session")
def first_cluster() -> Iterator[Path]:
    """A data folder in which a server has run once; no other server is started there."""
    with temporary_data_folder(in_memory=True) as folder:
        with EmbeddedPostgres(folder, durable=False):
            pass
        yield folder


@pytest.fixture
def used_dir(first_cluster: Path, data_dir: Path) -> Path:
    """A data folder for one test in which a server has run before; copying one is much faster than initdb."""
    subprocess.run(["cp", "-a", str(first_cluster), str(data_dir)], check=True)  # noqa: S603, S607 - it keeps the owners
    return data_dir


@pytest.fixture(scope="module")
def shared_data_dir() -> Iterator[Path]:
    """A data folder that the read-only tests of a file share."""
    with temporary_data_folder(in_memory=True) as folder:
        yield folder


@pytest.fixture
def start_owner(data_dir: Path) -> Iterator[Callable[..., Owner]]:
    """Start processes that own `data_dir`; processes still alive at the end are stopped."""
    owners: list[Owner] = []

    def start(*user: str) -> Owner:
        owners.append(Owner(data_dir, *user))
        return owners[-1]

    yield start
    for owner in owners:
        owner.stop()


@pytest.fixture
def query() -> Callable[..., object]:
    """Run a statement on a database and return its single value."""

    async def ask(url: str, statement: str) -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return ask


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds that no event announces."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it did not happen within 10 s"
            time.sleep(0.001)

    return wait
