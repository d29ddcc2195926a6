"""The package as a whole."""

import inspect
import subprocess
import sys
from importlib import import_module, metadata

import jobnik_sdk
import pytest

PUBLIC = ("", ".errors", ".settings", ".testing")
"""The modules that an application imports from."""


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_exist(name: str) -> None:
    """Each name in `__all__` exists and has a docstring; the names are in alphabetical order."""
    module = import_module(f"jobnik_sdk{name}")
    assert list(module.__all__) == sorted(module.__all__)
    for public in module.__all__:
        member = getattr(module, public)
        assert member.__doc__ or not (inspect.isclass(member) or inspect.isroutine(member))


def test_unknown_name_raises_attribute_error() -> None:
    """Lazy imports do not hide unknown names."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = jobnik_sdk.Nothing  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] on purpose


def test_the_sdk_has_few_dependencies() -> None:
    """The SDK has at most eight direct dependencies."""
    required = [one for one in metadata.requires("jobnik-sdk") or () if "extra ==" not in one]
    assert len(required) <= 8


def test_the_runtime_does_not_load_test_tools() -> None:
    """Importing every public name does not import `jobnik_sdk.testing`."""
    program = "import jobnik_sdk, sys; [getattr(jobnik_sdk, name) for name in jobnik_sdk.__all__]; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)  # noqa: S603 our own
    loaded = result.stdout.split()

    assert "jobnik_sdk.worker.worker" in loaded
    assert [name for name in loaded if name.startswith(("jobnik_sdk.testing", "jobnik_devtools", "pytest"))] == []


def test_a_worker_installs_without_development_tools() -> None:
    """The SDK installs no development tools, with or without its extras."""
    required = metadata.requires("jobnik-sdk") or ()
    assert [one for one in required if "devtools" in one or "watchfiles" in one] == []
