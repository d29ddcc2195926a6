"""What the tests of the manager share."""

import httpx2
import pytest

from tests.support.protocol import Client


@pytest.fixture
def client(http: httpx2.AsyncClient) -> Client:
    """The protocol in few words, on the shared manager."""
    return Client(http)
