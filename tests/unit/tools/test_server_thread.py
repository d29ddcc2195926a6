"""A server in a thread, which either listens or raises."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override

from tools.server_thread import ServerThread


class Broken(ServerThread):
    """A server that cannot listen."""

    @override
    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[None]:
        """Fail."""
        raise OSError("address already in use")
        yield


def test_a_server_that_cannot_listen_is_an_error() -> None:
    """The caller gets the error, and does not wait."""
    with pytest.raises(RuntimeError, match="Broken did not start") as caught:
        Broken().__enter__()
    assert str(caught.value.__cause__) == "address already in use"
