"""What is done with every chart: render it, hold it against all schemas, refuse wrong values, look at its pods."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jsonschema_rs
import kubernetes_validate  # pyright: ignore[reportMissingTypeStubs] it is annotated, and says so nowhere
import yaml
from pydantic import JsonValue

from tools.crds import Schema

GOLDEN = Path(__file__).parent / "golden"

FETCHING = 180
"""Seconds: whichever test comes first fetches what is missing: helm, schemas, promtool or checkov."""

Values = dict[str, Any]
Manifest = dict[str, Any]


class Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, and reads `y` and `n` as Kubernetes does."""

    bool_values: ClassVar = {**yaml.SafeLoader.bool_values, "y": True, "n": False}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """See that each key stands there once."""
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"one of {keys} stands there twice"
        return super().construct_mapping(node, deep)


Strict.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))  # pyright: ignore[reportUnknownMemberType] its stub


@dataclass(frozen=True)
class Chart:
    """A chart, released under its own name into the namespace `jobs`; what was rendered once is not rendered again."""

    folder: Path
    helm: Path
    schemas: Mapping[str, Schema]
    """Of custom resources, by their kind."""
    _rendered: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def about(self) -> dict[str, Any]:
        """What Chart.yaml says."""
        return yaml.safe_load((self.folder / "Chart.yaml").read_text())

    @property
    def everything(self) -> Values:
        """Values that switch on all there is."""
        return everything(self.about["name"].rpartition("-")[2])

    def text(self, values: Values, *, release: str = "") -> str:
        """Return what `helm template` prints by these values, accepted by lint and by the schemas."""
        key = json.dumps([values, release])
        if key not in self._rendered:
            for command in (["lint", "--strict", "."], self._template(release=release)):
                result = self._run(command, values)
                assert result.returncode == 0, result.stdout + result.stderr
            text = result.stdout
            for manifest in yaml.load_all(text, Strict):
                self.assert_valid(manifest)
            self._rendered[key] = text
        return self._rendered[key]

    def render(self, values: Values, *, release: str = "") -> Sequence[Manifest]:
        """Return the same as manifests."""
        return list(yaml.load_all(self.text(values, release=release), Strict))

    def assert_valid(self, manifest: Manifest) -> None:
        """See that every Kubernetes accepts it, the oldest and the newest, or its operator, and knows each field."""
        schema = self.schemas.get(manifest["kind"])
        if schema is not None:
            jsonschema_rs.validate(schema, manifest)
            return
        (oldest,) = re.findall(r"^>=(\d+\.\d+)\.0-0$", self.about["kubeVersion"])
        for version in (oldest, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(manifest, version, strict=True)

    def assert_refuses(self, values: Values, complaint: str, *options: str) -> None:
        """See that nothing is rendered from these values, and what is wrong is named."""
        result = self._run(self._template(*options), values)
        assert result.returncode != 0
        assert complaint in result.stderr

    def assert_golden(self, name: str, values: Values) -> None:
        """See that the chart renders what is kept under this name; `make golden` keeps what it renders instead."""
        # A release changes the version in each label and nothing else.
        kept, text = GOLDEN / f"{name}.yaml", self.text(values).replace(self.about["version"], "VERSION")
        if os.environ.get("GOLDEN") == "write":
            kept.write_text(text)
        assert text == kept.read_text(), "it renders something else: `make golden`, then read the difference"

    def _template(self, *options: str, release: str = "") -> list[str]:
        return ["template", release or self.about["name"], ".", "--namespace", "jobs", *options]

    def _run(self, arguments: Sequence[str], values: Values) -> subprocess.CompletedProcess[str]:
        command = [str(self.helm), *arguments, "--values", "-"]
        return subprocess.run(
            command, cwd=self.folder, input=json.dumps(values), capture_output=True, text=True, check=False
        )


def everything(chart: str) -> Values:
    """Return values that switch on all there is in the chart of a worker or manager."""
    return yaml.safe_load((GOLDEN / f"{chart}-everything.values.yaml").read_text())


def parts(*rendered: JsonValue) -> Iterator[Manifest]:
    """Yield every mapping in what was rendered."""
    for part in rendered:
        if isinstance(part, dict):
            yield part
            yield from parts(*part.values())
        elif isinstance(part, list):
            yield from parts(*part)


def pods_in(rendered: Sequence[Manifest]) -> Sequence[Manifest]:
    """Return the spec of each pod, of whatever makes it."""
    return [part for part in parts(*rendered) if "containers" in part]


def assert_restricted(rendered: Sequence[Manifest]) -> None:
    """See that each pod passes the "restricted" standard, has a read-only root, no token, and no user of its own."""
    assert pods_in(rendered)
    for pod in pods_in(rendered):
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["limits"] == {"memory": resources["requests"]["memory"]}
