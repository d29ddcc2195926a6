"""Fixtures for the tests of the manager."""

from collections.abc import AsyncGenerator, Callable

import httpx2
import pytest

from tests.support.plain_http import NO_CERTIFICATES
from tests.support.protocol import Client
from tests.support.sessions import Session, session
from tools.manager import ManagerProcess


@pytest.fixture
def client(http: httpx2.AsyncClient) -> Client:
    """Short calls of the protocol on the shared manager."""
    return Client(http)


@pytest.fixture
def two_urls(manager_url: str, second_manager_url: str) -> tuple[str, str]:
    """The addresses of two managers on one database, which all tests share."""
    return manager_url, second_manager_url


@pytest.fixture
async def http_of_own(start_manager: Callable[..., ManagerProcess]) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a manager on the test's own database."""
    async with httpx2.AsyncClient(base_url=start_manager().url, timeout=15, verify=NO_CERTIFICATES) as client:
        yield client


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Session]:
    """A connection to the test's own database."""
    async with session(database_url) as opened:
        yield opened


@pytest.fixture
async def other(database_url: str) -> AsyncGenerator[Session]:
    """A second connection, which competes with the first or with those of the manager."""
    async with session(database_url) as opened:
        yield opened
