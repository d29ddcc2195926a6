"""What a client finds out about its manager."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx2
import pytest
from jobnik_sdk import ManagerFailureError

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

Refuse = Callable[[int, str], httpx2.Response]


async def test_features_are_asked_for_once(wire: "Wire") -> None:
    """What the manager can do is read at the first question and remembered."""
    wire.will_answer(httpx2.Response(200, json={"protocol": "1", "features": ["job-tree", "leases"]}))
    assert await wire.client.capabilities() == {"job-tree", "leases"}
    assert await wire.client.capabilities() == {"job-tree", "leases"}
    assert wire.sent == ["GET /v1/capabilities"]


async def test_manager_with_part_a_alone_has_no_features(wire: "Wire", refusal: Refuse) -> None:
    """A manager that does not know the question has nothing beyond part A."""
    wire.will_answer(refusal(404, "NOT_FOUND"))
    assert await wire.client.capabilities() == frozenset()
    assert await wire.client.capabilities() == frozenset()


async def test_trouble_is_not_remembered(wire: "Wire", refusal: Refuse) -> None:
    """A manager that cannot answer now is asked again the next time."""
    wire.will_answer(refusal(500, "DATABASE_RELATED_ERROR"), httpx2.Response(200, json={"features": ["leases"]}))
    with pytest.raises(ManagerFailureError):
        await wire.client.capabilities()
    assert await wire.client.capabilities() == {"leases"}
