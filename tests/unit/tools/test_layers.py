"""The layers that import-linter enforces."""

import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[3]
CONTRACTS: Final[list[dict[str, Any]]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]
LAYERED: Final = [contract for contract in CONTRACTS if contract["type"] == "layers"]


@pytest.mark.parametrize("contract", LAYERED, ids=[contract["name"] for contract in LAYERED])
def test_a_package_has_at_most_eight_layers(contract: dict[str, Any]) -> None:
    """Each module of the package has a layer, so that a newcomer can draw them from memory."""
    assert len(contract["layers"]) <= 8
    assert contract["exhaustive"]


def test_no_import_is_exempt() -> None:
    """No contract ignores an import, and each name that a layer need not have is a program or an alias."""
    assert [contract["name"] for contract in CONTRACTS if "ignore_imports" in contract] == []
    exempt = {name for contract in LAYERED for name in contract.get("exhaustive_ignores", ())}
    assert exempt == {"__main__", "settings"}
