"""The sources of the SDK, the development tools and the manager in a rendered project."""

import os
import sys
import tomllib
from collections.abc import Callable, Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jinja2
import pytest
import yaml

from tests.template.environments import INSTALL_TIMEOUT
from tests.template.owner_changes import change_nothing, commit_owner_change
from tests.template.versions import commit, next_version, render, update

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text())


def hidden_value(name: str, **recorded: str) -> str:
    """Compute a hidden value from recorded answers, as Copier does."""
    # Copier renders plain text and loads this extension by default.
    environment = jinja2.Environment(  # noqa: S701
        extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"]
    )
    return environment.from_string(QUESTIONS[name]["default"]).render(_copier_answers=recorded)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("/srv/jobnik", "file:///srv/jobnik"),
        ('/it\'s "a" #1 %41?/jobnik', "file:///it%27s%20%22a%22%20%231%20%2541%3F/jobnik"),
        (r"C:\src\jobnik", "file:///C:/src/jobnik"),
        (r"C:\a folder\jobnik", "file:///C:/a%20folder/jobnik"),
        ("git+file:///srv/jobnik", "file:///srv/jobnik"),
        ("file:///srv/jobnik.git", "file:///srv/jobnik.git"),
        ("gh:owner/jobnik", "https://github.com/owner/jobnik.git"),
        ("gh:owner/jobnik.git", "https://github.com/owner/jobnik.git"),
        ("gl:group/sub/jobnik", "https://gitlab.com/group/sub/jobnik.git"),
        ("https://github.com/owner/jobnik", "https://github.com/owner/jobnik"),
        ("git+https://example.com/jobnik", "https://example.com/jobnik"),
        ("git@example.com:owner/jobnik.git", "ssh://git@example.com/owner/jobnik.git"),
        ("git+ssh://git@example.com/jobnik", "ssh://git@example.com/jobnik"),
    ],
)
def test_the_address_of_the_template_becomes_a_url(given: str, url: str) -> None:
    """Paths and shortcuts of Copier are converted to URLs for uv."""
    assert hidden_value("jobnik_repository", _src_path=given) == url


@pytest.mark.parametrize(
    ("recorded", "revision"),
    [("0a1b2c3", "0a1b2c3"), ("v1.2.0", "v1.2.0"), ("v1.2.0-3-g0a1b2c3", "0a1b2c3"), ("v1.0-rc-1", "v1.0-rc-1")],
)
def test_the_version_of_the_template_becomes_a_revision(recorded: str, revision: str) -> None:
    """A tag is kept; a commit after a tag becomes its hash."""
    assert hidden_value("jobnik_revision", _commit=recorded) == revision


@pytest.mark.parametrize("prefix", ["", "git+file://"])
def test_packages_come_from_the_commit_of_the_template(
    render: Callable[..., Path], template: Path, tool: Callable[..., str], prefix: str
) -> None:
    """SDK, development tools and manager are pinned to the commit that the project was rendered from."""
    commit = tool("git", "rev-parse", "--short", "HEAD", cwd=template).strip()
    project = render(f"{prefix}{template}")

    assert tomllib.loads((project / "pyproject.toml").read_text())["tool"]["uv"]["sources"] == {
        "jobnik-sdk": {"git": f"file://{template}", "rev": commit, "subdirectory": "sdk"},
        "jobnik-devtools": {"git": f"file://{template}", "rev": commit, "subdirectory": "devtools"},
        "jobnik-reference-manager": {"git": f"file://{template}", "rev": commit, "subdirectory": "reference_manager"},
    }


def test_packages_come_from_an_index_if_requested(render: Callable[..., Path]) -> None:
    """With sdk_source=index only versions are pinned, and the answer is recorded for updates."""
    project = render(sdk_source="index")

    assert "sources" not in tomllib.loads((project / "pyproject.toml").read_text())["tool"]["uv"]
    assert yaml.safe_load((project / ".copier-answers.yml").read_text())["sdk_source"] == "index"


@pytest.fixture
def server(released: Path, tmp_path: Path, tool: Callable[..., str]) -> Generator[str]:
    """Serve a repository with a release over plain HTTP, and return its URL."""
    tool("git", "clone", "--quiet", "--bare", released, "jobnik.git", cwd=tmp_path)
    tool("git", "update-server-info", cwd=tmp_path / "jobnik.git")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/jobnik.git"
        server.shutdown()


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_a_project_updates_its_sdk_over_http(
    server: str, released: Path, tmp_path: Path, tool: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project that is rendered, installed and updated over HTTP has the SDK of the version it follows."""
    monkeypatch.setenv("COPIER_CACHE_DIR", str(tmp_path / "mirrors"))
    before = tool("git", "rev-parse", "HEAD~1", cwd=released).strip()

    def installed(project: Path) -> str:
        tool("uv", "sync", "--quiet", "--no-dev", cwd=project)
        version = "from importlib.metadata import version; print(version('jobnik-sdk'))"
        return tool(project / ".venv" / "bin" / "python", "-c", version, cwd=project).strip()

    project = render(server, tmp_path / "worker", tag=before, example=False)
    commit_owner_change(project, change_nothing, tool)
    assert installed(project) == QUESTIONS["jobnik_version"]["default"]
    assert server in (project / "uv.lock").read_text()

    commit(project, tool)
    update(project)
    assert installed(project) == next_version()


@pytest.mark.matrix
@pytest.mark.timeout(600)
def test_a_project_works_without_uv(template: Path, tmp_path: Path, tool: Callable[..., str]) -> None:
    """A project rendered by Copier from pip has a Makefile that installs uv and everything else."""
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if not (Path(folder) / "uv").exists())
    tool(sys.executable, "-m", "venv", "plain", cwd=tmp_path)
    tool(tmp_path / "plain" / "bin" / "pip", "install", "--quiet", "copier", cwd=tmp_path, PATH=path)
    answers = ("--defaults", "--data", "service_name=worker")
    tool(tmp_path / "plain" / "bin" / "copier", "copy", *answers, template, "worker", cwd=tmp_path, PATH=path)

    assert " passed" in tool("make", "test", cwd=tmp_path / "worker", PATH=path)
    assert (tmp_path / "worker" / ".uv" / "bin" / "uv").exists()
