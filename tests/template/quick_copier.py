"""Makes Copier render in half of its CPU time or less, for tests that render the same template many times."""

import sys
from pathlib import Path
from types import CodeType

import pytest
from jinja2 import Environment

from tests.support import fork_client
from tests.support.forked_programs import ForkServer
from tools.external import uv

_UV = """\
#!/bin/sh
if [ "$1 $2 $6" = "tool run copier" ]
then shift 6; exec "{python}" -I -S "{client}" "{address}" copier "$@"
else exec "{uv}" "$@"
fi
"""


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Compile each text of the template once, and do not ask git for `core.fileMode` after each rendered file.

    Copier reads that setting because it has to record modes of files where it is false, which it is on Windows.
    """
    compiled: dict[tuple[object, ...], CodeType] = {}
    compile_anew = Environment.compile

    def compile_once(self: Environment, source: str, name: str | None = None, filename: str | None = None) -> CodeType:
        # All environments with the same syntax share a lexer. The name of the file is only for tracebacks.
        key = (type(self), self.lexer, source, name)
        if key not in compiled:
            compiled[key] = compile_anew(self, source, name, filename)
        return compiled[key]

    def leave_index(_worker: object, _path: Path, _mode: int) -> None:
        pass

    patch.setattr(Environment, "compile", compile_once)
    patch.setattr("copier._main.Worker._sync_git_index_executable_bit", leave_index)


def write_uv(folder: Path) -> Path:
    """Write a `uv` that does what uv does, except that `uv tool run` forks the Copier of this environment, quickened.

    Args:
        folder: An existing folder.
    """
    server = ForkServer("tests.template.quickened_copier")
    script = folder / "uv"
    script.write_text(_UV.format(python=sys.executable, client=fork_client.__file__, address=server.address, uv=uv()))
    script.chmod(0o755)
    return script
