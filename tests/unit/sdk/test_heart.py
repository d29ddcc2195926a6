"""The heartbeat of a worker, on a wire that loses it."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import httpx2
from jobnik_sdk.worker.heartbeat import Heartbeat, Held, WorkerView

NO_ORDERS = b'{"lost": [], "cancel": [], "drain": false}'


class Wire(httpx2.BaseTransport):
    """Loses the second beat, and notes when each came."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.third = threading.Event()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer, or do not."""
        self.begun.append(time.monotonic())
        if len(self.begun) == 2:
            raise httpx2.ReadTimeout("nothing came", request=request)
        if len(self.begun) == 3:
            self.third.set()
        return httpx2.Response(200, content=NO_ORDERS)


def _heart(wire: Wire, lease: timedelta, held: Callable[[], Sequence[Held]]) -> Heartbeat:
    pulse = WorkerView(held, lambda: False, time.monotonic, lambda _orders: None)
    return Heartbeat(httpx2.Client(base_url="http://manager", transport=wire), "me", ["any"], lease, pulse)


def test_a_beat_that_is_lost_is_soon_followed_by_another() -> None:
    """It need not take the lease along: there is time for more than one in what is left of it."""
    wire = Wire()
    heart = _heart(wire, timedelta(seconds=1.5), tuple)
    heart.start()
    assert wire.third.wait(5)
    heart.stop()
    first, second, third = wire.begun
    assert second - first > 0.4
    assert third - second < 0.4


def test_the_heart_outlives_whatever_happens_in_it() -> None:
    """A fault in what it asks of the worker costs one beat."""
    wire = Wire()
    asked: list[bool] = []

    def held() -> Sequence[Held]:
        asked.append(True)
        if len(asked) == 1:
            raise RuntimeError("not now")
        return ()

    heart = _heart(wire, timedelta(seconds=0.3), held)
    heart.start()
    assert wire.third.wait(5)
    heart.stop()
