"""`copier update`: what is new in the template arrives, and what was changed in the project stays."""

import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
import yaml

Tool = Callable[..., str]


@pytest.fixture
def history(thin_template: Path, tmp_path: Path, tool: Tool) -> Path:
    """Give a clone of the template with a commit of its own, so that there is something to update from."""
    clone = tmp_path / "history"
    tool("git", "clone", "--quiet", thin_template, clone, cwd=tmp_path)
    return clone


def commit(repository: Path, tool: Tool) -> None:
    """Commit everything that lies in a repository."""
    tool("git", "add", "--all", cwd=repository)
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    tool("git", *identity, "commit", "--quiet", "--message", "A change", cwd=repository)


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one place where `old` stands."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def release(template: Path, tool: Tool) -> None:
    """Make a newer template: another version of the SDK, a new line near what users edit, a new file."""
    for package in ("sdk", "reference_manager"):
        edit(template / package / "pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    edit(template / "copier.yml", 'default: "0.1.0"', 'default: "0.2.0"')
    edit(template / "template" / "Dockerfile.jinja", "# Probes and metrics.", "# Probes and metrics, on one port.")
    edit(template / "template" / "pyproject.toml.jinja", "requires-python =", 'license = "MIT"\nrequires-python =')
    edit(template / "template" / "helm" / "values.yaml.jinja", "drainSeconds: 45", "drainSeconds: 60")
    (template / "template" / "NEW.md").write_text("New in this version.\n")
    commit(template, tool)


def take_over(project: Path, tool: Tool) -> None:
    """Put a fresh project under git, as its owner would."""
    tool("git", "init", "--quiet", cwd=project)
    commit(project, tool)


def update(project: Path) -> None:
    """Run `copier update` as a bot does: no questions, no trust."""
    copier.run_update(project, defaults=True, overwrite=True, quiet=True, unsafe=False)


def test_an_edited_project_keeps_its_edits(render: Callable[..., Path], history: Path, tool: Tool) -> None:
    """Edits of every kind survive, the example stays deleted, the pin moves, and nothing conflicts."""
    project = render(history)
    source = project / "src" / "thumbnail_worker"
    edit(source / "handlers.py", "# Renamed into place when it is whole", "# Mine: renamed when it is whole")
    edit(source / "settings.py", "le=95", "le=90")
    edit(project / "pyproject.toml", '  "pillow>=13.0",\n', '  "pillow>=13.0",\n  "tifffile>=2025",\n')
    edit(project / "helm" / "values.yaml", "replicas: 1\n", "replicas: 3\n")
    (project / "tests" / "unit" / "test_handlers.py").unlink()
    (source / "mine.py").write_text('"""Mine."""\n')
    take_over(project, tool)
    release(history, tool)

    update(project)

    newest = tool("git", "rev-parse", "--short", "HEAD", cwd=history).strip()
    configuration = tomllib.loads((project / "pyproject.toml").read_text())
    assert configuration["tool"]["uv"]["sources"]["jobnik-sdk"]["rev"] == newest
    assert "jobnik-sdk[telemetry]==0.2.0" in configuration["project"]["dependencies"]
    assert "tifffile>=2025" in configuration["project"]["dependencies"]
    assert configuration["project"]["license"] == "MIT"
    values = yaml.safe_load((project / "helm" / "values.yaml").read_text())
    assert (values["replicas"], values["drainSeconds"]) == (3, 60)
    assert "# Mine: renamed" in (source / "handlers.py").read_text()
    assert "le=90" in (source / "settings.py").read_text()
    assert (source / "mine.py").exists()
    assert (project / "NEW.md").exists()
    assert not (project / "tests" / "unit" / "test_handlers.py").exists()
    assert_no_conflicts(project)


@pytest.mark.parametrize("sdk_source", ["git", "index"])
@pytest.mark.parametrize("tagged", [True, False])
def test_an_untouched_project_becomes_a_fresh_one(
    render: Callable[..., Path],
    history: Path,
    tool: Tool,
    tagged: bool,  # noqa: FBT001 - pytest passes it by name
    sdk_source: str,
) -> None:
    """An update gives exactly what rendering the newer template would, by tag or by commit, from git or an index."""
    if tagged:
        tool("git", "tag", "v0.1.0", cwd=history)
    project = render(history, sdk_source=sdk_source)
    take_over(project, tool)
    release(history, tool)
    if tagged:
        tool("git", "tag", "v0.2.0", cwd=history)

    update(project)

    fresh, updated = history.parent / "fresh", history.parent / "updated"
    data = {"service_name": "thumbnail-worker", "sdk_source": sdk_source}
    copier.run_copy(str(history), fresh, data=data, defaults=True, quiet=True)
    tool("git", "add", "--all", cwd=project)
    tool("git", "checkout-index", "--all", f"--prefix={updated}/", cwd=project)
    tool("git", "diff", "--no-index", "--exit-code", fresh, updated, cwd=history.parent)
    assert_no_conflicts(project)


def assert_no_conflicts(project: Path) -> None:
    """Look for what Copier leaves where it could not merge."""
    assert not list(project.rglob("*.rej"))
    found = subprocess.run(["git", "grep", "--untracked", "-lE", "^(<<<<<<<|>>>>>>>)"], cwd=project, check=False)
    assert found.returncode == 1
