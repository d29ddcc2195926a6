"""Comparison of a payload with what its receiver will read, which finds what JSON would change before it is sent."""

import dataclasses
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from math import isfinite
from pathlib import PurePath
from types import GenericAlias, NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr

MAX_DEPTH: Final = 180
"""How deep a payload may be nested. JSON may have 200 levels, and a request or a response needs some of them."""

_SECRETS: Final = (SecretStr, SecretBytes, Secret)
_SCALARS: Final = frozenset({NoneType, bool, int, str, bytes, date, timedelta, Decimal, UUID})
"""Types whose values are the same if they compare equal."""
_GENERICS: Final = frozenset({list, tuple, dict, Union, UnionType})
_IS_IDENTICAL: Final[Any] = object.__eq__
_MISSING: Final = object()
NOT_FINITE: Final = "NaN and infinite numbers have no JSON representation."
_NESTED_TOO_DEEPLY: Final = f"is nested more than {MAX_DEPTH} levels deep."


class DifferenceError(Exception):
    """A value is not the same after a round trip through JSON; `location` is its path, innermost part first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.location: list[str | int] = []


def compare(sent: object, received: object) -> None:
    """Check that the values are the same, without relying on an equality that the application has redefined.

    Raises:
        DifferenceError: they are not.
    """
    if (
        isinstance(sent, BaseModel)
        and type(sent) is type(received)
        and _has_exact_equality(type(sent))
        and vars(sent) == vars(received)  # not the equality of models, which takes longer than all else here
    ):
        return  # most payloads, several times as fast
    try:
        _compare(sent, received, 1)
    except RecursionError:
        raise DifferenceError(_NESTED_TOO_DEEPLY) from None


@cache
def _has_exact_equality(model: type[BaseModel]) -> bool:
    """Return whether instances of this model are the same if their fields are equal.

    This is so if all its fields, and those of models in it, are of common types.
    """
    return _is_exact(model, ())


def _is_exact(annotation: Any, outer: tuple[type[BaseModel], ...]) -> bool:  # noqa: ANN401 any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in outer or annotation.__eq__ is not BaseModel.__eq__:
            return False
        fields = annotation.__pydantic_fields__.values()
        closed = annotation.model_config.get("extra") != "allow"
        return closed and all(_is_exact(field.annotation, (*outer, annotation)) for field in fields)
    if isinstance(annotation, type) and not isinstance(annotation, GenericAlias):
        return annotation in _SCALARS or issubclass(annotation, float | Enum | PurePath)
    if get_origin(annotation) is Literal:
        return True
    members = [member for member in get_args(annotation) if member is not Ellipsis]
    return get_origin(annotation) in _GENERICS and all(_is_exact(member, outer) for member in members)


def _compare(sent: Any, received: Any, depth: int) -> None:  # noqa: ANN401 any value
    if type(sent) is type(received) and type(sent) in _SCALARS and sent == received:
        return
    if depth > MAX_DEPTH:
        raise DifferenceError(_NESTED_TOO_DEEPLY)
    # Not isinstance, from which a type checker would conclude that the items are of an unknown type.
    if issubclass(type(sent), BaseModel):
        _compare_models(sent, received, depth)
    elif dataclasses.is_dataclass(sent):
        _compare_dataclasses(sent, received, depth)
    elif issubclass(type(sent), Mapping) and issubclass(type(received), Mapping):
        _compare_mappings(sent, received, depth)
    elif issubclass(type(sent), Sequence) and not issubclass(type(sent), str | bytes | bytearray):
        _compare_sequences(sent, received, depth)
    elif not (isinstance(sent, AbstractSet) and isinstance(received, AbstractSet) and sent == received):
        _compare_scalars(sent, received, depth)


def _compare_models(sent: BaseModel, received: Any, depth: int) -> None:  # noqa: ANN401 any value
    # A subclass may come back as its base class if it adds only methods.
    if not isinstance(received, BaseModel) or not isinstance(sent, type(received)):
        raise DifferenceError(_type_changes(sent, received))
    kind: type[BaseModel] = type(received)
    fields = kind.__pydantic_fields__
    lost = type(sent).__pydantic_fields__.keys() - fields.keys()
    if lost:
        raise DifferenceError(f"is read as {kind.__name__}, which lacks {', '.join(sorted(lost))}.")
    for name, field in fields.items():
        before, after = sent.__dict__.get(name, _MISSING), received.__dict__.get(name, _MISSING)
        if before is not after:
            try:
                _compare(before, after, depth + 1)
            except DifferenceError as error:
                if field.exclude and not error.location:
                    error.reason = "is excluded from JSON, so its value would be lost."
                if not isinstance(sent, RootModel):
                    error.location.append(name)
                raise
    _compare_mappings(sent.__pydantic_extra__ or {}, received.__pydantic_extra__ or {}, depth)


def _compare_dataclasses(sent: Any, received: Any, depth: int) -> None:  # noqa: ANN401 any dataclass
    if type(sent) is not type(received):
        raise DifferenceError(_type_changes(sent, received))
    for field in dataclasses.fields(sent):
        before, after = getattr(sent, field.name, _MISSING), getattr(received, field.name, _MISSING)
        _compare_member(field.name, before, after, depth)


def _compare_mappings(sent: Mapping[Any, Any], received: Mapping[Any, Any], depth: int) -> None:
    for key, value in sent.items():
        if key not in received:
            error = DifferenceError(f"the key is of type {type(key).__name__}, and changes in JSON: use text.")
            error.location.append(str(key))
            raise error
        _compare_member(str(key), value, received[key], depth)
    if len(sent) != len(received):
        raise DifferenceError("has different keys after a round trip through JSON.")


def _compare_sequences(sent: Sequence[Any], received: Any, depth: int) -> None:  # noqa: ANN401 any value
    # A subclass of a list or tuple may come back as its base class.
    if not isinstance(sent, type(received)) or len(sent) != len(received):
        raise DifferenceError(_type_changes(sent, received))
    for index, (before, after) in enumerate(zip(sent, received, strict=True)):
        _compare_member(index, before, after, depth)


def _compare_member(part: str | int, sent: object, received: object, depth: int) -> None:
    try:
        _compare(sent, received, depth + 1)
    except DifferenceError as error:
        error.location.append(part)
        raise


def _compare_scalars(sent: Any, received: Any, depth: int) -> None:  # noqa: ANN401 any value
    name = type(sent).__name__
    if issubclass(type(sent), _SECRETS):
        if type(received) is type(sent) and sent.get_secret_value() == received.get_secret_value():
            return
        raise DifferenceError(
            f"{name} is stored masked, so its value would be lost: use another type, or refer to the secret."
        )
    if isinstance(sent, bool) is not isinstance(received, bool) and not isinstance(sent, Enum):
        raise DifferenceError(_type_changes(sent, received))
    if isinstance(sent, datetime | time):
        _compare_unequalled_parts(sent, received)
    if _is_equal(sent, received):
        return
    if isinstance(sent, float) and not isfinite(sent):
        raise DifferenceError(NOT_FINITE)
    if type(sent) is not type(received):
        raise DifferenceError(_type_changes(sent, received))
    if type(sent).__eq__ is _IS_IDENTICAL:  # equal only if identical, so the attributes decide
        _compare_mappings(getattr(sent, "__dict__", {}), getattr(received, "__dict__", {}), depth)
        return
    raise DifferenceError(
        "has a different value after a round trip through JSON: a serializer or validator changes it."
    )


def _compare_unequalled_parts(sent: datetime | time, received: Any) -> None:  # noqa: ANN401 any value
    """Check the parts of a time that equality ignores: a zone without an offset for a mere time of day, and `fold`."""
    if isinstance(received, datetime | time) and (sent.tzinfo is None) is not (received.tzinfo is None):
        raise DifferenceError("has a time zone whose offset depends on the date, so JSON would lose it.")
    if sent.fold and sent.tzinfo is None:
        raise DifferenceError("has the attribute fold, which JSON would lose: use a time with a zone.")


def _is_equal(sent: Any, received: Any) -> bool:  # noqa: ANN401 any value
    try:
        if sent == received:
            return True
    except Exception:  # noqa: BLE001 `__eq__` is the application's code
        return False
    if isinstance(sent, float | Decimal) and isinstance(received, float | Decimal):
        return sent != sent and received != received  # noqa: PLR0124 both are NaN
    if isinstance(sent, datetime) and isinstance(received, datetime) and sent.tzinfo and received.tzinfo:
        # Times that a zone has twice, such as at the end of summer time, equal no time of another zone.
        return sent.astimezone(UTC) == received.astimezone(UTC)
    return False


def _type_changes(sent: object, received: object) -> str:
    before, after = type(sent).__name__, "missing" if received is _MISSING else type(received).__name__
    if before == after:
        return f"is a different {before} after a round trip through JSON."
    if sent is _MISSING:
        return "is not set, and would be set to its default."
    return f"{before} becomes {after} in JSON: convert the value, or declare its type in the model."
