"""Argument checks for callers who do not run a type checker: a wrong argument fails at once, and by name."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from difflib import get_close_matches


def check_duration(name: str, value: object) -> None:
    """Check that `value` is a `timedelta`.

    Raises:
        TypeError: it is not; a plain number, for example, has no unit.
    """
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} must be a timedelta, such as timedelta(seconds=5), not {value!r}")


def check_names(call: str, options: Mapping[str, object], known: Collection[str]) -> None:
    """Check the names of keyword arguments, as Python does for a function without `**options`.

    Raises:
        TypeError: a name is unknown; the message suggests the closest known one.
    """
    for name in options.keys() - known:
        matches = get_close_matches(name, known, 1)
        hint = f". Did you mean {matches[0]!r}?" if matches else ""
        raise TypeError(f"{call} got an unexpected keyword argument {name!r}{hint}")


def check_instance(name: str, value: object, kind: type) -> None:
    """Check that `value` is an instance of `kind`.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, not {value!r}")
