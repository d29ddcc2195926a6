"""Work for a client that may disconnect."""

import asyncio

import pytest
from reference_manager.api.common.disconnects import Client


async def test_a_client_gets_the_result() -> None:
    """Once it has been sent, a disconnect does not concern it."""
    client, undone = Client(), list[str]()
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client.wait_for(work, undone.append))
    await asyncio.sleep(0)
    work.set_result("done")
    assert await waiting == "done"
    client.sent()
    client.disconnect()
    assert client.is_gone()
    assert undone == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_work_is_cancelled_when_the_client_disconnects(when: str) -> None:
    """Also if the client disconnected before the work started."""
    client, undone = Client(), list[str]()
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    if when == "before":
        client.disconnect()
    waiting = asyncio.create_task(client.wait_for(work, undone.append))
    await asyncio.sleep(0)
    client.disconnect()
    assert await waiting is None
    assert work.cancelled()


async def test_a_cancelled_request_stays_cancelled() -> None:
    """It differs from one whose client has disconnected."""
    client, undone = Client(), list[str]()
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client.wait_for(work, undone.append))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not client.is_gone()
    assert work.cancelled()


@pytest.mark.parametrize("moment", ["before the request goes on", "before the response is sent"])
async def test_work_is_undone_if_its_result_cannot_be_sent(moment: str) -> None:
    """The client disconnects after the work has ended."""
    client, undone = Client(), list[str]()
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client.wait_for(work, undone.append))
    await asyncio.sleep(0)
    work.set_result("done")
    if moment == "before the request goes on":
        client.disconnect()
        assert await waiting is None
    else:
        assert await waiting == "done"
        assert undone == []
        client.disconnect()
    assert undone == ["done"]
    client.disconnect()
    assert undone == ["done"]


async def test_work_is_undone_if_its_request_is_cancelled() -> None:
    """Such as at the deadline of a stop, in the moment in which the work has ended."""
    client, undone = Client(), list[str]()
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client.wait_for(work, undone.append))
    await asyncio.sleep(0)
    work.set_result("done")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert undone == ["done"]
