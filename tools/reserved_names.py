"""The names that a rendered worker cannot have, because its package or its program would hide another one."""

import ast
import keyword
import re
import sys
import tomllib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Final

QUESTIONS: Final = Path(__file__).resolve().parent.parent / "copier.yml"
_LIST: Final = re.compile(r"(?<=\nreserved_names:\n  type: str\n  when: false\n  default: >-\n).*?(?=\n\n)", re.DOTALL)
_NAME: Final = re.compile("[a-z][a-z0-9-]*")
_DEVICES: Final = {"aux", "con", "nul", "prn", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
"""Windows does not allow files with these names."""
_PROGRAMS: Final = {"bash", "docker", "git", "helm", "make", "podman", "python3", "sh", "uv", "uvx"}
"""What the project's commands run from PATH, where the programs of its environment come first."""
_OWN: Final = {"conftest", "seed", "src", "test", "tests"}
"""What the project's own tests import or look for."""
_LATER_KEYWORDS: Final = {"type"}
"""Keywords of Python 3.12 and later. This process may run on 3.11."""
_OTHERS_TESTS: Final = {"_vendor", "node_modules", "test", "tests"}
_IMPORTS: Final = {"find_spec", "import_module"}
_CANDIDATES: Final = re.compile(rb"^ *(?:import|from) +(\w+)|(?:find_spec|import_module)\(.(\w+)", re.MULTILINE)
"""Roughly what a file imports, which takes less time than parsing it."""


def reserved_names(project: Path) -> list[str]:
    """Return the names that no worker can have, in alphabetical order.

    These are Python's keywords and standard-library modules, the distributions of the lock file, the modules and
    programs of the environment, and the modules that the environment imports if they are installed.

    Args:
        project: An installed project with all defaults.
    """
    (packages,) = (project / ".venv" / "lib").glob("python*/site-packages")
    locked = tomllib.loads((project / "uv.lock").read_text())["package"]
    own = tomllib.loads((project / "pyproject.toml").read_text())["project"]["name"]
    known = {*_standard_library(), *(path.stem for path in packages.iterdir())}
    found = {
        *_DEVICES,
        *_PROGRAMS,
        *_OWN,
        *_LATER_KEYWORDS,
        *keyword.kwlist,
        *keyword.softkwlist,
        *known,
        *(package["name"] for package in locked),
        *(path.name for path in (project / ".venv" / "bin").iterdir()),
        *(
            name
            for path in packages.rglob("*.py")
            if not _OTHERS_TESTS & {*path.parts}
            for name in _imports(path, known)
        ),
    }
    names = {re.sub("_+", "-", name).lower() for name in found} - {own}
    return sorted(name for name in names if _NAME.fullmatch(name))


def recorded_names(text: str) -> list[str]:
    """Return the names in the list of copier.yml."""
    found = _LIST.search(text)
    return found[0].split() if found else []


def with_names(text: str, names: list[str]) -> str:
    """Return the text of copier.yml with these names."""
    indent = "    "
    lines = fill(" ".join(names), 120, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return _LIST.sub(lambda _: lines, text)


def _standard_library() -> Iterator[str]:
    """Yield the modules of this Python and, from the list of mypy, those of all others."""
    yield from sys.stdlib_module_names
    spec = find_spec("mypy")
    if spec is not None and spec.origin is not None:
        versions = Path(spec.origin).parent / "typeshed" / "stdlib" / "VERSIONS"
        yield from re.findall(r"^(\w+)(?=: )", versions.read_text(), re.MULTILINE)


def _imports(path: Path, known: AbstractSet[str]) -> Iterator[str]:
    """Yield the top-level modules that a file imports, unless all of them are known already."""
    text = path.read_bytes()
    if {(one or other).decode() for one, other in _CANDIDATES.findall(text)} <= known:
        return
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # a template, or a file for another version of Python
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.Call(
                func=ast.Name(id=function) | ast.Attribute(attr=function), args=[ast.Constant(str(name)), *_]
            ):
                if function in _IMPORTS:
                    yield name.partition(".")[0]
            case _:
                pass
