"""Payloads on their way out."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jobnik_sdk import InvalidPayloadError
from jobnik_sdk.model.payloads import to_document
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field


class Box(BaseModel):
    """A part of the payload."""

    width: int
    ratio: float = 1.0


class Picture(BaseModel):
    """A payload with what JSON knows and what it does not."""

    source: Path
    taken: datetime | None = None
    boxes: list[Box] = []
    extra: Any = None


class Strict(BaseModel):
    """A model that takes nothing but what it names."""

    model_config = ConfigDict(strict=True, extra="forbid")

    taken: datetime
    file_name: str = Field(alias="fileName")

    @computed_field
    @property
    def year(self) -> int:
        """A field that is made, and so never read."""
        return self.taken.year


def _said(value: object, model: type[BaseModel]) -> dict[str, Any]:
    return json.loads(to_document(value, model, "data"))


def test_payload_is_said_in_json() -> None:
    """What has no JSON type of its own becomes a string."""
    picture = Picture(source=Path("/a.png"), taken=datetime(2026, 1, 1, tzinfo=UTC), boxes=[Box(width=3)])
    assert _said(picture, Picture) == {
        "source": "/a.png",
        "taken": "2026-01-01T00:00:00Z",
        "boxes": [{"width": 3, "ratio": 1.0}],
        "extra": None,
    }


def test_strict_models_with_aliases_and_computed_fields_pass() -> None:
    """The check reads what the other end will read: JSON by aliases, without computed fields."""
    strict = Strict(taken=datetime(2026, 1, 1, tzinfo=UTC), fileName="a")
    assert _said(strict, Strict) == {"taken": "2026-01-01T00:00:00Z", "fileName": "a"}


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
def test_wrong_payload_is_refused_by_field(value: object, field: str) -> None:
    """Whatever is wrong with a payload, the error says where."""
    with pytest.raises(InvalidPayloadError) as caught:
        to_document(value, Picture, "data")
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_payload_is_an_object() -> None:
    """A model that makes anything but a JSON object is refused."""
    with pytest.raises(InvalidPayloadError, match="JSON objects"):
        to_document(RootModel[list[int]]([1]), RootModel[list[int]], "data")


def test_large_numbers_stay_exact() -> None:
    """Integers beyond 64 bits survive."""

    class Big(BaseModel):
        number: int

    assert _said(Big(number=2**80), Big) == {"number": 2**80}
