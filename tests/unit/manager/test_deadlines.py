"""How long a manager waits for its clients, on a clock of the test."""

from dataclasses import dataclass
from datetime import timedelta

import pytest
from reference_manager.server.connections import MAX_UNSENT, SURPLUS, Connections
from reference_manager.server.deadlines import MIN_RATE, RequestDeadline, ResponseDeadline

TIMEOUT = timedelta(seconds=30)


def test_a_head_must_be_complete_in_time_however_many_bytes_arrive() -> None:
    """The time counts from the connection or from the first byte, and further bytes do not extend it."""
    deadline = RequestDeadline(TIMEOUT, now=100)
    deadline.begin_head(now=120)
    assert not deadline.is_over(130)
    assert deadline.is_over(130.1)


def test_a_connection_between_requests_has_no_deadline() -> None:
    """A request that has arrived ends the wait; the first byte of the next one starts it again."""
    deadline = RequestDeadline(TIMEOUT, now=0)
    deadline.begin_body(now=1)
    deadline.complete()
    assert not deadline.is_over(10_000)
    deadline.begin_head(now=10_000)
    assert deadline.is_over(10_031)


def test_a_body_must_make_progress() -> None:
    """A body that stops ends one timeout later, however much of it has arrived."""
    deadline = RequestDeadline(TIMEOUT, now=0)
    deadline.begin_body(now=0)
    deadline.receive_body(1000 * MIN_RATE, now=10)
    assert not deadline.is_over(40)
    assert deadline.is_over(40.1)


def test_a_body_must_arrive_at_the_minimum_rate() -> None:
    """One byte a second does not keep a connection open."""
    deadline = RequestDeadline(TIMEOUT, now=0)
    deadline.begin_body(now=0)
    for second in range(31):
        deadline.receive_body(1, now=second)
    assert deadline.is_over(31)
    faster = RequestDeadline(TIMEOUT, now=0)
    faster.begin_body(now=0)
    for second in range(1000):
        faster.receive_body(MIN_RATE, now=second)
        assert not faster.is_over(second)


def test_the_clock_stops_while_the_manager_does_not_read() -> None:
    """A client is not at fault while the manager does not read from it, and then has a whole timeout again."""
    deadline = RequestDeadline(TIMEOUT, now=0)
    deadline.begin_body(now=0)
    deadline.pause()
    assert not deadline.is_over(1000)
    deadline.resume(now=1000)
    deadline.receive_body(1, now=1001)
    assert not deadline.is_over(1030)
    assert deadline.is_over(1031.1)


def test_a_response_stalls_when_no_byte_is_accepted() -> None:
    """Accepted bytes and an empty buffer reset the time; written bytes do not."""
    deadline = ResponseDeadline(now=0)
    assert deadline.stalled(written=0, unsent=0, now=50) == 0
    assert deadline.stalled(written=100, unsent=60, now=51) == 0
    assert deadline.stalled(written=100, unsent=60, now=60) == 9
    assert deadline.stalled(written=180, unsent=140, now=70) == 19
    assert deadline.stalled(written=180, unsent=139, now=80) == 0
    assert deadline.stalled(written=180, unsent=0, now=200) == 0


@dataclass(eq=False)
class FakeConnection:
    """A connection in a given state."""

    overdue: bool = False
    waiting: bool = True
    bytes: int = 0
    seconds: float = 0
    aborted: bool = False

    def is_overdue(self, now: float) -> bool:  # noqa: ARG002 - the state is fixed
        """See Connection."""
        return self.overdue

    def is_waiting_for_request(self) -> bool:
        """See Connection."""
        return self.waiting

    def unsent(self) -> int:
        """See Connection."""
        return self.bytes

    def stalled(self, now: float) -> float:  # noqa: ARG002 - the state is fixed
        """See Connection."""
        return self.seconds

    def abort(self) -> None:
        """See Connection."""
        self.aborted = True


def checked(*connections: FakeConnection) -> list[bool]:
    """Return which of these connections a check closes."""
    registry = Connections(limit=100, client_timeout=TIMEOUT)
    for connection in connections:
        registry.add(connection, surplus=False)
    registry.check(now=0)
    return [connection.aborted for connection in connections]


def test_a_check_closes_overdue_and_stalled_connections() -> None:
    """Only the connections of clients that take too long are closed."""
    assert checked(
        FakeConnection(), FakeConnection(overdue=True), FakeConnection(seconds=30.1), FakeConnection(seconds=29)
    ) == [False, True, True, False]


def test_too_many_unsent_bytes_close_the_longest_stalled_connections() -> None:
    """Connections are closed until few enough bytes wait; a client that keeps reading is not disconnected."""
    third = MAX_UNSENT // 3
    reading = FakeConnection(bytes=2 * third)
    stalled = [FakeConnection(bytes=third, seconds=seconds) for seconds in (5, 9, 7)]
    assert checked(reading, *stalled) == [False, False, True, True]
    assert checked(FakeConnection(bytes=2 * MAX_UNSENT)) == [False]


@pytest.mark.parametrize("served", [True, False])
def test_a_surplus_connection_replaces_the_oldest_one_without_a_request(*, served: bool) -> None:
    """The connections above the limit are bounded, and a new one is preferred, because it may be a probe."""
    registry = Connections(limit=1, client_timeout=TIMEOUT)
    assert not registry.are_full
    registry.add(FakeConnection(), surplus=False)
    assert registry.are_full
    first, *others = surplus = [FakeConnection() for _ in range(SURPLUS)]
    first.waiting = not served
    for connection in surplus:
        registry.add(connection, surplus=True)
    assert not any(connection.aborted for connection in surplus)
    registry.add(FakeConnection(), surplus=True)
    assert [first.aborted, others[0].aborted] == [not served, served]
    assert not any(connection.aborted for connection in others[1:])
