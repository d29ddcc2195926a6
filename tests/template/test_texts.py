"""Every name and text that a user may give is the same text wherever it is rendered, or it is refused."""

import ast
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import copier
import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tests.template.charts import DOWNLOAD_TIMEOUT, Chart, StrictLoader, mappings_in
from tools.crds import Schema
from tools.reserved_names import QUESTIONS, recorded_names

pytestmark = pytest.mark.timeout(DOWNLOAD_TIMEOUT)

RESERVED = {*recorded_names(QUESTIONS.read_text())}

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True).filter(
    lambda name: not {name, name.replace("--", "-")} & RESERVED
)
STAGE_TYPES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", fullmatch=True).filter(str.isascii)
DESCRIPTIONS = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters='"\\$`{}\ufeff\ufffe\uffff'),
    min_size=1,
    max_size=100,
).filter(str.strip)


def yaml_files(project: Path) -> list[Path]:
    """Return the YAML files of a project that need no rendering."""
    found = [*project.rglob("*.yaml"), *project.rglob("*.yml")]
    return [path for path in found if "templates" not in path.parts]


@cache  # most files do not contain the texts
def read_both(text: str) -> dict[str, Any]:
    """Read a text as YAML 1.1, strictly as Kubernetes does, and as YAML 1.2, and check that both are equal."""
    old: dict[str, Any] = yaml.load(text, StrictLoader)  # noqa: S506 - it is a safe loader
    new = YAML(typ="safe", pure=True).load(text)  # pyright: ignore[reportUnknownMemberType] its annotations
    assert old == new, text
    return old


@given(st.tuples(NAMES, DESCRIPTIONS, STAGE_TYPES))
@example(("no", "no", "no"))
@example(("on", "~", "1e3"))
@example(("y", "- 0123: 'it''s' # & * ! | > % @", "0123"))
@example(("null", "1e3", "0x1F"))
@example(("off", "[a, b]", "2024-01-01"))
@example(("e1", "é漢🎉 \u202eab\u00a0", "1_000.5"))
@example(("w" * 40, "=" * 100, "N" * 50))
@settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_texts_stay_texts(
    thin_template: Path, helm: Path, schemas: Mapping[str, Schema], given_texts: tuple[str, str, str]
) -> None:
    """YAML 1.1 and 1.2, TOML, dotenv, Python, Helm and Kubernetes read the texts that were given."""
    name, description, stage_type = given_texts
    with TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        answers = {"service_name": name, "description": description, "stage_type": stage_type, "ci": "gitlab"}
        data = {**answers, "sdk_source": "index"}
        copier.run_copy(str(thin_template), project, data=data, defaults=True, quiet=True)

        read = {str(path.relative_to(project)): read_both(path.read_text()) for path in yaml_files(project)}
        assert answers.items() <= read[".copier-answers.yml"].items()
        assert (read["helm/Chart.yaml"]["name"], read["helm/Chart.yaml"]["description"]) == (name, description)
        assert read["helm/values.yaml"]["stageTypes"] == [stage_type]
        toml = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        assert (toml["name"], toml["description"], [*toml["scripts"]]) == (name, description, [name])
        assert dotenv_values(project / ".env.example")["OTEL_SERVICE_NAME"] == name
        assert f'description="{description}"\n' in (project / "Dockerfile").read_text()
        package = project / "src" / name.replace("-", "_")
        nodes = ast.walk(ast.parse((package / "definitions.py").read_text()))
        assert stage_type in [node.value for node in nodes if isinstance(node, ast.Constant)]
        for path in project.rglob("*.py"):
            compile(path.read_text(), path, "exec")

        rendered = Chart(project / "helm", helm, schemas).render({"autoscaling": {"by": "queue"}}, release=name)
        labels = [part["matchLabels"] for part in mappings_in(*rendered) if "matchLabels" in part]
        selected = {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": name}
        assert labels
        assert all(selected.items() <= label.items() for label in labels)
        (scaled,) = (one["spec"] for one in rendered if one["kind"] == "ScaledObject")
        assert [trigger["metadata"]["url"].split("/")[-2] for trigger in scaled["triggers"]] == [stage_type]
