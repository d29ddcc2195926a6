"""The manager that the contract tests share."""

from collections.abc import Generator

import pytest
from reference_manager.embedded import EmbeddedPostgres

from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess


@pytest.fixture(scope="session")
def database_url() -> Generator[str]:
    """A database for the session."""
    with temporary_data_folder(in_memory=True) as folder, EmbeddedPostgres(folder, durable=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def manager_url(database_url: str) -> Generator[str]:
    """The address of a manager on that database."""
    with ManagerProcess("--database-url", database_url) as manager:
        yield manager.url
