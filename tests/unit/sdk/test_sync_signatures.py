"""The methods of a SyncProducer are those of a Producer."""

import inspect
import re
from collections.abc import Callable
from typing import Any, get_overloads

import pytest
from jobnik_sdk import Producer, SyncProducer

METHODS = [name for name in dir(Producer) if not name.startswith("_") and name not in {"aclose", "with_timeout"}]


def _signatures(method: Callable[..., Any]) -> list[str]:
    """Return the signatures of a method and its overloads, without what differs between both producers."""
    found = [str(inspect.signature(variant)) for variant in [*get_overloads(method), method]]
    found = [text.replace("AsyncGenerator", "Generator") for text in found]
    return [re.sub(r"(Iterable\[.*\]) \| collections\.abc\.Async\1", r"\1", text) for text in found]


@pytest.mark.parametrize("name", METHODS)
def test_both_producers_have_the_same_methods(name: str) -> None:
    """Each method has the same overloads, arguments, defaults and results, and begins its docstring alike."""
    asynchronous, blocking = getattr(Producer, name), getattr(SyncProducer, name)
    assert _signatures(blocking) == _signatures(asynchronous)
    assert blocking.__doc__ == asynchronous.__doc__.splitlines()[0]


def test_no_method_is_missing() -> None:
    """Apart from their ends, both have the same methods."""
    own = {name for name in dir(SyncProducer) if not name.startswith("_")}
    assert own == {*METHODS, "with_timeout", "close"}
