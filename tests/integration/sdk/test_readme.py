"""The example that the SDK's README shows."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

_README = Path(__file__).parents[3] / "sdk" / "README.md"


async def test_example_runs(manager_url: str) -> None:
    """The first example creates a job and works it off."""
    example = _README.read_text().split("```python\n")[1].split("```")[0]
    program = example.replace("http://127.0.0.1:8080", manager_url)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=STDOUT)
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert said.decode().splitlines()[-1] == "COMPLETED"
