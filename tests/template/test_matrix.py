"""Projects with many answers and from many versions pass their lint, types and tests, and their workers run."""

from collections.abc import Awaitable, Callable, Iterable
from itertools import combinations
from pathlib import Path

import pytest

from tests.template.owner_changes import (
    OwnerChange,
    change_nothing,
    commit_owner_change,
    edit_owned_files,
    replace_the_example,
)
from tests.template.project_checks import check_projects, run_workers
from tests.template.test_rendering import CHOICES, COMBINATIONS
from tests.template.versions import Version, find_versions, make_update, render

Tool = Callable[..., str]
ProjectCheck = Callable[[Path], Awaitable[None]]
Answers = dict[str, str | bool]

PAIRWISE: list[Answers] = [
    dict(zip(CHOICES, answers, strict=True))
    for answers in (
        ("async", "helm", "github", True),
        ("async", "none", "gitlab", True),
        ("async", "helm", "none", False),
        ("thread", "none", "github", False),
        ("thread", "helm", "gitlab", False),
        ("thread", "none", "none", True),
        ("process", "helm", "github", False),
        ("process", "none", "gitlab", False),
        ("process", "helm", "none", True),
    )
]
VERSIONS = find_versions()
BEFORE_CURRENT_API = {"b835154", "2342d42"}
"""Versions before the first release whose handlers and tests use incompatible names of the SDK. Their owners must
migrate edited files themselves."""


@pytest.fixture
def check(installed: Path, jobnik_manager: str, tool: Tool) -> ProjectCheck:
    """Return a function that checks all projects in a folder."""

    async def check_all(folder: Path) -> None:
        check_projects(folder, installed, jobnik_manager, tool)
        await run_workers(folder, installed, jobnik_manager)

    return check_all


def test_every_pair_of_answers_is_covered() -> None:
    """For any two questions, the nine rows contain every pair of answers."""
    for one, other in combinations(CHOICES, 2):
        pairs = {(row[one], row[other]) for row in PAIRWISE}
        assert len(pairs) == len(CHOICES[one]) * len(CHOICES[other])


@pytest.mark.timeout(480)
async def test_projects_pass_their_checks(
    thin_template: Path, history: Path, tmp_path: Path, tool: Tool, check: ProjectCheck
) -> None:
    """Projects with every pair of answers, and updated projects of the oldest and the latest version, pass."""
    render_all(thin_template, PAIRWISE, tmp_path)
    oldest, latest = VERSIONS[0], VERSIONS[-1]
    cases = [(oldest, change_nothing), (oldest, replace_the_example), (latest, edit_owned_files)]
    update_all(history, cases, tmp_path, tool)

    await check(tmp_path)


@pytest.mark.matrix
@pytest.mark.timeout(600)
async def test_every_combination_passes_its_checks(thin_template: Path, tmp_path: Path, check: ProjectCheck) -> None:
    """Projects with every combination of answers pass."""
    render_all(thin_template, COMBINATIONS, tmp_path)

    await check(tmp_path)


@pytest.mark.matrix
@pytest.mark.timeout(600)
async def test_every_updated_project_passes_its_checks(
    history: Path, tmp_path: Path, tool: Tool, check: ProjectCheck
) -> None:
    """Updated projects of all versions and with all owner changes pass, except edits of incompatible versions."""
    cases = [
        (version, change)
        for version in VERSIONS
        for change in (change_nothing, edit_owned_files, replace_the_example)
        if change is not edit_owned_files or version.revision not in BEFORE_CURRENT_API
    ]
    update_all(history, cases, tmp_path, tool)

    await check(tmp_path)


def render_all(template: Path, rows: Iterable[Answers], folder: Path) -> None:
    """Render a project for each row of answers, with different names."""
    for number, answers in enumerate(rows):
        render(template, folder / f"worker-{number}", tag=None, **answers)


def update_all(history: Path, cases: Iterable[tuple[Version, OwnerChange]], folder: Path, tool: Tool) -> None:
    """Render projects of these versions, apply the owner's change, and update them."""
    for number, (version, change) in enumerate(cases):
        project = render(history, folder / f"updated-{number}", tag=version.tag)
        commit_owner_change(project, change, tool)
        make_update(project, tool)
