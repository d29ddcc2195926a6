"""Work for a client that may disconnect."""

import asyncio

import pytest
from reference_manager.api.common.disconnects import Client


async def test_a_client_gets_the_result() -> None:
    """Later disconnects do not concern finished work."""
    client = Client()
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client.wait_for(work))
    await asyncio.sleep(0)
    work.set_result("done")
    assert await waiting == "done"
    client.disconnect()
    assert client.is_gone()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_work_is_cancelled_when_the_client_disconnects(when: str) -> None:
    """Also if the client disconnected before the work started."""
    client = Client()
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    if when == "before":
        client.disconnect()
    waiting = asyncio.create_task(client.wait_for(work))
    await asyncio.sleep(0)
    client.disconnect()
    assert await waiting is None
    assert work.cancelled()


async def test_a_cancelled_request_stays_cancelled() -> None:
    """It differs from one whose client has disconnected."""
    client = Client()
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client.wait_for(work))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not client.is_gone()
    assert work.cancelled()
