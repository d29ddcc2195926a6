"""The package as a whole."""

import inspect
from importlib import import_module, metadata

import jobnik_sdk
import pytest

PUBLIC = ("", ".errors", ".hooks", ".logging", ".settings", ".testing", ".trace")
"""The modules that an application imports from."""


@pytest.mark.parametrize("name", PUBLIC)
def test_all_names_are_there(name: str) -> None:
    """Each name in __all__ can be had from its module, in the order of the alphabet, and has a docstring."""
    module = import_module(f"jobnik_sdk{name}")
    assert list(module.__all__) == sorted(module.__all__)
    for public in module.__all__:
        member = getattr(module, public)
        assert member.__doc__ or not (inspect.isclass(member) or inspect.isroutine(member))


def test_a_name_that_is_not_there_is_an_error() -> None:
    """Names that are loaded when they are first used are no different."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = jobnik_sdk.Nothing  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] on purpose


def test_few_packages_come_along() -> None:
    """An application installs the SDK with eight others and theirs."""
    wanted = [one for one in metadata.requires("jobnik-sdk") or () if "extra ==" not in one]
    assert len(wanted) <= 8
