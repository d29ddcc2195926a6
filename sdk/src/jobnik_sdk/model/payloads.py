"""From models to JSON and back, checked against the model on the way out as well as on the way in."""

from collections.abc import Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from jobnik_sdk.model.definitions import EMPTY, Empty
from jobnik_sdk.model.exceptions import InvalidPayloadError


def to_document(value: object, model: type[BaseModel], where: str) -> bytes:
    """Return `value` as a JSON object that `model` can read again.

    The round trip is the check: it also finds what a constructor has not seen, such as fields set by `model_construct`.
    `where` begins the path in the error, such as `tasks[2].data`.

    Raises:
        InvalidPayloadError: the value is of another model, has a wrong field, or cannot be said in JSON.
    """
    if value is EMPTY:
        if model is Empty:
            return b"{}"
        value = {}  # nothing was said: right where the model has a default for each field
    if isinstance(value, BaseModel) and not isinstance(value, model):
        raise InvalidPayloadError(where, f"expected a {model.__name__}, got a {type(value).__name__}.")
    try:
        document = _dump(value if isinstance(value, model) else model.model_validate(value), where)
        model.__pydantic_validator__.validate_json(document)
    except ValidationError as error:
        field, reason = first_fault(error)
        raise InvalidPayloadError(_join(where, field), reason) from None
    if not document.startswith(b"{"):
        raise InvalidPayloadError(where, "the protocol carries JSON objects, and this model makes something else.")
    return document


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Return the path of the first wrong field, such as `sizes[0].width`, and what is wrong with it."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return _path(fault["loc"]), fault["msg"]


def fit_text(text: str, longest: int) -> str:
    """Return `text` cut to `longest` characters, with NUL and lone surrogates replaced: PostgreSQL stores neither."""
    return text[:longest].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _dump(instance: BaseModel, where: str) -> bytes:
    def dump(fields: set[str] | None = None) -> bytes:
        # As model_dump_json does it, without a string on the way.
        serializer = instance.__pydantic_serializer__
        return serializer.to_json(instance, include=fields, by_alias=True, round_trip=True, warnings="none")

    try:
        return dump()
    except (PydanticSerializationError, UnicodeError) as error:
        reason = str(error)
    for name in type(instance).model_fields:
        try:
            dump({name})
        except (PydanticSerializationError, UnicodeError) as error:
            raise InvalidPayloadError(_join(where, name), str(error)) from None
    raise InvalidPayloadError(where, reason)


def _path(location: Sequence[str | int]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".")


def _join(where: str, field: str) -> str:
    return f"{where}.{field}" if field else where
