"""Transports with faults, between a client and any manager."""

import httpx2
from typing_extensions import override


class PassThroughTransport(httpx2.AsyncBaseTransport, httpx2.BaseTransport):
    """Passes all requests on, to another transport or to the network."""

    def __init__(self, inner: httpx2.AsyncBaseTransport | None) -> None:
        self._inner = inner or httpx2.AsyncHTTPTransport()
        self._blocking = inner if isinstance(inner, httpx2.BaseTransport) else httpx2.HTTPTransport()

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._inner.handle_async_request(request)

    @override
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return self._blocking.handle_request(request)

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()

    @override
    def close(self) -> None:
        self._blocking.close()


class LossyTransport(PassThroughTransport):
    """Loses the first answer to a request with this method and this end of its path. Requests are not lost."""

    def __init__(self, inner: httpx2.AsyncBaseTransport | None, method: str, ending: str) -> None:
        super().__init__(inner)
        self._method = method
        self._ending = ending
        self.lost = 0

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if (request.method, self.lost) == (self._method, 0) and request.url.path.endswith(self._ending):
            self.lost += 1
            await response.aread()
            raise httpx2.ReadError("the answer was lost")
        return response


class CutTransport(PassThroughTransport):
    """Lets no heartbeat through while `cut` is True."""

    cut = False

    @override
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.cut and request.url.path.endswith("/heartbeat"):
            raise httpx2.ConnectError("the connection is cut")
        return super().handle_request(request)
