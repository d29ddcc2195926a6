"""Payloads as the database stores them."""

from pydantic_core import to_json


def encode(payload: object) -> str:
    """A payload as JSON text."""
    return to_json(payload).decode()


def encode_optional(payload: object) -> str | None:
    """A payload as JSON text; None where nothing is said."""
    return None if payload is None else encode(payload)
