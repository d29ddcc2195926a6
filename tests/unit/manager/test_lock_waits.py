"""Commands that need a locked job take turns on a few connections, and end at their deadline."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from reference_manager.store.errors import DatabaseError, LockTimeoutError
from reference_manager.store.lock_waits import LONG_TURN, NO_WAIT, SHORT_TURN, LockWaits, client_is_gone, may_wait

SOON = timedelta(milliseconds=50)


class Locks:
    """Locks of a database, and the commands that have waited for them."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.attempts: list[tuple[str, timedelta]] = []
        self.done: list[str] = []
        self.waiting: Counter[str] = Counter()
        self.most_waiting = 0

    def command(self, name: str) -> Callable[[timedelta], Awaitable[str]]:
        """Return a command that succeeds once the locks are free."""

        async def attempt(wait: timedelta) -> str:
            self.attempts.append((name, wait))
            if wait and not self.free.is_set():
                self.waiting[name] += 1
                self.most_waiting = max(self.most_waiting, self.waiting.total())
                await asyncio.sleep(0.001)
                self.waiting[name] -= 1
            if not self.free.is_set():
                raise LockTimeoutError(name)
            self.done.append(name)
            return name

        return attempt

    async def attempted(self, *names: str) -> None:
        """Wait until each of these commands has been attempted again."""
        before = len(self.attempts)
        while not {name for name, _ in self.attempts[before:]}.issuperset(names):  # noqa: ASYNC110 - the loop itself runs them
            await asyncio.sleep(0)


async def test_a_free_lock_takes_one_attempt() -> None:
    """It may wait for short locks of other sessions only if few commands run."""
    waits, locks = LockWaits(2), Locks()
    locks.free.set()
    assert await asyncio.gather(*(waits.run(name, locks.command(name)) for name in "abc")) == ["a", "b", "c"]
    assert sorted(locks.attempts) == [("a", LONG_TURN), ("b", LONG_TURN), ("c", LONG_TURN)]
    gate = asyncio.Event()

    async def slow(wait: timedelta) -> timedelta:
        await gate.wait()
        return wait

    running = [asyncio.create_task(waits.run(number, slow)) for number in range(3)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*running) == [LONG_TURN, LONG_TURN, NO_WAIT]


async def test_few_commands_wait_at_the_same_time() -> None:
    """Each of twenty commands gets turns, two at a time; the turns are short while others wait for theirs."""
    waits, locks = LockWaits(2), Locks()
    names = [str(number) for number in range(20)]
    running = [asyncio.create_task(waits.run(name, locks.command(name))) for name in names]
    await locks.attempted(*names)
    await locks.attempted(*names)
    assert locks.most_waiting == 2
    assert {wait for _, wait in locks.attempts} == {NO_WAIT, SHORT_TURN, LONG_TURN}
    locks.free.set()
    assert await asyncio.gather(*running) == names
    assert Counter(locks.done) == Counter(names)


async def test_commands_with_the_same_key_keep_their_order() -> None:
    """Only the first one is attempted again, and the others follow once it is done."""
    waits, locks = LockWaits(2), Locks()
    first = asyncio.create_task(waits.run("job", locks.command("first")))
    await locks.attempted("first")
    await locks.attempted("first")
    others = [asyncio.create_task(waits.run("job", locks.command(name))) for name in ("second", "third")]
    await locks.attempted("first")
    assert {name for name, _ in locks.attempts} == {"first"}
    locks.free.set()
    await asyncio.gather(first, *others)
    assert locks.done == ["first", "second", "third"]


async def test_a_new_command_has_the_next_turn() -> None:
    """A command that needs a lock for the first time does not wait for those that have had turns already."""
    waits, locks = LockWaits(1), Locks()
    names = [str(number) for number in range(20)]
    running = [asyncio.create_task(waits.run(name, locks.command(name))) for name in names]
    await locks.attempted(*names)
    await locks.attempted(*names)
    start = len(locks.attempts)
    running.append(asyncio.create_task(waits.run("new", locks.command("new"))))
    await locks.attempted("new")
    await locks.attempted("new")
    # The one whose turn it was, and the first attempt of the new one.
    assert len(locks.attempts) - start <= 4
    locks.free.set()
    await asyncio.gather(*running)


async def test_a_command_fails_at_its_deadline() -> None:
    """Also the one that never had a turn, and the one behind another of the same key. Nothing is left behind."""
    waits, locks = LockWaits(1), Locks()
    keys = ["a", "a", "b", "c"]
    running = [waits.run(key, locks.command(key), SOON) for key in keys]
    results = await asyncio.gather(*running, return_exceptions=True)
    assert [type(result) for result in results] == [LockTimeoutError] * 4
    locks.free.set()
    assert await waits.run("a", locks.command("later")) == "later"
    assert locks.attempts[-1] == ("later", LONG_TURN)
    assert locks.done == ["later"]


async def test_a_command_stops_waiting_when_its_client_disconnects() -> None:
    """It is not executed later, when the lock is free."""
    waits, locks = LockWaits(1), Locks()

    client_is_gone.set(lambda: True)
    with pytest.raises(LockTimeoutError, match="client disconnected"):
        await waits.run("job", locks.command("abandoned"))
    assert locks.attempts == [("abandoned", LONG_TURN)]


async def test_a_cancelled_command_gives_its_turn_back() -> None:
    """This holds whether it waits for its turn or has just got it."""
    waits, locks = LockWaits(1), Locks()
    running = [asyncio.create_task(waits.run(name, locks.command(name))) for name in "abcd"]
    await locks.attempted(*"abcd")
    for one in running[1:]:
        one.cancel()
    await asyncio.gather(*running[1:], return_exceptions=True)
    locks.free.set()
    assert await running[0] == "a"
    assert await waits.run("b", locks.command("b")) == "b"
    assert locks.attempts[-1] == ("b", LONG_TURN)


async def test_other_errors_end_a_command() -> None:
    """Only a lock is waited for."""
    waits = LockWaits(1)

    async def fail(_wait: timedelta) -> None:
        raise DatabaseError("broken")

    with pytest.raises(DatabaseError, match="broken"):
        await waits.run("job", fail)


async def test_a_request_that_must_not_wait_fails_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command does not wait until its deadline, neither for the lock nor behind other commands."""
    monkeypatch.setattr("reference_manager.store.lock_waits.REFUSED_TIMEOUT", SOON)
    monkeypatch.setattr("reference_manager.store.lock_waits.LONG_TURN", SOON)
    waits, locks = LockWaits(1), Locks()
    asked = 0

    def refuse() -> bool:
        nonlocal asked
        asked += 1
        return False

    may_wait.set(refuse)
    running = [waits.run("job", locks.command(name)) for name in "abc"]
    results = await asyncio.gather(*running, return_exceptions=True)
    assert [type(result) for result in results] == [LockTimeoutError] * 3
    assert asked >= 3
