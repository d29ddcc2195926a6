"""Encoding and validation of payloads."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jobnik_sdk import InvalidPayloadError
from jobnik_sdk.model.payloads import encode_payload
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field


class Box(BaseModel):
    """A nested model."""

    width: int
    ratio: float = 1.0


class Picture(BaseModel):
    """A payload with types that JSON has, and others."""

    source: Path
    taken: datetime | None = None
    boxes: list[Box] = []
    extra: Any = None


class Strict(BaseModel):
    """A strict model without extra fields."""

    model_config = ConfigDict(strict=True, extra="forbid")

    taken: datetime
    file_name: str = Field(alias="fileName")

    @computed_field
    @property
    def year(self) -> int:
        """A computed field, which is not part of the payload."""
        return self.taken.year


def _encode(value: object, model: type[BaseModel]) -> dict[str, Any]:
    return json.loads(encode_payload(value, model, "data"))


def test_payload_is_json() -> None:
    """A value of a type that JSON does not have becomes a string."""
    picture = Picture(source=Path("/a.png"), taken=datetime(2026, 1, 1, tzinfo=UTC), boxes=[Box(width=3)])
    assert _encode(picture, Picture) == {
        "source": "/a.png",
        "taken": "2026-01-01T00:00:00Z",
        "boxes": [{"width": 3, "ratio": 1.0}],
        "extra": None,
    }


def test_strict_models_with_aliases_and_computed_fields_are_valid() -> None:
    """The validation reads the JSON as the receiver does: with aliases, without computed fields."""
    strict = Strict(taken=datetime(2026, 1, 1, tzinfo=UTC), fileName="a")
    assert _encode(strict, Strict) == {"taken": "2026-01-01T00:00:00Z", "fileName": "a"}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "data.source"),
        ({"source": "a", "boxes": [{"width": 1}, {"width": "wide"}]}, "data.boxes[1].width"),
        (Picture.model_construct(), "data.source"),
        (Picture.model_construct(source=Path("a"), boxes=[Box.model_construct(width="wide")]), "data.boxes[0].width"),
        (Picture(source=Path("a"), extra=object()), "data.extra"),
        (Picture(source=Path("a"), extra={"deep": b"\xff"}), "data.extra"),
        (Picture(source=Path("a"), boxes=[Box(width=1, ratio=float("nan"))]), "data.boxes[0].ratio"),
        (Box(width=1), "data"),
        ("text", "data"),
        (None, "data"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_invalid_payload_is_rejected_by_field(value: object, field: str) -> None:
    """The error has the path of the invalid field."""
    with pytest.raises(InvalidPayloadError) as caught:
        encode_payload(value, Picture, "data")
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_payload_must_be_an_object() -> None:
    """A model that is encoded as anything but a JSON object is rejected."""
    with pytest.raises(InvalidPayloadError, match="must be a JSON object"):
        encode_payload(RootModel[list[int]]([1]), RootModel[list[int]], "data")


def test_large_numbers_stay_exact() -> None:
    """Integers of more than 64 bits keep their value."""

    class Big(BaseModel):
        number: int

    assert _encode(Big(number=2**80), Big) == {"number": 2**80}
