"""The package as a whole."""

import jobnik_sdk
import pytest


def test_all_names_are_there() -> None:
    """Each name in __all__ can be had from the package."""
    for name in jobnik_sdk.__all__:
        assert getattr(jobnik_sdk, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = jobnik_sdk.Nothing  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] on purpose
