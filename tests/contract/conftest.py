"""One manager for the session, and how long it is tried."""

from collections.abc import Generator

import pytest
from hypothesis import settings
from reference_manager.embedded import EmbeddedPostgres

from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess

# By default the examples are few and the same at every run. Others each time, and many:
# pytest tests/contract --hypothesis-profile=long --timeout=1800
settings.register_profile("long", max_examples=500)


@pytest.fixture(scope="session")
def manager_url() -> Generator[str]:
    """The address of a manager with a PostgreSQL of its own."""
    with (
        temporary_data_folder() as folder,
        EmbeddedPostgres(folder, durable=False) as server,
        ManagerProcess("--database-url", server.url) as manager,
    ):
        yield manager.url
