"""How a client finds out which features its manager supports."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx2
import pytest
from jobnik_sdk import AnswerError, ManagerFailureError
from jobnik_sdk.http import client

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

Refuse = Callable[[int, str], httpx2.Response]


async def test_the_client_asks_once(wire: "Wire") -> None:
    """The answer is kept for later calls."""
    wire.will_answer(httpx2.Response(200, json={"protocol": "1", "features": ["job-tree", "leases"]}))
    assert await wire.client.capabilities() == {"job-tree", "leases"}
    assert await wire.client.capabilities() == {"job-tree", "leases"}
    assert wire.sent == ["GET /v1/capabilities"]


async def test_a_manager_with_only_part_a_has_no_features(wire: "Wire", refusal: Refuse) -> None:
    """A manager without the endpoint has only part A of the protocol."""
    wire.will_answer(refusal(404, "NOT_FOUND"))
    assert await wire.client.capabilities() == frozenset()
    assert await wire.client.capabilities() == frozenset()


@pytest.mark.parametrize(
    "page",
    [
        httpx2.Response(404, html="<h1>Not Found</h1>"),
        httpx2.Response(404, json={"message": "no Route matched with those values"}),
        httpx2.Response(200, html="<h1>Welcome</h1>"),
        httpx2.Response(200, json={}),
        httpx2.Response(200, json=[]),
        httpx2.Response(204),
        httpx2.Response(301, headers={"Location": "https://elsewhere/"}),
        httpx2.Response(407),
        httpx2.Response(421, html=""),
        httpx2.Response(502, html="<h1>Bad Gateway</h1>"),
        httpx2.Response(511, html="<h1>Log in</h1>"),
    ],
    ids=lambda page: f"{page.status_code} {page.text}",
)
async def test_the_page_of_a_proxy_is_no_answer(page: httpx2.Response, wire: "Wire") -> None:
    """The page contains no features of the manager, so the next call asks again."""
    wire.will_answer(page, httpx2.Response(200, json={"protocol": "1", "features": ["leases"]}))
    with pytest.raises(AnswerError):
        await wire.client.capabilities(retry=False)
    assert await wire.client.capabilities() == {"leases"}


async def test_an_error_is_not_kept(wire: "Wire", refusal: Refuse) -> None:
    """After an error, the next call asks again."""
    wire.will_answer(refusal(500, "DATABASE_RELATED_ERROR"), httpx2.Response(200, json={"features": ["leases"]}))
    with pytest.raises(ManagerFailureError):
        await wire.client.capabilities()
    assert await wire.client.capabilities() == {"leases"}


async def test_retries_can_be_turned_off(wire: "Wire") -> None:
    """A worker has a retry loop of its own."""
    wire.will_answer(httpx2.Response(503))
    with pytest.raises(ManagerFailureError):
        await wire.client.capabilities(retry=False)
    assert len(wire.sent) == 1


async def test_a_manager_may_become_another_release(
    wire: "Wire", refusal: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features are read again after a while; if that fails, the old ones remain."""
    monkeypatch.setattr(client, "FEATURES_MAX_AGE", timedelta())
    wire.will_answer(
        httpx2.Response(200, json={"features": ["claim"]}), httpx2.ConnectError("no"), refusal(404, "NOT_FOUND")
    )
    assert [await wire.client.capabilities() for _ in range(3)] == [{"claim"}, {"claim"}, frozenset()]
