"""Conversion of models to JSON, validated on the way out as well as on the way in."""

from collections.abc import Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from jobnik_sdk.model.definitions import EMPTY, Empty
from jobnik_sdk.model.exceptions import InvalidPayloadError


def encode_payload(value: object, model: type[BaseModel], path: str) -> bytes:
    """Return `value` as a JSON object that `model` accepts.

    The JSON is validated against the model again, because a constructor does not see everything: `model_construct`,
    for example, sets fields without validation.

    Args:
        value: An instance of `model`, or a value that `model` validates.
        model: The model of the payload.
        path: The path of the payload, such as `tasks[2].data`; paths in errors begin with it.

    Raises:
        InvalidPayloadError: the value is an instance of another model, has an invalid field, or has no JSON
            representation.
    """
    if value is EMPTY:
        if model is Empty:
            return b"{}"
        value = {}  # the payload was omitted, which is valid if every field of the model has a default
    if isinstance(value, BaseModel) and not isinstance(value, model):
        raise InvalidPayloadError(path, f"must be of type {model.__name__}, not {type(value).__name__}.")
    try:
        document = _dump(value if isinstance(value, model) else model.model_validate(value), path)
        model.__pydantic_validator__.validate_json(document)
    except ValidationError as error:
        field, reason = first_validation_error(error)
        raise InvalidPayloadError(_join(path, field), reason) from None
    if not document.startswith(b"{"):
        raise InvalidPayloadError(path, f"must be a JSON object, but {model.__name__} is encoded as another type.")
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


def _dump(instance: BaseModel, path: str) -> bytes:
    def dump(fields: set[str] | None = None) -> bytes:
        # The same as model_dump_json, without the intermediate string.
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
            raise InvalidPayloadError(_join(path, name), str(error)) from None
    raise InvalidPayloadError(path, reason)


def _format_path(location: Sequence[str | int]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".")


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if field else path
