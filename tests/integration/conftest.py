"""Fixtures: one PostgreSQL for the session, a database for each test, and manager processes."""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.store.migrate import migrate
from reference_manager.store.pool import Database

from tests.support.plain_http import NO_CERTIFICATES
from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess

_numbers = count(1)


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder for the PostgreSQL data of one test."""
    with temporary_data_folder(in_memory=True) as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres() -> Generator[EmbeddedPostgres]:
    """One PostgreSQL for all tests, without durability, which matters only in a power failure."""
    with (
        temporary_data_folder(in_memory=True) as folder,
        EmbeddedPostgres(folder, durable=False, settings={"max_connections": "300"}) as server,
    ):
        yield server


async def _execute(server: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _create(server: EmbeddedPostgres, statement: str, name: str) -> str:
    await _execute(server, statement)
    return f"{server.url.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
async def migrated(postgres: EmbeddedPostgres) -> str:
    """The name of a migrated database that tests clone."""
    # Checking the password takes a quarter of the time of a connection, most of it for the iterations of its hash.
    password = urlsplit(postgres.url).password
    await _execute(postgres, f"SET scram_iterations = 1; ALTER ROLE jobnik PASSWORD '{password}'")
    await migrate(await _create(postgres, "CREATE DATABASE migrated", "migrated"))
    return "migrated"


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres, migrated: str) -> str:
    """A migrated, empty database for one test."""
    name = f"test_{next(_numbers)}"
    return await _create(postgres, f"CREATE DATABASE {name} TEMPLATE {migrated} STRATEGY FILE_COPY", name)


@pytest.fixture
async def empty_url(postgres: EmbeddedPostgres) -> str:
    """A database without a schema for one test."""
    name = f"empty_{next(_numbers)}"
    return await _create(postgres, f"CREATE DATABASE {name}", name)


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    """A connection pool like that of a manager in this process."""
    async with Database.connect(database_url, connections=10, acquire_timeout=timedelta(seconds=5)) as opened:
        yield opened


@pytest.fixture
def start_manager(database_url: str) -> Generator[Callable[..., ManagerProcess]]:
    """Start any number of managers on the test's database. All of them stop at the end of the test."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(ManagerProcess("--database-url", database_url, *arguments))


@pytest.fixture(scope="session")
async def shared_database_url(postgres: EmbeddedPostgres, migrated: str) -> str:
    """The database of the managers that all tests of the session share. Each test uses its own stage types."""
    return await _create(postgres, f"CREATE DATABASE shared TEMPLATE {migrated}", "shared")


@pytest.fixture(scope="session")
def manager_url(shared_database_url: str) -> Generator[str]:
    """The address of a manager on the shared database."""
    with ManagerProcess("--database-url", shared_database_url) as manager:
        yield manager.url


@pytest.fixture(scope="session")
def second_manager_url(shared_database_url: str) -> Generator[str]:
    """The address of another manager on the shared database."""
    with ManagerProcess("--database-url", shared_database_url) as manager:
        yield manager.url


@pytest.fixture
async def http(manager_url: str) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of the shared manager."""
    async with httpx2.AsyncClient(base_url=manager_url, timeout=15, verify=NO_CERTIFICATES) as client:
        yield client


@pytest.fixture
def stage_type() -> str:
    """A stage type that no other test uses."""
    return f"type-{next(_numbers)}"
