"""The manager that the contract tests share, and the Hypothesis profile."""

from collections.abc import Generator

import pytest
from hypothesis import settings
from reference_manager.embedded import EmbeddedPostgres

from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess

# By default, the tests try few examples, the same ones in every run. To try many different examples:
# pytest tests/contract --hypothesis-profile=long --timeout=1800
settings.register_profile("long", max_examples=500)


@pytest.fixture(scope="session")
def manager_url() -> Generator[str]:
    """The address of a manager with its own PostgreSQL."""
    with (
        temporary_data_folder(in_memory=True) as folder,
        EmbeddedPostgres(folder, durable=False) as server,
        ManagerProcess("--database-url", server.url) as manager,
    ):
        yield manager.url
