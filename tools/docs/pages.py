"""The generated files of docs/, and the functions that write them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tools.docs import access, endpoints, manager_settings, metrics, openapi, sdk_api, state_machines, worker_settings

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

PAGES: Mapping[Path, Callable[[], str]] = {
    REFERENCE / "state-machines.md": state_machines.page,
    REFERENCE / "manager-settings.md": manager_settings.page,
    REFERENCE / "worker-settings.md": worker_settings.page,
    REFERENCE / "metrics.md": metrics.page,
    REFERENCE / "part-b.md": endpoints.page,
    REFERENCE / "sdk.md": sdk_api.page,
    REFERENCE / "openapi.json": openapi.page,
    REFERENCE / "access.md": access.page,
}
"""The function that returns the current text of each file."""


def outdated() -> list[Path]:
    """Return the files that are missing or out of date."""
    return [file for file, page in PAGES.items() if not file.exists() or file.read_text(encoding="utf-8") != page()]


def write() -> None:
    """Write every file."""
    for file, page in PAGES.items():
        file.write_text(page(), encoding="utf-8")
