"""The values that the manager chose, such as ids, and the comparison that learns them."""

import re
from collections.abc import Iterator
from typing import cast

from tests.model.entities import (
    SMALLEST,
    Amount,
    Answer,
    AnyOrder,
    Id,
    Json,
    Lease,
    Near,
    OneOf,
    Passing,
    Time,
    Wording,
)

NAME = re.compile(r"(?<=/)(job|stage|task)-\d+")
ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOBODY = "00000000-0000-7000-8000-000000000000"
"""An id that no entity has."""
NO_LEASE = 2**53 - 1
"""The number of a lease that does not exist."""
_PLAIN = {str, int, float, bool, type(None)}


class Bindings:
    """The value of each name of the model, learnt from the first answer that contains it."""

    def __init__(self) -> None:
        self._ids: dict[Id, str] = {}
        self._times: dict[Time, str] = {}
        self._passing: dict[Time, str] = {}
        self._leases: dict[Lease, int] = {}

    def path(self, path: str) -> str:
        """A path with ids instead of names. A name without a value becomes an id that no entity has."""
        return NAME.sub(lambda name: self._id(Id(name[0])), path)

    def value(self, named: Json) -> Json:
        """A body with ids and leases instead of names. A name without a value becomes one that does not exist."""
        match named:
            case Id():
                return self._id(named)
            case Lease():
                return self._leases.get(named, NO_LEASE)
            case dict():
                return {key: self.value(item) for key, item in cast("dict[str, Json]", named).items()}
            case list():
                return [self.value(item) for item in cast("list[Json]", named)]
            case _:
                return named

    def _id(self, name: Id) -> str:
        return self._ids.get(name, NOBODY)

    def differences(self, due: Answer, given: Answer) -> list[str]:
        """The differences between two answers, such as ``body.summary.total: 3 is due, 2 is given``."""
        self._passing = {}
        parts = zip(Answer._fields, due, given, strict=True)
        return [difference for part, wanted, found in parts for difference in self._compare(wanted, found, part)]

    def _compare(self, due: Json, given: Json, place: str) -> Iterator[str]:
        """The differences at and below one location."""
        if isinstance(due, dict) and isinstance(given, dict):
            wanted, found = cast("dict[str, Json]", due), cast("dict[str, Json]", given)
            for key in sorted(wanted.keys() ^ found.keys()):
                yield f"{place}.{key}: is {'missing' if key in wanted else 'not due'}"
            for key in sorted(wanted.keys() & found.keys()):
                if not _is_same(wanted[key], found[key]):
                    yield from self._compare(wanted[key], found[key], f"{place}.{key}")
        elif isinstance(due, list) and isinstance(given, list):
            items, others = cast("list[Json]", due), cast("list[Json]", given)
            if len(items) != len(others):
                yield f"{place}: {len(items)} items are due, {len(others)} are given"
            for number, (item, other) in enumerate(zip(items, others, strict=False)):
                yield from self._compare(item, other, f"{place}.{number}")
        elif not self._is(cast("object", due), given):
            yield f"{place}: {due!r} is due, {given!r} is given"

    def _is(self, due: object, given: Json) -> bool:
        """Whether a value is the one that is due. A name without a value gets this one, if it fits."""
        match due:
            case Id():
                if due not in self._ids and _has_form(ID, given) and given not in (NOBODY, *self._ids.values()):
                    self._ids[due] = given
                return self._id(due) == given
            case Lease():
                if due not in self._leases and self._fits(due, given):
                    self._leases[due] = given
                return self.value(due) == given
            case Time():
                times = self._passing if isinstance(due, Passing) else self._times
                fits = _has_form(TIME, given) and (due.unlike is None or times.get(due.unlike) != given)
                if due not in times and fits:
                    times[due] = given
                return due in times and times[due] == given
            case OneOf() | AnyOrder() | Wording() | Amount() | Near():
                return self._is_allowed(due, given)
            case _:  # in JSON 1 is neither 1.0 nor true
                return (type(due), due) == (type(given), given)

    def _is_allowed(self, due: OneOf | AnyOrder | Wording | Amount | Near, given: Json) -> bool:
        """Whether a value is one of those that are allowed."""
        match due:
            case OneOf(choices):
                return given in choices
            case AnyOrder(items):
                return isinstance(given, list) and sorted(map(self.value, items)) == sorted(cast("list[str]", given))
            case Wording():
                return isinstance(given, str)
            case Amount():
                return type(given) in {int, float} and given >= 0
            case Near(number):
                return type(given) in {int, float} and abs(given - number) <= SMALLEST

    def _fits(self, lease: Lease, given: Json) -> bool:
        """Whether a lease may have this number: those of earlier claims are lower, those of later ones higher."""
        return (
            type(given) is int
            and given != NO_LEASE
            and all(
                given != number and (lease.claim == other.claim or (lease.claim > other.claim) == (given > number))
                for other, number in self._leases.items()
            )
        )


def _is_same(due: object, given: object) -> bool:
    """Whether both are the same plain value, which most values are. This takes a tenth of the time of a comparison."""
    return type(due) in _PLAIN and type(due) is type(given) and due == given


def _has_form(form: re.Pattern[str], given: Json) -> bool:
    return isinstance(given, str) and form.fullmatch(given) is not None
