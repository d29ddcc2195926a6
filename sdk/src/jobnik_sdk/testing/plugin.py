"""Fixtures for pytest, which finds them automatically once `jobnik-sdk[testing]` is installed.

| fixture | scope | value |
|---|---|---|
| `jobnik_manager` | session | the address of a real manager, which starts with the first test that uses it |
| `fake_manager` | test | an empty manager in memory, a `FakeManager` |
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from jobnik_sdk.testing import FakeManager


@pytest.fixture(scope="session")
def jobnik_manager() -> Iterator[str]:
    """The address of a manager with its own PostgreSQL, shared by the tests of the session."""
    # Imported here and below, so that a test session without these fixtures does not load the modules.
    from jobnik_sdk.testing.process import running_manager  # noqa: PLC0415

    with running_manager() as url:
        yield url


@pytest.fixture
def fake_manager() -> "FakeManager":
    """An empty manager in memory."""
    from jobnik_sdk.testing import FakeManager  # noqa: PLC0415

    return FakeManager()
