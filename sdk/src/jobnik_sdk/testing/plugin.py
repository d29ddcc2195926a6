"""Fixtures for pytest, which finds them by itself once `jobnik-sdk[testing]` is installed.

| fixture | scope | what it is |
|---|---|---|
| `jobnik_manager` | session | the address of a real manager, which starts with the first test that wants it |
| `fake_manager` | test | a manager in memory: see `FakeManager` |
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from jobnik_sdk.testing import FakeManager


@pytest.fixture(scope="session")
def jobnik_manager() -> Iterator[str]:
    """The address of a manager that the session's tests share, on a PostgreSQL of its own."""
    # Here and below: a session of tests that has no use for it does not load it.
    from jobnik_sdk.testing.process import running_manager  # noqa: PLC0415

    with running_manager() as url:
        yield url


@pytest.fixture
def fake_manager() -> "FakeManager":
    """A manager in memory, which has seen nothing yet."""
    from jobnik_sdk.testing import FakeManager  # noqa: PLC0415

    return FakeManager()
