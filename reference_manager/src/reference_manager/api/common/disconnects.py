"""Work that ends when the client that asked for it disconnects."""

import asyncio
from typing import Any, TypeVar

from starlette.types import Receive

Answer = TypeVar("Answer")


async def while_connected(receive: Receive, future: asyncio.Future[Answer]) -> Answer | None:
    """Return the result of a future. If the client disconnects first, cancel the future and return None.

    Args:
        receive: Returns the next message from the client. The rest of its body, if any, is discarded.
        future: The work.
    """
    watcher = asyncio.create_task(_cancel_on_disconnect(receive, future))
    try:
        return await future
    except asyncio.CancelledError:
        if watcher.done():
            return None
        raise
    finally:
        watcher.cancel()


async def _cancel_on_disconnect(receive: Receive, future: asyncio.Future[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    future.cancel()
