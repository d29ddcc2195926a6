"""The programs in docs/examples, run as a reader would run them."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TESTS = set(EXAMPLES.glob("test_*.py"))


@pytest.mark.timeout(180)  # the first test starts a manager, and each program imports the whole SDK
@pytest.mark.parametrize("example", sorted(set(EXAMPLES.glob("*.py")) - TESTS), ids=lambda path: path.stem)
def test_example_prints_the_documented_lines(example: Path, jobnik_manager: str) -> None:
    """The program prints the lines below "It prints:" in this order, apart from log lines between them."""
    expected = [line[4:] for line in example.read_text().split('"""')[1].split("It prints:")[1].splitlines() if line]
    command = [sys.executable, example, jobnik_manager]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert [line for line in result.stdout.splitlines() if line in expected] == expected, result.stdout


@pytest.mark.timeout(180)  # they start their own manager
def test_example_tests_pass() -> None:
    """The test examples pass with the fixtures that the SDK provides."""
    command = [sys.executable, "-m", "pytest", "-q", *TESTS]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
