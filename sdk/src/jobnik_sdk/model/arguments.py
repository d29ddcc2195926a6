"""What callers pass, checked where nobody runs a type checker: a wrong argument is told at once, and by its name."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from difflib import get_close_matches


def check_duration(name: str, value: object) -> None:
    """Refuse what is no duration.

    Raises:
        TypeError: it is a number, for instance, whose unit nobody knows.
    """
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} is a timedelta, such as timedelta(seconds=5), not {value!r}")


def check_names(call: str, options: Mapping[str, object], known: Collection[str]) -> None:
    """Refuse options that there are not, as Python does where a function names its own.

    Raises:
        TypeError: one of them is unknown; the message names the one that may be meant.
    """
    for name in options.keys() - known:
        meant = get_close_matches(name, known, 1)
        hint = f". Did you mean {meant[0]!r}?" if meant else ""
        raise TypeError(f"{call} got an unexpected keyword argument {name!r}{hint}")


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse what is of another class.

    Raises:
        TypeError: it is.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {kind.__name__}, not {value!r}")
