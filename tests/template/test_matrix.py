"""Projects of many answers and many versions: each passes its own lint, types and tests, and its worker works."""

from collections.abc import Awaitable, Callable, Iterable
from itertools import combinations
from pathlib import Path

import pytest

from tests.template.owners import Deed, edit_what_is_theirs, leave_alone, replace_the_example, take_over
from tests.template.proofs import prove_checks, prove_work
from tests.template.test_rendering import CHOICES, COMBINATIONS
from tests.template.versions import Version, find_versions, make_update, render

Tool = Callable[..., str]
Proof = Callable[[Path], Awaitable[None]]
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
BEFORE_THE_API = {"b835154", "2342d42"}
"""Whose handlers and tests called an SDK of other names: whoever has edited them has to go on. Before the first release
nothing was promised."""


@pytest.fixture
def prove(installed: Path, jobnik_manager: str, tool: Tool) -> Proof:
    """Give a function that proves all projects of a folder."""

    async def prove_all(folder: Path) -> None:
        prove_checks(folder, installed, jobnik_manager, tool)
        await prove_work(folder, installed, jobnik_manager)

    return prove_all


def test_every_pair_of_answers_is_covered() -> None:
    """Whichever two questions and answers are taken, one of the nine rows has both."""
    for one, other in combinations(CHOICES, 2):
        pairs = {(row[one], row[other]) for row in PAIRWISE}
        assert len(pairs) == len(CHOICES[one]) * len(CHOICES[other])


@pytest.mark.timeout(240)
async def test_projects_are_whole(thin_template: Path, history: Path, tmp_path: Path, tool: Tool, prove: Proof) -> None:
    """Every pair of answers, what was left alone or written anew in the oldest version, and edits of the latest one."""
    render_all(thin_template, PAIRWISE, tmp_path)
    oldest, latest = VERSIONS[0], VERSIONS[-1]
    cases = [(oldest, leave_alone), (oldest, replace_the_example), (latest, edit_what_is_theirs)]
    update_all(history, cases, tmp_path, tool)

    await prove(tmp_path)


@pytest.mark.matrix
@pytest.mark.timeout(600)
async def test_every_combination_is_whole(thin_template: Path, tmp_path: Path, prove: Proof) -> None:
    """All answers in all combinations."""
    render_all(thin_template, COMBINATIONS, tmp_path)

    await prove(tmp_path)


@pytest.mark.matrix
@pytest.mark.timeout(600)
async def test_every_updated_project_is_whole(history: Path, tmp_path: Path, tool: Tool, prove: Proof) -> None:
    """All versions, whatever their owners did; from before the API of today, what they left alone or wrote anew."""
    cases = [
        (version, deed)
        for version in VERSIONS
        for deed in (leave_alone, edit_what_is_theirs, replace_the_example)
        if deed is not edit_what_is_theirs or version.revision not in BEFORE_THE_API
    ]
    update_all(history, cases, tmp_path, tool)

    await prove(tmp_path)


def render_all(template: Path, rows: Iterable[Answers], folder: Path) -> None:
    """Render a project for each row of answers, each with a name of its own."""
    for number, answers in enumerate(rows):
        render(template, folder / f"worker-{number}", tag=None, **answers)


def update_all(history: Path, cases: Iterable[tuple[Version, Deed]], folder: Path, tool: Tool) -> None:
    """Render projects of these versions, let their owners do something, and update them."""
    for number, (version, deed) in enumerate(cases):
        project = render(history, folder / f"updated-{number}", tag=version.tag)
        take_over(project, deed, tool)
        make_update(project, tool)
