"""The environment variables of the programs that the development tools start: git, uv, Copier, helm, and the worker."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Final

_GIT_ACCESS: Final = re.compile(
    r"GIT_(?:ALLOW_PROTOCOL|ASKPASS|CONFIG_(?:GLOBAL|NOSYSTEM|SYSTEM)|EXEC_PATH|HTTP_\w+|PROXY_\w+|SSH|SSH_\w+|SSL_\w+"
    r"|TERMINAL_PROMPT|(?:AUTHOR|COMMITTER)_(?:NAME|EMAIL))"
)
"""Variables that tell git who the user is and how to reach a server. All others are about one repository or command."""
_GIT_CONFIG_ACCESS: Final = re.compile(
    r"(?:credential|http|https|protocol|safe|ssh|url|user)\.|core\.(?:askpass|sshcommand)$", re.IGNORECASE
)
"""The settings among those of GIT_CONFIG_COUNT that are about access as well: CI systems pass tokens in them."""
_UV: Final = {"UV_FROZEN", "UV_LOCKED", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR"}
"""Variables that select a project or environment of uv. `make` and `uv run` set some of them for this process."""


def clean_environment(*, keep_python: bool = False) -> dict[str, str]:
    """Return the variables of this process without those that would redirect the program that gets them.

    A git hook exports GIT_DIR and GIT_INDEX_FILE, which make every git command use that repository and index. An
    active virtual environment, PYTHONPATH and the like make Python programs such as Copier import other packages. The
    variables that give access to servers, such as HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and GIT_SSH_COMMAND, are kept.

    Args:
        keep_python: Keep VIRTUAL_ENV and the variables of Python and uv, for a program that runs in the environment of
            this process.
    """
    kept = {name: value for name, value in os.environ.items() if _is_kept(name, keep_python=keep_python)}
    access = list(_git_config_for_access(os.environ))
    if access:
        kept["GIT_CONFIG_COUNT"] = str(len(access))
    for number, (key, value) in enumerate(access):
        kept |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return kept


def _is_kept(name: str, *, keep_python: bool) -> bool:
    if name.startswith("GIT_"):
        return _GIT_ACCESS.fullmatch(name) is not None
    return keep_python or not (name.startswith("PYTHON") or name in _UV or name == "VIRTUAL_ENV")


def _git_config_for_access(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    count = environment.get("GIT_CONFIG_COUNT", "")
    for number in range(int(count) if count.isdecimal() else 0):
        key, value = (environment.get(f"GIT_CONFIG_{part}_{number}") for part in ("KEY", "VALUE"))
        if key is not None and value is not None and _GIT_CONFIG_ACCESS.match(key):
            yield key, value
