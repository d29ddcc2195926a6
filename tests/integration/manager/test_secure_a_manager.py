"""The commands of docs/how-to/secure-a-manager.md, run line by line in one shell."""

import asyncio
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from jobnik_devtools.environments import clean_environment

from tools.manager import ManagerProcess

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "secure-a-manager.md").read_text(encoding="utf-8")
LINES = re.findall(r"^    (.+)$", re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
EXPECTED = re.compile(r"# (\d{3})(?:: (.+))?")
ADDRESS = "127.0.0.1:8080"


async def test_the_commands_do_what_the_page_says(
    database_url: str, start_manager: Callable[..., ManagerProcess], tmp_path: Path
) -> None:
    """Each command succeeds, and each request has the status and the answer that the comment below it shows."""
    manager = start_manager()
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "jobnik-manager"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m reference_manager "$@"\n')
    command.chmod(0o755)
    environment = clean_environment(keep_python=True) | {"PATH": f"{programs}:{os.environ['PATH']}"}

    async def run(line: str) -> tuple[int, str]:
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-c", line), cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await shell.communicate()
        return shell.returncode or 0, output.decode()

    requests = 0
    for line, following in zip(LINES, [*LINES[1:], ""], strict=True):
        if line.startswith("#") or line == "umask 077":
            continue
        if line.startswith("export "):
            environment["JOBNIK_MANAGER_DATABASE_URL"] = database_url
            continue
        code, output = await run(line.replace(ADDRESS, urlsplit(manager.url).netloc))
        if (expected := EXPECTED.fullmatch(following)) is None:
            assert code == 0, line
            continue
        requests += 1
        # curl: 22 is an HTTP error
        assert code == (0 if expected[1] == "200" else 22), (line, output)
        if expected[2]:
            assert re.fullmatch(re.escape(expected[2]).replace("…", ".+"), output), (line, output)
    assert requests == 4
    assert re.fullmatch(r"jobnik_\w{49}\n", (tmp_path / "ops.token").read_text())
