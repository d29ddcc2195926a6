"""`make doctor` and `make update` in rendered projects."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
from jobnik_devtools.doctor import chart
from jobnik_devtools.doctor.findings import Level
from jobnik_devtools.doctor.project import Project

from tests.template.quick_copier import doctor_command
from tests.template.versions import commit, edit

Tool = Callable[..., str]

RENDER_TIMEOUT = 60
"""Seconds: Copier renders several times, and uv may have to fetch it first."""
pytestmark = pytest.mark.timeout(RENDER_TIMEOUT)


@pytest.fixture
def template(thin_template: Path, tmp_path: Path, tool: Tool) -> Path:
    """Return a clone of the template that a test can change or remove."""
    tool("git", "clone", "--quiet", thin_template, tmp_path / "template", cwd=tmp_path)
    tool("git", "tag", "v0.1.0", cwd=tmp_path / "template")
    return tmp_path / "template"


@pytest.fixture
def project(render: Callable[..., Path], template: Path, tool: Tool) -> Path:
    """Return a project in a git repository."""
    project = render(template)
    tool("git", "init", "--quiet", cwd=project)
    commit(project, tool)
    return project


def doctor(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the doctor of this working tree in a project, as `make doctor` runs the installed one."""
    return subprocess.run(
        [*doctor_command(), "thumbnail_worker", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def findings(printed: str) -> dict[str, list[str]]:
    """Return the findings by the names of the checks: the sign, the text and, after an arrow, the remedy."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in printed.partition("\n\n")[0].splitlines():
        sign, title, text = line[:4].strip(), line[4:14].strip(), line[15:]
        name = title or name
        if sign:
            found.setdefault(name, []).append(f"{sign} {text}")
        else:
            found[name][-1] += f" {text}"
    return found


def release(template: Path, tool: Tool) -> None:
    """Release a newer version of the template."""
    edit(template / "template" / "Dockerfile.jinja", "# Probes and metrics.", "# Probes and metrics, on one port.")
    (template / "template" / "NEW.md").write_text("New in this version.\n")
    commit(template, tool)
    tool("git", "tag", "v0.2.0", cwd=template)


def test_each_problem_comes_with_a_remedy(project: Path, template: Path, tool: Tool) -> None:
    """A project with problems in every check: template, lock file, settings, manager and values."""
    (project / "renovate.json").unlink()
    (project / "seed.py").unlink()
    edit(project / "Makefile", "PORT := 8080", "PORT := 9090")
    edit(project / "AGENTS.md", "# Working on", "# At work on")
    edit(project / "src" / "thumbnail_worker" / "container.py", "quality=", "mine=")
    edit(project / "README.md", "# thumbnail-worker", "<<<<<<< before updating\n# Thumbnails")
    edit(project / "pyproject.toml", 'version = "0.1.0"', 'version = "3.0.0"')
    edit(project / "helm" / "values.yaml", "concurrency: 1", "concurrency: 1\n    concurency: 2")
    (project / "helm" / "values-prod.yaml").write_text("replicas: many\n")
    (project / ".env").write_text("JOBNIK_BASE_URL=http://127.0.0.1:9\nTHUMBNAIL_QUALITY=100\n")
    release(template, tool)

    result = doctor(project)

    assert result.returncode == 1, result.stderr
    assert findings(result.stdout) == {
        "template": [
            "✗ conflicts not merged: README.md → edit the lines between <<<<<<< and >>>>>>>, then git add the file",
            "! edited in this project: Makefile → keep your version, or run make doctor RESTORE=Makefile",
            "! deleted in this project: renovate.json → leave it deleted, or run make doctor RESTORE=renovate.json",
            (
                "! template v0.2.0 is available, this project follows v0.1.0;"
                " it changes Dockerfile, NEW.md, pyproject.toml"
                " → commit your work, then run make update"
            ),
        ],
        "lock": ["✗ uv.lock does not match pyproject.toml → run uv lock, then commit uv.lock"],
        "settings": [
            (
                "✗ THUMBNAIL_QUALITY: Input should be less than or equal to 95"
                " → set it in .env or in the environment; the environment takes precedence"
            )
        ],
        "manager": [
            (
                "✗ http://127.0.0.1:9 does not answer: All connection attempts failed."
                " → start the manager (make dev starts one), or correct JOBNIK_BASE_URL"
            )
        ],
        "chart": [
            "✗ helm/values.yaml: env.worker: Additional properties are not allowed ('concurency' was unexpected)",
            (
                '✗ helm/values-prod.yaml: replicas: "many" is not of type "integer"'
                " → correct the value; the comments in helm/values.yaml describe each one"
            ),
        ],
    }
    assert result.stdout.endswith("\n\n6 problems, 3 notes.\n")


def test_check_that_cannot_be_made_says_why(project: Path, template: Path) -> None:
    """Without the template, the other checks still run."""
    template.rename(template.with_name("elsewhere"))

    result = doctor(project)

    found = findings(result.stdout)
    assert found["template"] == [
        (
            f"? not checked: the template at {template} cannot be read: Local template must be a directory."
            " → check that it is reachable: .copier-answers.yml has its address (_src_path) and version (_commit)"
        )
    ]
    assert found["chart"] == ["✓ valid: values.yaml"]


def test_chart_is_rendered_if_helm_is_installed(project: Path, helm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that match the schema are rendered, and an error in a template is a problem."""
    monkeypatch.setenv("PATH", str(helm.parent), prepend=os.pathsep)
    assert next(chart.check(Project(project, "thumbnail_worker"))).level is Level.OK
    (project / "helm" / "templates" / "limits.yaml").write_text(
        '{{ if gt .Values.replicas 9.0 }}{{ fail "many" }}{{ end }}'
    )
    (project / "helm" / "values-prod.yaml").write_text("replicas: 10\n")

    (found,) = chart.check(Project(project, "thumbnail_worker"))

    assert found.level is Level.PROBLEM
    assert found.text.startswith(
        "with helm/values-prod.yaml: execution error at (thumbnail-worker/templates/limits.yaml"
    )
    assert found.text.endswith(": many")


@pytest.mark.parametrize("option", ["--restore", "--heal"])
def test_file_is_restored_and_updated_again(project: Path, template: Path, tool: Tool, option: str) -> None:
    """The file is that of the version that the project follows, and `make update` updates it again."""
    dockerfile = project / "Dockerfile"
    rendered = dockerfile.read_text()
    dockerfile.write_text("FROM scratch\n")
    commit(project, tool)
    release(template, tool)

    result = doctor(project, option, "Dockerfile")

    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        "Dockerfile was restored to the template at v0.1.0. To see the changes, run git diff Dockerfile\n"
    )
    assert dockerfile.read_text() == rendered
    commit(project, tool)
    assert doctor(project, "--update").returncode == 0
    assert "on one port" in dockerfile.read_text()
    assert (project / "NEW.md").exists()


def owned_files(project: Path) -> list[Path]:
    """Return the files that the README assigns to the owner, and the documents."""
    table = (project / "README.md").read_text().split("## Project layout")[1].split("\n## ")[0]
    named = [project / name for name in re.findall(r"^\| `(\S+)` \|", table, re.MULTILINE)]
    assert len(named) == 6
    files = [file for path in named for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return [*files, project / "README.md", project / "AGENTS.md"]


@pytest.mark.parametrize("change", ["rewritten", "deleted"])
def test_owners_files_are_not_compared(project: Path, template: Path, tool: Tool, change: str) -> None:
    """The doctor mentions none of them, whatever their owner did to them, also after `copier update` has run alone."""
    for file in owned_files(project):
        file.write_text('"""Mine."""\n') if change == "rewritten" else file.unlink()
    commit(project, tool)
    matches = "the project matches the template at"
    assert findings(doctor(project).stdout)["template"] == [f"✓ {matches} v0.1.0, the newest version"]
    before = {path: path.read_bytes() for path in (project / "src").rglob("*.py")}
    for name in ("container", "definitions", "handlers", "settings"):
        for path in (template / "template" / "src").rglob(f"*{name}.py*"):
            path.write_text(f"# New in this version.\n{path.read_text()}")
    release(template, tool)

    copier.run_update(project, defaults=True, overwrite=True, quiet=True)

    assert {path: path.read_bytes() for path in (project / "src").rglob("*.py")} == before
    assert findings(doctor(project).stdout)["template"] == [f"✓ {matches} v0.2.0, the newest version"]


def test_owners_parts_of_a_restored_file_are_kept(project: Path, tool: Tool) -> None:
    """The lines of .env.example below the marker, and the additions to pyproject.toml."""
    pyproject, example = project / "pyproject.toml", project / ".env.example"
    edit(pyproject, '  "pillow>=13.0",\n', '  "pillow>=13.0",\n  "tifffile",\n')
    edit(example, "THUMBNAIL_QUALITY=85", "BUCKET=pictures")
    before = {path: path.read_text() for path in (pyproject, example)}
    assert "edited in this project" not in doctor(project).stdout
    edit(pyproject, "line-length = 120", "line-length = 80")
    edit(example, "WORKER_CONCURRENCY=1", "WORKER_CONCURRENCY=8")
    commit(project, tool)
    (project / "renovate.json").unlink()
    (project / "README.md").unlink()
    found = findings(doctor(project).stdout)["template"]
    assert [text.partition(" → ")[0] for text in found] == [
        "! edited in this project: .env.example, pyproject.toml",
        "! deleted in this project: renovate.json",
    ]

    for path in before:
        assert doctor(project, "--restore", str(path.relative_to(project))).returncode == 0

    assert {path: path.read_text() for path in before} == before


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("Makefile", "git does not have the current contents of Makefile, which would be lost; commit them first"),
        ("src/thumbnail_worker/mine.py", "the template has no src/thumbnail_worker/mine.py at v0.1.0"),
        ("../template/copier.yml", "../template/copier.yml is not in this project"),
        (".copier-answers.yml", "is written by Copier; run git restore .copier-answers.yml instead"),
        (".gitignore", ".gitignore is not a regular file in this project; move it away first"),
    ],
)
def test_restore_never_loses_contents(project: Path, file: str, why: str) -> None:
    """Contents that git does not have, and files that the template does not have, are left alone."""
    (project / "Makefile").write_text("mine:\n")
    (project / "src" / "thumbnail_worker" / "mine.py").write_text('"""Mine."""\n')
    (project / ".gitignore").unlink()
    (project / ".gitignore").symlink_to(project.parent / "template" / ".gitignore")
    before = {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()}

    result = doctor(project, "--restore", file)

    assert result.returncode == 1
    assert result.stderr.startswith(f"{file} was not restored: ")
    assert why in result.stderr
    assert {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()} == before


def test_update_requires_a_clean_working_tree(project: Path) -> None:
    """The message lists what is not committed, and nothing is changed."""
    (project / "mine.txt").write_text("Mine.\n")

    result = doctor(project, "--update")

    message = "Nothing was updated: commit or stash these changes first:\n?? mine.txt\n"
    assert (result.returncode, result.stderr) == (1, message)


def test_update_lists_conflicts_and_fails(project: Path, template: Path, tool: Tool) -> None:
    """The message names each file and says how to resolve it, also if `make` cannot read the Makefile any more."""
    for folder, port, replicas in ((project, 9090, 3), (template / "template", 7070, 5)):
        suffix = "" if folder is project else ".jinja"
        edit(folder / f"Makefile{suffix}", "PORT := 8080", f"PORT := {port}")
        edit(folder / "helm" / f"values.yaml{suffix}", "replicas: 1", f"replicas: {replicas}")
    commit(project, tool)
    release(template, tool)

    result = doctor(project, "--update")

    assert result.returncode == 1, result.stderr
    _, _, message = result.stderr.partition("The update is not complete. ")
    assert message == (
        "These files have conflicts, because you and the template changed the same lines:\n"
        "    Makefile\n"
        "    helm/values.yaml\n"
        "Edit the lines between <<<<<<< and >>>>>>> in each file, then run git add FILE.\n"
        "To choose one version of a whole file, first run git checkout --ours FILE (yours) or --theirs FILE (new).\n"
        "No make command works until the Makefile is merged. "
        "To continue with your version, run git checkout --ours Makefile, then git add Makefile.\n"
    )
    tool("git", "checkout", "--ours", "Makefile", cwd=project)
    tool("git", "add", "Makefile", cwd=project)
    assert "PORT := 9090" in tool("make", "--print-data-base", "help", cwd=project)
    found = findings(doctor(project).stdout)["template"]
    assert found[0].startswith("✗ conflicts not merged: helm/values.yaml →")
