"""A SyncProducer that the tests of a Producer can use."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Any

from jobnik_sdk import JobnikClient, SyncProducer

_END = object()


class AwaitedProducer:
    """Calls the methods of a SyncProducer in other threads. Its own methods are those of a Producer."""

    def __init__(self, client: JobnikClient) -> None:
        self._producer = SyncProducer(client)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 any method
        method = getattr(self._producer, name)
        return partial(_iterate if name.startswith(("list_", "watch_")) else asyncio.to_thread, method)


async def _iterate(method: Callable[..., Generator[Any]], *arguments: Any, **options: Any) -> AsyncGenerator[Any]:  # noqa: ANN401 passed on
    iterator = method(*arguments, **options)
    try:
        while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
            yield item
    finally:
        await asyncio.to_thread(iterator.close)
