"""The environments of the programs that the development tools and the tools of this repository start."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobnik_devtools.environments import clean_environment

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [*(ROOT / "devtools" / "src").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
STARTS = {"run", "Popen", "call", "check_call", "check_output", "create_subprocess_exec", "create_subprocess_shell"}

REMOVED = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES": "/elsewhere",
    "GIT_AUTHOR_DATE": "2000-01-01",
    "GIT_COMMON_DIR": "/elsewhere",
    "GIT_CONFIG": "/elsewhere",
    "GIT_CONFIG_PARAMETERS": "'core.bare'='true'",
    "GIT_DIR": "/elsewhere/.git",
    "GIT_INDEX_FILE": "index",
    "GIT_NAMESPACE": "elsewhere",
    "GIT_OBJECT_DIRECTORY": "/elsewhere",
    "GIT_PREFIX": "elsewhere/",
    "GIT_QUARANTINE_PATH": "/elsewhere",
    "GIT_WORK_TREE": "/elsewhere",
}
PYTHONS = {
    "PYTHONHOME": "/elsewhere",
    "PYTHONINSPECT": "1",
    "PYTHONPATH": "/elsewhere",
    "PYTHONWARNINGS": "error",
    "UV_FROZEN": "1",
    "UV_LOCKED": "1",
    "UV_PROJECT": "/elsewhere",
    "VIRTUAL_ENV": "/elsewhere",
}
KEPT = {
    "ALL_PROXY": "http://proxy:1",
    "GIT_ASKPASS": "ask",
    "GIT_AUTHOR_NAME": "me",
    "GIT_CONFIG_GLOBAL": "/config",
    "GIT_SSH_COMMAND": "ssh -i key",
    "GIT_SSL_CAINFO": "/ca",
    "HTTPS_PROXY": "http://proxy:1",
    "NO_PROXY": "localhost",
    "SSL_CERT_FILE": "/ca",
    "UV_INDEX_URL": "http://index",
    "https_proxy": "http://proxy:1",
}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Set all of these variables, and no other of git."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "PYTHON", "UV_"))]:
        monkeypatch.delenv(name)
    for name, value in (REMOVED | PYTHONS | KEPT).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("variables")
def test_nothing_redirects_a_program() -> None:
    """The variables of a git hook and of another Python environment are removed, and those for access are kept."""
    environment = clean_environment()

    assert not (REMOVED | PYTHONS).keys() & environment.keys()
    assert KEPT.items() <= environment.items()
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.usefixtures("variables")
def test_a_program_of_this_environment_keeps_python() -> None:
    """The worker runs in the environment of `make dev`, and under the same variables of Python."""
    environment = clean_environment(keep_python=True)

    assert not REMOVED.keys() & environment.keys()
    assert (PYTHONS | KEPT).items() <= environment.items()


def test_configuration_for_access_is_kept(variables: pytest.MonkeyPatch) -> None:
    """CI systems pass tokens and mirrors in numbered variables; those that redirect a command are left out."""
    settings = {
        "core.worktree": "/elsewhere",
        "url.https://mirror/.insteadOf": "https://github.com/",
        "core.hooksPath": "/elsewhere",
        "http.extraHeader": "Authorization: Basic abc",
        "safe.directory": "*",
    }
    variables.setenv("GIT_CONFIG_COUNT", str(len(settings)))
    for number, (key, value) in enumerate(settings.items()):
        variables.setenv(f"GIT_CONFIG_KEY_{number}", key)
        variables.setenv(f"GIT_CONFIG_VALUE_{number}", value)

    found = {name: value for name, value in clean_environment().items() if name.startswith("GIT_CONFIG_")}

    assert found == {
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_GLOBAL": "/config",
        "GIT_CONFIG_KEY_0": "url.https://mirror/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "GIT_CONFIG_KEY_1": "http.extraHeader",
        "GIT_CONFIG_VALUE_1": "Authorization: Basic abc",
        "GIT_CONFIG_KEY_2": "safe.directory",
        "GIT_CONFIG_VALUE_2": "*",
    }


def starts_in(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield the calls that start a program."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in STARTS:
            called = ast.unparse(node.func)
            if called.startswith(("subprocess.", "asyncio.")) and called != "asyncio.run":
                yield node


def copies_in(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that read all variables of this process, not a single one."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            is_single = isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr == "get")
            if isinstance(child, ast.Attribute) and child.attr == "environ" and not is_single:
                yield child.lineno


def test_every_program_gets_a_clean_environment() -> None:
    """Each call that starts a program passes an environment, which no module builds from os.environ itself."""
    found = 0
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        for call in starts_in(tree):
            found += 1
            assert any(keyword.arg == "env" for keyword in call.keywords), f"{path}:{call.lineno}"
        if path.name != "environments.py":
            assert list(copies_in(tree)) == [], path

    assert found > 8
