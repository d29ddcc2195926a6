"""`make doctor` and `make update` in rendered projects."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jobnik_devtools.doctor import chart
from jobnik_devtools.doctor.findings import Level
from jobnik_devtools.doctor.project import Project

from tests.template.versions import commit, edit

Tool = Callable[..., str]

RENDER_TIMEOUT = 60
"""Seconds. Copier renders several times, and uv may have to download it first."""
pytestmark = pytest.mark.timeout(RENDER_TIMEOUT)


@pytest.fixture
def template(thin_template: Path, tmp_path: Path, tool: Tool) -> Path:
    """Return a clone of the template that a test may change or move."""
    tool("git", "clone", "--quiet", thin_template, tmp_path / "template", cwd=tmp_path)
    tool("git", "tag", "v0.1.0", cwd=tmp_path / "template")
    return tmp_path / "template"


@pytest.fixture
def project(render: Callable[..., Path], template: Path, tool: Tool) -> Path:
    """Return a committed project."""
    project = render(template)
    tool("git", "init", "--quiet", cwd=project)
    commit(project, tool)
    return project


def doctor(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run this working tree's doctor on a project, as `make doctor` runs the installed one."""
    return subprocess.run(
        [sys.executable, "-m", "jobnik_devtools.doctor", "thumbnail_worker", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def findings(printed: str) -> dict[str, list[str]]:
    """Parse the output: findings by check, each with its sign, its text and, after an arrow, the remedy."""
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
    """Create a newer version of the template."""
    edit(template / "template" / "Dockerfile.jinja", "# Probes and metrics.", "# Probes and metrics, on one port.")
    (template / "template" / "NEW.md").write_text("New in this version.\n")
    commit(template, tool)
    tool("git", "tag", "v0.2.0", cwd=template)


def test_each_problem_is_reported_with_its_remedy(project: Path, template: Path, tool: Tool) -> None:
    """One run reports drift, a newer template, a bad lock file, bad settings, a missing manager and bad values."""
    (project / "renovate.json").unlink()
    (project / "seed.py").unlink()
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
            "✗ not merged yet: README.md → choose between <<<<<<< and >>>>>>> there, then git add it",
            "! edited here: AGENTS.md → keep it, or put back what the template has: make doctor HEAL=AGENTS.md",
            "! deleted here: renovate.json → leave it out, or bring it back: make doctor HEAL=renovate.json",
            (
                "! v0.2.0 is there, and this follows v0.1.0; newer there: Dockerfile, NEW.md, pyproject.toml"
                " → commit what you have, then make update"
            ),
        ],
        "lock": ["✗ uv.lock does not fit pyproject.toml → uv lock, then commit uv.lock"],
        "settings": [
            (
                "✗ THUMBNAIL_QUALITY: Input should be less than or equal to 95"
                " → set it in .env, or in the environment, which wins"
            )
        ],
        "manager": [
            (
                "✗ http://127.0.0.1:9 does not answer: All connection attempts failed."
                " → start it (make dev starts one), or correct JOBNIK_BASE_URL"
            )
        ],
        "chart": [
            "✗ helm/values.yaml: env.worker: Additional properties are not allowed ('concurency' was unexpected)",
            (
                '✗ helm/values-prod.yaml: replicas: "many" is not of type "integer"'
                " → correct it: the comments in helm/values.yaml say what each value is"
            ),
        ],
    }
    assert result.stdout.endswith("\n\n6 wrong, 3 to know.\n")


def test_a_check_that_cannot_run_explains_why(project: Path, template: Path) -> None:
    """If the template is missing and no manager is configured, the other checks still run."""
    template.rename(template.with_name("elsewhere"))

    result = doctor(project)

    found = findings(result.stdout)
    assert found["template"] == [
        (
            f"? not checked: the template at {template} cannot be read: Local template must be a directory."
            " → can you reach it? .copier-answers.yml has its address (_src_path) and version (_commit)"
        )
    ]
    assert found["manager"] == ["? not checked: JOBNIK_BASE_URL is not set"]
    assert found["settings"][0].startswith("✗ JOBNIK_BASE_URL is not set")
    assert "cp .env.example .env" in found["settings"][0]
    assert found["chart"] == ["✓ values.yaml fits"]


def test_values_are_rendered_if_helm_is_installed(project: Path, helm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With helm, values that match the schema are also rendered, and errors of the templates are reported."""
    monkeypatch.setenv("PATH", str(helm.parent), prepend=os.pathsep)
    assert [found.level for found in chart.check(Project(project, "thumbnail_worker"))] == [Level.WELL]
    (project / "helm" / "templates" / "limits.yaml").write_text(
        '{{ if gt .Values.replicas 9.0 }}{{ fail "many" }}{{ end }}'
    )
    (project / "helm" / "values-prod.yaml").write_text("replicas: 10\n")

    (found,) = chart.check(Project(project, "thumbnail_worker"))

    assert found.level is Level.WRONG
    assert found.text.startswith(
        "with helm/values-prod.yaml: execution error at (thumbnail-worker/templates/limits.yaml"
    )
    assert found.text.endswith(": many")


def test_a_restored_file_follows_the_template_again(project: Path, template: Path, tool: Tool) -> None:
    """HEAL restores the file of the version that the project follows, and `make update` updates it again."""
    dockerfile = project / "Dockerfile"
    rendered = dockerfile.read_text()
    dockerfile.write_text("FROM scratch\n")
    commit(project, tool)
    release(template, tool)

    result = doctor(project, "--heal", "Dockerfile")

    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        "Dockerfile is again what the template renders at v0.1.0. What changed: git diff Dockerfile\n"
    )
    assert dockerfile.read_text() == rendered
    commit(project, tool)
    assert doctor(project, "--update").returncode == 0
    assert "on one port" in dockerfile.read_text()
    assert (project / "NEW.md").exists()


def test_restoring_a_file_keeps_the_owners_lines(project: Path, tool: Tool) -> None:
    """HEAL restores the template's lines of container.py and .env.example and keeps the owner's lines."""
    container, example = project / "src" / "thumbnail_worker" / "container.py", project / ".env.example"
    edit(container, "quality=", "mine=")
    edit(example, "THUMBNAIL_QUALITY=85", "BUCKET=pictures")
    before = {path: path.read_text() for path in (container, example)}
    assert "edited here" not in doctor(project).stdout
    edit(container, "        drain_timeout=settings.provided.drain_timeout,\n", "")
    edit(example, "WORKER_CONCURRENCY=1", "WORKER_CONCURRENCY=8")
    commit(project, tool)
    (project / "README.md").unlink()
    names = ".env.example, src/thumbnail_worker/container.py"
    found = findings(doctor(project).stdout)["template"]
    assert [text.partition(" → ")[0] for text in found] == [f"! edited here: {names}", "! deleted here: README.md"]

    for path in before:
        assert doctor(project, "--heal", str(path.relative_to(project))).returncode == 0

    assert {path: path.read_text() for path in before} == before


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("Makefile", "git does not have Makefile as it is now, and what you wrote would be lost: commit it first"),
        ("src/thumbnail_worker/mine.py", "the template has no src/thumbnail_worker/mine.py at v0.1.0"),
        ("../template/copier.yml", "../template/copier.yml is not in this project"),
        (".copier-answers.yml", "is Copier's own"),
        (".gitignore", ".gitignore is no plain file here: move it away first"),
    ],
)
def test_restoring_a_file_loses_nothing(project: Path, file: str, why: str) -> None:
    """HEAL refuses files with uncommitted changes and files that are not the template's."""
    (project / "Makefile").write_text("mine:\n")
    (project / "src" / "thumbnail_worker" / "mine.py").write_text('"""Mine."""\n')
    (project / ".gitignore").unlink()
    (project / ".gitignore").symlink_to(project.parent / "template" / ".gitignore")
    before = {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()}

    result = doctor(project, "--heal", file)

    assert result.returncode == 1
    assert result.stderr.startswith(f"{file} is not put back: ")
    assert why in result.stderr
    assert {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()} == before


def test_an_update_requires_a_clean_working_tree(project: Path) -> None:
    """`make update` lists uncommitted files and changes nothing."""
    (project / "mine.txt").write_text("Mine.\n")

    result = doctor(project, "--update")

    assert (result.returncode, result.stderr) == (1, "Not updated: commit or stash these first\n?? mine.txt\n")
