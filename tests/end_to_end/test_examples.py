"""The programs of docs/examples, run as a reader would."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TESTS = set(EXAMPLES.glob("test_*.py"))


@pytest.mark.timeout(60)  # the first one starts a manager, and each is a program that imports everything
@pytest.mark.parametrize("example", sorted(set(EXAMPLES.glob("*.py")) - TESTS), ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(example: Path, jobnik_manager: str) -> None:
    """The lines below "It prints:" come in their order, whatever is logged between them."""
    promised = [line[4:] for line in example.read_text().split('"""')[1].split("It prints:")[1].splitlines() if line]
    command = [sys.executable, example, jobnik_manager]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert [line for line in result.stdout.splitlines() if line in promised] == promised, result.stdout


@pytest.mark.timeout(60)  # they start a manager of their own
def test_tests_pass() -> None:
    """Those that show how to test, with the fixtures that anybody has."""
    command = [sys.executable, "-m", "pytest", "-q", *TESTS]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
