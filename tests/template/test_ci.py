"""The CI configuration, and the configuration of the bot that follows the template."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

Tool = Callable[..., str]


@pytest.mark.parametrize("deploy", ["helm", "none"])
def test_each_file_matches_its_schema(render: Callable[..., Path], tool: Tool, bin_dir: Path, deploy: str) -> None:
    """The published schemas accept each file, with and without a chart."""
    project = render(ci="github", deploy=deploy)
    tool(bin_dir / "check-jsonschema", "--builtin-schema", "vendor.renovate", "renovate.json", cwd=project)
    workflow = ".github/workflows/ci.yml"
    tool(bin_dir / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow, cwd=project)

    project = render(ci="gitlab", deploy=deploy)
    tool(bin_dir / "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", ".gitlab-ci.yml", cwd=project)


def test_the_workflow_has_no_findings(render: Callable[..., Path], tool: Tool, bin_dir: Path) -> None:
    """Zizmor finds no problem: actions are pinned, no credentials persist, permissions are minimal."""
    tool(bin_dir / "zizmor", "--offline", "--pedantic", "--no-progress", ".github/workflows/ci.yml", cwd=render())


def test_the_bot_ignores_versions_that_the_template_pins(render: Callable[..., Path], tmp_path: Path) -> None:
    """The bot updates no version that the template pins, because updates of the template would conflict with it."""
    pinned = set[str]()
    for ci in ("github", "gitlab"):
        project = render(ci=ci)
        for file in (".github/workflows/ci.yml", ".gitlab-ci.yml", "Dockerfile"):
            text = (project / file).read_text() if (project / file).exists() else ""
            pinned |= set(re.findall(r"(?:uses: |image: |name: |FROM |services: \[)([\w/-]+)[@:][\w.]+", text))
        pyproject = tomllib.loads((project / "pyproject.toml").read_text())
        everything = [*pyproject["build-system"]["requires"], *pyproject["project"]["dependencies"]]
        everything += pyproject["dependency-groups"]["dev"]
        pinned |= {re.split(r"[^\w-]", name)[0].replace("_", "-") for name in everything if re.search("==|<", name)}
        rules = json.loads((project / "renovate.json").read_text())["packageRules"]
        project.rename(tmp_path / ci)

    assert set(rules[0]["matchPackageNames"]) == pinned
    assert rules[0]["enabled"] is False
