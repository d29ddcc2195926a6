"""The manager that the contract tests share."""

from collections.abc import Generator

import pytest
from reference_manager.embedded import EmbeddedPostgres

from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess


@pytest.fixture(scope="session")
def manager_url() -> Generator[str]:
    """The address of a manager with its own PostgreSQL."""
    with (
        temporary_data_folder(in_memory=True) as folder,
        EmbeddedPostgres(folder, durable=False) as server,
        ManagerProcess("--database-url", server.url) as manager,
    ):
        yield manager.url
