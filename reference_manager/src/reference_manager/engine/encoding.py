"""Payloads as the database stores them."""

from collections.abc import Mapping

from pydantic_core import to_json


def encode(payload: Mapping[str, object]) -> str:
    """A payload as JSON text."""
    return to_json(payload).decode()
