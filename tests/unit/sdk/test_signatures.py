"""Every public signature shows its parameters: none is hidden behind `**options`."""

import inspect
import pydoc
from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_overloads

import pytest
from jobnik_sdk import Producer
from pydantic import BaseModel

MODULES = ("jobnik_sdk", "jobnik_sdk.errors", "jobnik_sdk.testing")


def _callables(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the public functions, constructors and methods of a module that are written in this project."""
    for name in import_module(module).__all__:
        member = getattr(import_module(module), name)
        if not inspect.isclass(member):
            if inspect.isroutine(member):
                yield name, member
            continue
        if issubclass(member, BaseModel):  # pydantic writes its signature
            yield name, member
        elif inspect.isfunction(member.__init__) and member.__module__ == member.__init__.__module__:
            yield name, member.__init__
        for method in dir(member):
            function = inspect.getattr_static(member, method)
            function = getattr(function, "__func__", function)
            if not method.startswith("_") and inspect.isfunction(function) and "jobnik_sdk" in function.__module__:
                yield f"{name}.{method}", function


PUBLIC = sorted(
    {(name, function) for module in MODULES for name, function in _callables(module)}, key=lambda one: one[0]
)


@pytest.mark.parametrize(("name", "function"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_no_parameter_is_hidden(name: str, function: Any) -> None:  # noqa: ANN401 any function
    """In a signature or one of its overloads; no overload hides a default behind `...`."""
    for variant in (function, *get_overloads(function)):
        for parameter in inspect.signature(variant).parameters.values():
            assert parameter.kind is not parameter.VAR_KEYWORD, name
            assert parameter.default is not ..., name


def test_help_shows_types_and_defaults() -> None:
    """As an editor does."""
    shown = pydoc.plain(pydoc.render_doc(Producer.create_job))
    for parameter in ("unique_key: str | None = None", "idempotency_key: str | None = None", "stages: "):
        assert parameter in shown
    assert "create_job" in pydoc.render_doc(Producer)
