"""Argument checks for callers who do not run a type checker: a wrong argument fails at once, and by name."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from jobnik_sdk.model.exceptions import ConfigurationError, InvalidPayloadError

MAX_INTEGER: Final = 2**31 - 1
"""The largest number that the protocol allows for counts."""

MAX_DURATION: Final = timedelta(days=365)
"""The longest delay or time limit that the protocol allows."""

_LONGEST_VALUE: Final = 100
"""The maximum number of characters of a wrong value in an error message."""

Fault: TypeAlias = Callable[[str, str], Exception]
"""Returns the error for an argument that is out of range, from its name and the reason."""


def invalid_definition(name: str, reason: str) -> ConfigurationError:
    """Return the error for an option of something that an application defines once."""
    return ConfigurationError(f"{name} {reason}")


def invalid_option(name: str, reason: str) -> InvalidPayloadError:
    """Return the error for an option of something that an application creates again and again."""
    return InvalidPayloadError(name, reason)


def shown(value: object) -> str:
    """Return the representation of a wrong value, in one line of at most 100 characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 an integer of more than 4,300 digits, for example
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def check_instance(name: str, value: object, kind: type) -> None:
    """Check that `value` is an instance of `kind`.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, not {shown(value)}")


def check_callable(name: str, value: object) -> None:
    """Check that `value` is a function, or can be called like one.

    Raises:
        TypeError: it cannot.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function, not {shown(value)}")


def check_flag(name: str, value: object) -> None:
    """Check that `value` is True or False.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")


def check_items(name: str, value: object, kind: str) -> None:
    """Check that `value` is an iterable of several items, not text, a mapping or a model.

    Raises:
        TypeError: it is not.
    """
    if not _is_iterable_of_items(value):
        raise TypeError(f"{name} must be a list or another iterable of {kind}, not {shown(value)}")


def check_duration(
    name: str,
    value: object,
    shortest: timedelta | None = None,
    longest: timedelta = MAX_DURATION,
    fault: Fault = invalid_definition,
) -> None:
    """Check that `value` is a `timedelta`, and, if `shortest` is given, that it is in range.

    Raises:
        TypeError: it is not a `timedelta`; a plain number, for example, has no unit.
        Exception: it is out of range.
    """
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} must be a timedelta, such as timedelta(seconds=5), not {shown(value)}")
    if shortest is not None and not shortest <= value <= longest:
        raise fault(name, f"must be {_duration(shortest)} to {_duration(longest)}, not {value}.")


def check_integer(
    name: str, value: object, least: int = 1, most: int = MAX_INTEGER, fault: Fault = invalid_definition
) -> None:
    """Check that `value` is a whole number in a range; True and False are no numbers.

    Raises:
        TypeError: it is not an `int`.
        Exception: it is out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {shown(value)}")
    if value < least:
        raise fault(name, f"must be {least} or more, not {shown(value)}.")
    if value > most:
        raise fault(name, f"must be {most} or less, not {shown(value)}.")


def check_number(name: str, value: object, least: float, most: float, fault: Fault = invalid_definition) -> None:
    """Check that `value` is a number in a range; True and False are no numbers.

    Raises:
        TypeError: it is neither an `int` nor a `float`.
        Exception: it is out of range, or NaN.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {shown(value)}")
    if not least <= value <= most:
        raise fault(name, f"must be {least} to {most}, not {shown(value)}.")


def check_text(name: str, value: object, shortest: int, longest: int, fault: Fault = invalid_definition) -> None:
    """Check that `value` is text that the manager can store.

    Raises:
        TypeError: it is not text.
        Exception: it is too short or too long, or is not valid Unicode, or contains NUL.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {shown(value)}")
    if not shortest <= len(value) <= longest:
        raise fault(name, f"must have {shortest} to {longest} characters: {shown(value)} has {len(value)}.")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise fault(name, f"must be valid Unicode without NUL, not {shown(value)}.")


def check_moment(name: str, value: object, fault: Fault = invalid_option) -> None:
    """Check that `value` is a time with a time zone.

    Raises:
        TypeError: it is not a `datetime`.
        Exception: it has no time zone.
    """
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime with a time zone, not {shown(value)}")
    if value.utcoffset() is None:
        raise fault(name, f"must have a time zone, but {value} has none.")


def check_choice(name: str, value: object, choices: Iterable[Any], fault: Fault = invalid_option) -> None:
    """Check that `value` is one of several texts.

    Raises:
        Exception: it is not.
    """
    known = [str(choice) for choice in choices]
    if not isinstance(value, str) or value not in known:
        raise fault(name, f"must be one of {', '.join(known)}, not {shown(value)}.")


def _duration(duration: timedelta) -> str:
    days = duration / timedelta(days=1)
    if days > 1:
        return f"{days:g} days"
    return f"{duration.total_seconds():g} s" if duration else "0"


def _is_iterable_of_items(value: Any) -> bool:  # noqa: ANN401 any value
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | BaseModel)
