"""What a request leaves behind when it has been served."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from reference_manager.api.common.disconnects import CLIENT_STATE, Client
from reference_manager.server.admission import Admission
from reference_manager.store.lock_waits import client_is_gone
from starlette.types import Message, Receive, Scope, Send


class _Connection:
    """The server's side of a request, which refers to the task that serves it, as that of uvicorn does."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.client = Client()

    async def receive(self) -> Message:
        return {"type": "http.disconnect"}


@pytest.fixture
def _no_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collections")
async def test_a_request_is_freed_without_a_garbage_collection() -> None:
    """Collections would cost the hot path a tenth of its time."""
    seen: list[bool] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        is_gone = client_is_gone.get()
        assert is_gone is not None
        seen.append(is_gone())
        scope["state"][CLIENT_STATE].disconnect()
        seen.append(is_gone())

    async def send(_message: Message) -> None: ...

    async def serve(connection: _Connection) -> None:
        scope = {"type": "http", "state": {CLIENT_STATE: connection.client}}
        await Admission(app)(scope, connection.receive, send)

    connection = _Connection()
    connection.task = asyncio.create_task(serve(connection))
    await connection.task
    freed = weakref.ref(connection)
    del connection
    await asyncio.sleep(0)
    assert seen == [False, True]
    assert freed() is None
