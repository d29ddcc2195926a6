"""Responses of limited size: an answer without end must not fill the memory of its reader."""

from contextlib import aclosing
from datetime import timedelta
from typing import Final

import httpx2

from jobnik_sdk.errors import AnswerError, answer_error

MAX_SIZE: Final = 256 * 1024 * 1024
"""Bytes of a response after decompression.

It is four times the largest body that a manager can be set up to accept, because a claimed task comes with its own
data, the data of its stage and of its job, and its checkpoint. A claim of several tasks has 16 MiB of them, and a page
of a list 1 MiB. Only a list of a manager without pages can be larger.
"""


async def send(http: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Response:
    """Send a request and read its response.

    Raises:
        AnswerError: the response is too large.
        httpx2.HTTPError: as the client raises it.
    """
    streamed = await http.send(request, stream=True)
    try:
        content = await _read(streamed)
    finally:
        await streamed.aclose()
    # Without the header that would have the content decompressed again.
    headers = [(name, value) for name, value in streamed.headers.raw if name.lower() != b"content-encoding"]
    response = httpx2.Response(
        streamed.status_code, headers=headers, content=content, request=request, extensions=streamed.extensions
    )
    response.next_request = streamed.next_request
    return response


async def _read(response: httpx2.Response) -> bytes:
    content = bytearray()
    async with aclosing(response.aiter_bytes()) as parts:
        async for part in parts:
            content += part
            if len(content) > MAX_SIZE:
                raise _too_large(response)
    return bytes(content)


def _too_large(response: httpx2.Response) -> AnswerError:
    request = response.request
    message = f"The response to {request.method} {request.url} is larger than {MAX_SIZE / 2**20:g} MiB."
    return answer_error(message, status=response.status_code, code=None, retry_after=timedelta())
