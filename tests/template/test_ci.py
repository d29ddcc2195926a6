"""The files that other programs run: continuous integration, and the bot that follows the template."""

from collections.abc import Callable
from pathlib import Path

import pytest

Tool = Callable[..., str]


@pytest.mark.parametrize("deploy", ["helm", "none"])
def test_each_is_what_its_program_reads(render: Callable[..., Path], tool: Tool, own: Path, deploy: str) -> None:
    """The programs' own schemas accept each file, with a chart and without."""
    project = render(ci="github", deploy=deploy)
    tool(own / "check-jsonschema", "--builtin-schema", "vendor.renovate", "renovate.json", cwd=project)
    workflow = ".github/workflows/ci.yml"
    tool(own / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow, cwd=project)

    project = render(ci="gitlab", deploy=deploy)
    tool(own / "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", ".gitlab-ci.yml", cwd=project)


def test_the_workflow_has_no_findings(render: Callable[..., Path], tool: Tool, own: Path) -> None:
    """An audit of GitHub's workflows finds nothing: pinned actions, no credentials left behind, few permissions."""
    tool(own / "zizmor", "--offline", "--pedantic", "--no-progress", ".github/workflows/ci.yml", cwd=render())
