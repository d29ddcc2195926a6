"""A blocking connection whose requests have a time limit in total, which a synchronous HTTP client does not have."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import httpx2
from typing_extensions import override

from jobnik_sdk.http import responses


class LimitedTransport(httpx2.BaseTransport):
    """Sends each request on an event loop of its own; use and close it in one thread.

    The timeouts of a synchronous client limit each wait for data, so an answer that arrives byte by byte can take
    forever.

    Args:
        limit: How long a request may take, from the connection to the last byte of the response.
        open_client: Opens the client that sends the requests.
    """

    def __init__(self, limit: timedelta, open_client: Callable[[], httpx2.AsyncClient]) -> None:
        self._limit = limit.total_seconds()
        self._open_client = open_client
        self._client: httpx2.AsyncClient | None = None
        self._runner = asyncio.Runner()

    @override
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read its response."""
        return self._runner.run(self._send(request))

    @override
    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._runner.run(self._client.aclose())
        self._runner.close()

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        self._client = self._client or self._open_client()
        sent = httpx2.Request(request.method, request.url, headers=request.headers, content=request.read())
        try:
            async with asyncio.timeout(self._limit):
                response = await responses.send(self._client, sent)
        except TimeoutError:
            message = f"the time limit of {self._limit:g} s has passed"
            raise httpx2.ReadTimeout(message, request=request) from None
        # Without its headers, because the content has been decoded.
        return httpx2.Response(response.status_code, content=response.content)
