"""The first example of each README runs as it is written."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("page", "last_line"), [("README.md", "[Count(words=6)]"), ("sdk/README.md", "COMPLETED")])
async def test_example_runs(page: str, last_line: str, manager_url: str) -> None:
    """The program creates a job, works it off, and prints the result that the page shows."""
    example = (_ROOT / page).read_text().split("```python\n")[1].split("```")[0]
    assert f"# {last_line}\n" in example
    program = example.replace("http://127.0.0.1:8080", manager_url)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert last_line in output.decode().splitlines()
