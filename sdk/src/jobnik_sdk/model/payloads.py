"""Conversion of payloads to JSON: an exact round trip, or an error with the path of what JSON would change."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from jobnik_sdk.model.definitions import EMPTY, Empty
from jobnik_sdk.model.exceptions import InvalidPayloadError
from jobnik_sdk.model.round_trip import MAX_DEPTH, NOT_FINITE, DifferenceError, compare

_ENCODING_ERRORS: Final = (PydanticSerializationError, TypeError, ValueError, RecursionError)
"""What an encoder raises: for lone surrogates, for example, and for integers of more than 4,300 digits."""
_LONGEST_PART: Final = 100
"""The maximum number of characters of a key in a path."""


def encode_payload(value: object, model: type[BaseModel], path: str) -> bytes:
    """Return `value` as a JSON object from which `model` reads the same value.

    The JSON is read again, as the receiver reads it, and the result is compared with `value`. Otherwise, a secret would
    be masked, a NaN would become null, and a subclass would lose its own fields, without an error. The validation of a
    constructor is not enough: `model_construct`, for example, sets fields without it.

    Args:
        value: An instance of `model`, or a value that `model` validates.
        model: The model of the payload.
        path: The path of the payload, such as `tasks[2].data`; paths in errors begin with it.

    Raises:
        InvalidPayloadError: the value is an instance of another model, has an invalid or unknown field, has no JSON
            representation, or is not the same after a round trip through JSON.
    """
    if value is EMPTY:
        if model is Empty:
            return b"{}"
        value = {}  # the payload was omitted, which is valid if every field of the model has a default
    if isinstance(value, BaseModel) and not isinstance(value, model):
        raise InvalidPayloadError(path, f"must be of type {model.__name__}, not {type(value).__name__}.")
    instance: BaseModel = EMPTY
    try:
        instance = value if isinstance(value, model) else _validate(value, model, path)
        document = _dump(instance, path)
        received = model.__pydantic_validator__.validate_json(document)
    except ValidationError as error:
        field, reason = first_validation_error(error)
        if error.errors(include_url=False)[0]["type"] == "json_invalid":  # an integer of too many digits, for example
            raise _locate(dict(instance), path, reason) from None
        raise InvalidPayloadError(_join(path, field), reason) from None
    if not document.startswith(b"{"):
        raise InvalidPayloadError(path, f"must be a JSON object, but {model.__name__} is encoded as another type.")
    _check(instance, received, document, path)
    return document


def encode_json(value: object, path: str) -> bytes:
    """Return a JSON value without a model, such as a checkpoint, as JSON from which the same value is read.

    Raises:
        InvalidPayloadError: the value has no JSON representation, or is not the same after a round trip through JSON:
            a tuple, for example, would become a list, and a number as a key would become text.
    """
    try:
        document = _dump_json(value)
        received = from_json(document)
    except _ENCODING_ERRORS as error:
        raise _locate(value, path, str(error), _dump_json) from None
    _check(value, received, document, path)
    return document


def first_validation_error(error: ValidationError) -> tuple[str, str]:
    """Return the path of the first invalid field, such as `sizes[0].width`, and the reason."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return _format_path(first["loc"]), first["msg"]


def fit_text(text: str, longest: int) -> str:
    """Return the first `longest` characters of `text`.

    NUL and lone surrogates are replaced, because PostgreSQL stores neither.
    """
    return text[:longest].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _validate(value: object, model: type[BaseModel], path: str) -> BaseModel:
    """Return an instance of the model; a key that the model would ignore is an error."""
    instance = model.model_validate(value)
    if isinstance(value, Mapping) and model.model_config.get("extra") != "allow":
        try:
            model.model_validate(value, extra="forbid")
        except ValidationError as error:
            for unknown in error.errors(include_url=False, include_context=False, include_input=False):
                if unknown["type"] == "extra_forbidden" and len(unknown["loc"]) == 1:
                    field = _format_path(unknown["loc"])
                    raise InvalidPayloadError(_join(path, field), f"{model.__name__} has no such field.") from None
    return instance


def _check(sent: object, received: object, document: bytes, path: str) -> None:
    """Check that the receiver reads the same value, and that every parser accepts the document."""
    try:
        compare(sent, received)
        if b"NaN" in document or b"Infinity" in document:
            from_json(document, allow_inf_nan=False)
    except DifferenceError as error:
        raise InvalidPayloadError(_join(path, _format_path(error.location[::-1])), error.reason) from None
    except ValueError:
        raise _locate(from_json(document), path, NOT_FINITE) from None


def _dump(instance: BaseModel, path: str) -> bytes:
    def dump(fields: set[str] | None = None) -> bytes:
        # The same as model_dump_json, without the intermediate string.
        serializer = instance.__pydantic_serializer__
        return serializer.to_json(instance, include=fields, by_alias=True, round_trip=True, warnings="none")

    try:
        return dump()
    except _ENCODING_ERRORS as error:
        reason = str(error)
    for name in type(instance).model_fields:
        try:
            dump({name})
        except _ENCODING_ERRORS as error:
            raise InvalidPayloadError(_join(path, name), str(error)) from None
    raise InvalidPayloadError(path, reason)


def _members(value: Any) -> Iterable[tuple[str | int, Any]]:  # noqa: ANN401 any value
    # Not isinstance, from which a type checker would conclude that the members are of an unknown type.
    if issubclass(type(value), dict):
        return [(str(key), member) for key, member in value.items()]
    if issubclass(type(value), list):
        return [(number, member) for number, member in enumerate(value)]
    return ()


def _dump_json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def _locate(
    value: Any,  # noqa: ANN401 any value
    path: str,
    reason: str,
    encode: Callable[[Any], bytes] = to_json,
) -> InvalidPayloadError:
    """Return the error for a value without a JSON representation, with the path of the innermost part without one."""
    for _ in range(MAX_DEPTH):
        found = next(((part, member) for part, member in _members(value) if not _is_json(member, encode)), None)
        if found is None:
            break
        path, value = f"{path}{_format_part(found[0])}", found[1]
    return InvalidPayloadError(path, reason)


def _is_json(value: object, encode: Callable[[Any], bytes]) -> bool:
    try:
        from_json(encode(value), allow_inf_nan=False)
    except _ENCODING_ERRORS:
        return False
    return True


def _format_part(part: str | int) -> str:
    return f"[{part}]" if isinstance(part, int) else f".{fit_text(part, _LONGEST_PART)}"


def _format_path(location: Sequence[str | int]) -> str:
    return "".join(map(_format_part, location)).removeprefix(".")


def _join(path: str, field: str) -> str:
    separator = "" if field.startswith("[") else "."
    return f"{path}{separator}{field}" if field else path
