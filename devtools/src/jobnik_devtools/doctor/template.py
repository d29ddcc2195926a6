"""The template of a project, and what it renders from the project's answers."""

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

import yaml

from jobnik_devtools.doctor.findings import CannotCheckError
from jobnik_devtools.doctor.project import Project, failure_cause

ANSWERS: Final = ".copier-answers.yml"
COPIER: Final = ("tool", "run", "--quiet", "--from", "copier>=9.19", "copier")


@dataclass(frozen=True)
class Rendering:
    """The files that a version of the template renders: their texts by their paths, such as `helm/Chart.yaml`."""

    version: str
    files: Mapping[str, str]


class Template:
    """The template at the address that a project records.

    Args:
        project: The project.
        answers: The contents of an earlier answers file; default: those of the project's present file.
    """

    def __init__(self, project: Project, answers: str | None = None) -> None:
        present = read_answers(project)
        self._project = project
        self.address = str(present.get("_src_path", "?"))
        # The template may have moved since the earlier answers were recorded.
        self._answers = {**(parse_answers(answers) if answers else present), "_src_path": self.address}
        self.version = str(self._answers.get("_commit", "?"))

    def current(self) -> Rendering:
        """Render the version that the answers record."""
        rendering = self._render("--vcs-ref", ":current:")
        # The same commit can have another name by now: a tag that was added since, or more digits of its hash.
        new, old = (revision(version) for version in (rendering.version, self.version))
        names = re.compile(rf'(?<=rev = "){re.escape(new)}(?=")|(?<=@){re.escape(new)}(?=#subdirectory=)')
        files = {name: names.sub(lambda _: old, text) for name, text in rendering.files.items()}
        return Rendering(self.version, files)

    def newest(self) -> Rendering | None:
        """Render the newest version; None if the project follows it, or an even newer one."""
        with self._folder() as folder:
            newer = json.loads(self._copier(folder, "check-update", "--output-format", "json"))["update_available"]
        return self.latest() if newer else None

    def latest(self) -> Rendering:
        """Render the latest release, or the latest commit if the template has no releases."""
        return self._render()

    def _render(self, *version: str) -> Rendering:
        with self._folder() as folder:
            self._copier(folder, "recopy", "--defaults", "--overwrite", "--quiet", *version)
            found = [path for path in folder.rglob("*") if path.is_file()]
            texts = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in found}
        return Rendering(str(parse_answers(texts.pop(ANSWERS))["_commit"]), texts)

    @contextmanager
    def _folder(self) -> Generator[Path]:
        """Yield a folder that contains only the answers, which are all that Copier needs."""
        with TemporaryDirectory(prefix="jobnik-doctor-") as folder:
            (Path(folder) / ANSWERS).write_text(yaml.safe_dump(self._answers, allow_unicode=True), encoding="utf-8")
            yield Path(folder)

    def _copier(self, folder: Path, *arguments: str) -> str:
        result = self._project.uv(*COPIER, *arguments, cwd=folder)
        if result.returncode != 0:
            raise CannotCheckError(
                f"the template at {self.address} cannot be read: {self._refusal_by_git() or failure_cause(result)}",
                f"check that it is reachable: {ANSWERS} has its address (_src_path) and version (_commit)",
            )
        return result.stdout

    def _refusal_by_git(self) -> str:
        """Return why git cannot read a local template, such as one that belongs to another user; empty if it can.

        Copier treats such a template as a folder without versions, and does not say why.
        """
        if not Path(self.address).is_dir():
            return ""
        result = self._project.run("git", "-C", self.address, "rev-parse", "HEAD")
        return failure_cause(result) if result.returncode != 0 else ""


def read_answers(project: Project) -> Mapping[str, Any]:
    """Return the answers that a project records.

    Raises:
        CannotCheckError: their file is missing or invalid.
    """
    file = project.root / ANSWERS
    if not file.exists():
        raise CannotCheckError(f"{ANSWERS}, which records the template, is missing", f"run git restore {ANSWERS}")
    return parse_answers(file.read_text(encoding="utf-8"))


def parse_answers(text: str) -> Mapping[str, Any]:
    """Return the answers in the text of an answers file.

    Raises:
        CannotCheckError: the text is not a mapping in YAML.
    """
    try:
        answers: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CannotCheckError(f"{ANSWERS} is not valid YAML: {error}", f"run git restore {ANSWERS}") from None
    if not isinstance(answers, dict):
        raise CannotCheckError(f"{ANSWERS} has no answers", f"run git restore {ANSWERS}")
    return cast("dict[str, Any]", answers)


def revision(version: str) -> str:
    """Return the name that git knows a recorded version by: for `v1.2.0-3-gabc1234`, a commit after a tag, its hash."""
    return re.sub(r"^.*-\d+-g([0-9a-f]+)$", r"\1", version)
