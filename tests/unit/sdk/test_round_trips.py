"""Payloads, results and checkpoints: an exact round trip through JSON, or an error with the path."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobnik_sdk import ConfigurationError, InvalidPayloadError, JobType, StageType
from jobnik_sdk.execution.outcomes import Completed, Failed, for_result
from jobnik_sdk.execution.progress import Checkpoint
from jobnik_sdk.model.payloads import encode_json, encode_payload
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    create_model,
    field_serializer,
    field_validator,
)
from typing_extensions import TypedDict

T = TypeVar("T")


class Colour(StrEnum):
    """An enumeration of texts."""

    RED = "red"


class Plain(Enum):
    """An enumeration whose members equal nothing else."""

    RED = "red"


class Base(BaseModel):
    """A model with subclasses."""

    x: int = 1


class Wider(Base):
    """A subclass with an extra field."""

    y: int = 2


class Methods(Base):
    """A subclass with methods only."""

    def double(self) -> int:
        """Return twice the value."""
        return self.x * 2


class Page(BaseModel, Generic[T]):
    """A generic model."""

    items: list[T] = []


@dataclass
class Point:
    """A dataclass."""

    x: int
    extra: Any = None


class Named(TypedDict):
    """A typed dictionary."""

    name: str


class Tree(BaseModel):
    """A recursive model."""

    children: "list[Tree]" = []


class SameId(BaseModel):
    """A model with an equality of its own, which hides differences."""

    id: int
    token: SecretStr = SecretStr("")

    def __eq__(self, other: object) -> bool:
        """Compare only the ids."""
        return isinstance(other, SameId) and self.id == other.id

    __hash__ = None  # type: ignore[assignment]  # as for every model


class Hidden(BaseModel):
    """A model with a field that JSON leaves out."""

    cache: int = Field(default=1, exclude=True)


class Doubled(BaseModel):
    """A model whose validator changes the value each time."""

    x: int

    @field_validator("x")
    @classmethod
    def _double(cls, value: int) -> int:
        return value * 2


class Rounded(BaseModel):
    """A model whose serializer loses digits."""

    x: float

    @field_serializer("x")
    def _round(self, value: float) -> float:
        return round(value, 1)


class Constants(BaseModel):
    """A model that writes NaN as a constant, which is not valid JSON."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    x: float


class Texts(BaseModel):
    """A model that writes NaN as text, which it reads again."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    x: float


class WrittenAsBase64(BaseModel):
    """A model that writes bytes in a form that it does not read."""

    model_config = ConfigDict(ser_json_bytes="base64")

    x: bytes


class Base64(WrittenAsBase64):
    """A model that reads the form that it writes."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Open(BaseModel):
    """A model that allows extra fields."""

    model_config = ConfigDict(extra="allow")


def _holding(annotation: Any, value: object) -> BaseModel:  # noqa: ANN401 any annotation
    """Return an instance of a model with the field `x` of this type."""
    model: type[BaseModel] = create_model("Holding", x=(annotation, ...))
    return model(x=value)


def _nested(levels: int) -> JsonValue:
    value: JsonValue = []
    for _ in range(levels - 1):
        value = [value]
    return value


_PARIS = ZoneInfo("Europe/Paris")

EXACT: dict[str, BaseModel] = {
    "empty secret": _holding(SecretStr, ""),
    "NUL": _holding(str, "a\0b"),
    "integer of 4,300 digits": _holding(int, 10**4299),
    "integer that doubles cannot hold": _holding(Any, 2**53 + 1),
    "large float": _holding(Any, 1.7976931348623157e308),
    "negative zero": _holding(Any, -0.0),
    "true": _holding(Any, value=True),
    "tuple": _holding(tuple[int, ...], (1, 2)),
    "set": _holding(set[int], {1, 2}),  # of numbers, because the order of texts differs from process to process
    "integer keys": _holding(dict[int, str], {1: "a"}),
    "date keys": _holding(dict[date, int], {date(2026, 1, 1): 1}),
    "decimal": _holding(Decimal, Decimal("1.10")),
    "time without zone": _holding(datetime, datetime(2026, 1, 1)),  # noqa: DTZ001 on purpose
    "repeated hour": _holding(datetime, datetime(2025, 10, 26, 2, 30, tzinfo=_PARIS, fold=1)),
    "time of day": _holding(time, time(1, 2, 3, tzinfo=UTC)),
    "negative duration": _holding(timedelta, timedelta(days=-1, microseconds=7)),
    "longest duration": _holding(timedelta, timedelta.max),
    "bytes of text": _holding(bytes, b"abc"),
    "bytes as base64": Base64(x=b"\xff"),
    "NaN as text": Texts(x=math.nan),
    "path": _holding(Path, Path("a/b")),
    "enumeration": _holding(Plain, Plain.RED),
    "text of an enumeration": _holding(Any, Colour.RED),
    "subclass with methods": _holding(Base, Methods(x=3)),
    "member of a union": _holding(Base | Wider, Wider(x=1, y=5)),
    "text that looks like a number": _holding(int | str, "1"),
    "generic model": Page[Base](items=[Base(x=3)]),
    "model as a parameter": _holding(Page[Any], Page[Any](items=[1, "a", None])),
    "dataclass": _holding(Point, Point(1)),
    "typed dictionary": _holding(Named, {"name": "a"}),
    "root model": RootModel[dict[str, int]]({"a": 1}),
    "recursive model": Tree(children=[Tree(), Tree(children=[Tree()])]),
    "further fields": Open.model_validate({"a": {"b": [1]}}),
    "default of an excluded field": Hidden(),
    "deepest": _holding(Any, _nested(170)),
}

REFUSED: dict[str, tuple[BaseModel, str]] = {
    "secret": (_holding(SecretStr, "s3cret"), "x"),
    "secret bytes": (_holding(SecretBytes, b"s3cret"), "x"),
    "secret in a list": (_holding(list[SecretStr | None], [None, "s3cret"]), "x[1]"),
    "secret in a root model": (_holding(RootModel[dict[str, SecretStr]], {"a": "s3cret"}), "x.a"),
    "secret that equality hides": (_holding(SameId, SameId(id=1, token=SecretStr("s3cret"))), "x.token"),
    "NaN": (_holding(Any, math.nan), "x"),
    "NaN of an optional field": (_holding(float | None, math.nan), "x"),
    "NaN as a constant": (Constants(x=math.nan), "x"),
    "infinity in a list": (_holding(Any, [{"y": -math.inf}]), "x[0].y"),
    "tuple without a type": (_holding(Any, {"y": (1, 2)}), "x.y"),
    "set without a type": (_holding(Any, {1}), "x"),
    "integer key without a type": (_holding(Any, {1: 2}), "x.1"),
    "tuple as a key": (_holding(dict[tuple[int, int], str], {(1, 2): "a"}), "x.1,2.[key]"),
    "equal keys": (_holding(dict[int | str, str], {1: "a", "1": "b"}), "x.1"),
    "time without a type": (_holding(Any, datetime(2026, 1, 1, tzinfo=UTC)), "x"),
    "decimal without a type": (_holding(Any, [Decimal(1)]), "x[0]"),
    "bytes without a type": (_holding(Any, b"a"), "x"),
    "id without a type": (_holding(Any, UUID(int=1)), "x"),
    "model without a type": (_holding(Any, Base()), "x"),
    "enumeration without a type": (_holding(Any, Plain.RED), "x"),
    "bytes": (_holding(bytes, b"\xff"), "x"),
    "bytes in another form": (WrittenAsBase64(x=b"abc"), "x"),
    "lone surrogate": (_holding(Any, "\ud800"), "x"),
    "lone surrogate in a key": (_holding(Any, {"\ud800": 1}), "x"),
    "integer of 4,301 digits": (_holding(int, 10**4300), "x"),
    "fold": (_holding(list[datetime], [datetime(2026, 1, 1, fold=1)]), "x[0]"),  # noqa: DTZ001 no zone
    "zone of a time of day": (_holding(time, time(1, tzinfo=_PARIS)), "x"),
    "offset of seconds": (_holding(datetime, datetime(1800, 1, 1, tzinfo=_PARIS)), "x"),
    "text that becomes a time": (_holding(datetime | str, "2026-01-01T00:00:00Z"), "x"),
    "text that becomes an id": (_holding(UUID | str, str(UUID(int=1))), "x"),
    "subclass with a field more": (_holding(Base, Wider()), "x"),
    "subclass that is written": (_holding(SerializeAsAny[Base], Wider()), "x"),
    "excluded field": (Hidden(cache=2), "cache"),
    "validator": (Doubled(x=1), "x"),
    "serializer": (Rounded(x=1.23), "x"),
    "dataclass with a tuple": (_holding(Point, Point(1, (2,))), "x.extra"),
    "further field": (Open.model_validate({"a": {"b": (1,)}}), "a.b"),
    "other name when written": (create_model("Other", x=(int, Field(default=0, serialization_alias="y")))(x=1), "x"),
    "not validated": (create_model("Unset", x=(int, 1)).model_construct(x="2"), "x"),
    "too deep": (_holding(Any, _nested(180)), "x" + "[0]" * 179),
}


@pytest.mark.parametrize("payload", EXACT.values(), ids=EXACT)
def test_what_json_can_hold_is_exact(payload: BaseModel) -> None:
    """The receiver reads the value that was sent, and any JSON parser reads the document."""
    document = encode_payload(payload, type(payload), "data")
    json.loads(document, parse_constant=_refuse_constant)
    again = encode_payload(type(payload).model_validate_json(document), type(payload), "data")
    assert json.loads(again) == json.loads(document)


@pytest.mark.parametrize(("payload", "field_path"), REFUSED.values(), ids=REFUSED)
def test_what_json_would_change_is_refused(payload: BaseModel, field_path: str) -> None:
    """The error has the path of the value, and a secret does not appear in it."""
    with pytest.raises(InvalidPayloadError) as caught:
        encode_payload(payload, type(payload), "data")
    assert caught.value.field == f"data.{field_path}"
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("payload", "field_path"), REFUSED.values(), ids=REFUSED)
def test_a_result_that_json_would_change_fails_the_attempt(payload: BaseModel, field_path: str) -> None:
    """A result is checked in the same way as the data of a task."""
    outcome = for_result(payload, type(payload))
    assert isinstance(outcome, Failed)
    assert outcome.message.startswith(f"result.{field_path}: ")


def test_an_instance_of_a_subclass_is_refused() -> None:
    """The receiver would read it as the base class, without the further fields."""
    with pytest.raises(InvalidPayloadError, match=r"^data: is read as Base, which lacks y\.$"):
        encode_payload(Wider(), Base, "data")
    assert encode_payload(Methods(x=3), Base, "data") == b'{"x":3}'


def test_an_unknown_key_of_a_dictionary_is_refused() -> None:
    """A dictionary in place of a model does not lose a key silently."""
    with pytest.raises(InvalidPayloadError, match=r"^result\.z: Base has no such field\.$"):
        encode_payload({"x": 1, "z": 2}, Base, "result")
    assert encode_payload({"x": 1}, Base, "result") == b'{"x":1}'
    assert encode_payload({"x": 1}, Open, "result") == b'{"x":1}'


def _infinite() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ((1,), ""),
        ([1, {"a": (2,)}], "[1].a"),
        ({1: 1}, ".1"),
        ({None: 1}, ".None"),
        ({True: 1}, ".True"),
        ({"a": math.nan}, ".a"),
        ("\ud800", ""),
        ({"a": ["\ud800"]}, ".a[0]"),
        ({"a": object()}, ".a"),
        ({"a": [SecretStr("s3cret")]}, ".a[0]"),
        (b"a", ""),
        ({1, 2}, ""),
        (Base(), ""),
        (Decimal(1), ""),
        (10**4300, ""),
        (_nested(181), "[0]" * 180),
        (_nested(100_000), "[0]" * 180),
        (_infinite(), "[0]" * 180),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "path",
)
def test_a_checkpoint_that_json_would_change_is_refused(value: JsonValue, path: str) -> None:
    """A checkpoint has no model, so it must already be a JSON value."""
    with pytest.raises(InvalidPayloadError) as caught:
        Checkpoint.of(value)
    assert caught.value.field == f"checkpoint{path}"


# Busy machines are slow at times.
_FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda members: st.lists(members) | st.dictionaries(st.text(), members),
    max_leaves=20,
)
_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.complex_numbers()
    | st.fractions()
    | st.sampled_from([Colour.RED, Plain.RED, Base(), Wider(), Point(1), SecretStr("a"), object()]),
    lambda members: (
        st.lists(members)
        | st.tuples(members, members)
        | st.dictionaries(st.text() | st.integers() | st.none(), members)
        | st.frozensets(st.integers())
    ),
    max_leaves=10,
)


def _is_same(sent: object, received: object) -> bool:
    """Compare by type and value, where an instance of a subclass may come back as one of the class."""
    match sent, received:
        case (dict(), dict()):
            before, after = cast("dict[Any, Any]", sent), cast("dict[Any, Any]", received)
            return before.keys() == after.keys() and all(_is_same(value, after[key]) for key, value in before.items())
        case (list(), list()):
            items, others = cast("list[Any]", sent), cast("list[Any]", received)
            return len(items) == len(others) and all(map(_is_same, items, others))
        case _:
            return isinstance(sent, type(received)) and sent == received


@_FEW
@given(_JSON)
def test_every_json_value_is_an_exact_checkpoint(value: JsonValue) -> None:
    """No JSON value is refused."""
    assert _is_same(value, json.loads(Checkpoint.of(value).document))


class Holder(BaseModel):
    """A model with a field of any type."""

    x: Any = None


@_FEW
@given(_ANYTHING)
def test_any_value_is_exact_or_refused(value: object) -> None:
    """Any checkpoint, and any field of any type, is stored unchanged, or an error has its path."""
    holder = Holder.model_construct(x=value)
    encoders: list[Callable[[], Any]] = [
        lambda: json.loads(encode_json(value, "data")),
        lambda: json.loads(encode_payload(holder, Holder, "data"))["x"],
    ]
    for encode in encoders:
        error, received = _attempt(encode)
        assert error.startswith("data") if error else _is_same(value, received)


class Everything(BaseModel):
    """A model with the types that payloads usually have."""

    text: str
    number: int | float | None
    decimal: Decimal
    data: bytes
    moment: datetime
    day: date
    span: timedelta
    ids: set[UUID]
    counts: dict[int, Base | Wider]
    pair: tuple[bool, Colour]
    names: list[Named] = []


_FINITE = st.decimals(allow_nan=False, allow_infinity=False)
_MOMENTS = st.datetimes(timezones=st.none() | st.timezones())
_EVERYTHING = st.builds(Everything, decimal=_FINITE, moment=_MOMENTS)


@_FEW
@given(_EVERYTHING)
def test_generated_models_are_exact_or_refused(sent: Everything) -> None:
    """The receiver reads an equal model."""
    error, document = _attempt(lambda: encode_payload(sent, Everything, "data"))
    assert error.startswith("data") if error else _reads_as(document, sent)


@_FEW
@given(_EVERYTHING, st.data())
def test_generated_results_are_exact_or_fail_the_attempt(result: Everything, data: st.DataObject) -> None:
    """A result whose fields were changed after it was validated is refused, unless it is still exact."""
    name = data.draw(st.sampled_from(sorted(Everything.model_fields)))
    setattr(result, name, data.draw(_ANYTHING))
    outcome = for_result(result, Everything)
    if isinstance(outcome, Completed):
        assert _reads_as(outcome.result, result)
    else:
        assert isinstance(outcome, Failed)
        assert outcome.message.startswith("result")


def _attempt(encode: Callable[[], Any]) -> tuple[str, Any]:
    """Return the path of the error, or what was encoded."""
    try:
        return "", encode()
    except InvalidPayloadError as error:
        return error.field, None


def _reads_as(document: bytes | None, sent: Everything) -> bool:
    received = Everything.model_validate_json(document or b"")
    if received.moment.tzinfo is not None and sent.moment.tzinfo is not None:  # zones of the same time are equal
        assert received.moment.astimezone(UTC) == sent.moment.astimezone(UTC)
        sent = sent.model_copy(update={"moment": received.moment})
    return received == sent


@pytest.mark.parametrize("model", [Point, Named, dict, dict[str, int], Base(), None], ids=repr)
def test_payloads_have_pydantic_models(model: type[BaseModel]) -> None:
    """Dataclasses and typed dictionaries are allowed in models, not instead of them."""
    with pytest.raises(TypeError, match=r"^The task of the stage type 'a' must be a class derived from pydantic"):
        StageType("a", task=model)
    with pytest.raises(TypeError, match=r"^The metadata of the job type 'ab' must be a class derived from pydantic"):
        JobType("ab", metadata=model)


def test_names_are_valid_unicode() -> None:
    """No URL and no metric can contain a lone surrogate."""
    with pytest.raises(ConfigurationError, match="must be valid Unicode"):
        StageType("\ud800", task=Base)


def _refuse_constant(name: str) -> None:
    raise AssertionError(name)
