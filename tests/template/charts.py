"""Helpers for chart tests: render charts, validate manifests, check that wrong values are refused, find pods."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import jsonschema_rs
import kubernetes_validate  # pyright: ignore[reportMissingTypeStubs] it is annotated, but has no py.typed
import yaml
from kubernetes_validate import utils  # pyright: ignore[reportMissingTypeStubs] as above
from pydantic import JsonValue

from tools.crds import Schema

# Otherwise it reads all definitions of a version, which are megabytes, for each manifest.
utils.schema_contents = cache(utils.schema_contents)
utils.all_versions = cache(utils.all_versions)

GOLDEN = Path(__file__).parent / "golden"

DOWNLOAD_TIMEOUT = 180
"""Seconds. The first test that needs helm, schemas, promtool or checkov may download it."""

Values = dict[str, Any]
Manifest = dict[str, Any]


class StrictLoader(yaml.CSafeLoader):
    """Rejects duplicate keys, and reads `y` and `n` as booleans, as Kubernetes does."""

    bool_values: ClassVar = {**yaml.SafeLoader.bool_values, "y": True, "n": False}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """Check that no key is duplicated."""
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"duplicate key in {keys}"
        return super().construct_mapping(node, deep)


StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))  # pyright: ignore[reportUnknownMemberType] its stub


@dataclass(frozen=True)
class Chart:
    """A chart, released under its own name into the namespace `jobs`. Rendered manifests are cached."""

    folder: Path
    helm: Path
    schemas: Mapping[str, Schema]
    """Schemas of custom resources, by kind."""
    _rendered: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def metadata(self) -> dict[str, Any]:
        """The content of Chart.yaml."""
        return yaml.safe_load((self.folder / "Chart.yaml").read_text())

    @property
    def everything(self) -> Values:
        """Values that enable every option."""
        return everything(self.metadata["name"].rpartition("-")[2])

    def text(self, values: Values, *, release: str = "") -> str:
        """Return the output of `helm template` for these values, checked by `helm lint` and the schemas."""
        key = json.dumps([values, release])
        if key not in self._rendered:
            for command in (["lint", "--strict", "."], self._template(release=release)):
                result = self._run(command, values)
                assert result.returncode == 0, result.stdout + result.stderr
            text = result.stdout
            for manifest in yaml.load_all(text, StrictLoader):
                self.assert_valid(manifest)
            self._rendered[key] = text
        return self._rendered[key]

    def render(self, values: Values, *, release: str = "") -> Sequence[Manifest]:
        """Return the rendered manifests."""
        return list(yaml.load_all(self.text(values, release=release), StrictLoader))

    def assert_valid(self, manifest: Manifest) -> None:
        """Check a manifest strictly against the oldest and newest Kubernetes, or against the schema of its operator."""
        schema = self.schemas.get(manifest["kind"])
        if schema is not None:
            jsonschema_rs.validate(schema, manifest)
            return
        (oldest,) = re.findall(r"^>=(\d+\.\d+)\.0-0$", self.metadata["kubeVersion"])
        for version in (oldest, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(manifest, version, strict=True)

    def assert_refuses(self, values: Values, complaint: str, *options: str) -> None:
        """Check that helm refuses these values with this complaint."""
        result = self._run(self._template(*options), values)
        assert result.returncode != 0
        assert complaint in result.stderr

    def assert_golden(self, name: str, values: Values) -> None:
        """Check that the chart renders the golden file of this name; `make golden` overwrites the file instead."""
        # A release changes only the version, which is in every label.
        file, text = GOLDEN / f"{name}.yaml", self.text(values).replace(self.metadata["version"], "VERSION")
        if os.environ.get("GOLDEN") == "write":
            file.write_text(text)
        assert text == file.read_text(), "the chart renders something else: run `make golden` and review the difference"

    def _template(self, *options: str, release: str = "") -> list[str]:
        return ["template", release or self.metadata["name"], ".", "--namespace", "jobs", *options]

    def _run(self, arguments: Sequence[str], values: Values) -> subprocess.CompletedProcess[str]:
        command = [str(self.helm), *arguments, "--values", "-"]
        return subprocess.run(
            command, cwd=self.folder, input=json.dumps(values), capture_output=True, text=True, check=False
        )


def everything(chart: str) -> Values:
    """Return values that enable every option of the worker's or the manager's chart."""
    return yaml.safe_load((GOLDEN / f"{chart}-everything.values.yaml").read_text())


def mappings_in(*rendered: JsonValue) -> Iterator[Manifest]:
    """Yield every mapping in the rendered values, including nested ones."""
    for part in rendered:
        if isinstance(part, dict):
            yield part
            yield from mappings_in(*part.values())
        elif isinstance(part, list):
            yield from mappings_in(*part)


def pods_in(rendered: Sequence[Manifest]) -> Sequence[Manifest]:
    """Return the spec of each pod, including pods in templates."""
    return [part for part in mappings_in(*rendered) if "containers" in part]


def assert_restricted(rendered: Sequence[Manifest]) -> None:
    """Check that each pod meets the "restricted" standard, with a read-only root, no token, and no fixed user."""
    assert pods_in(rendered)
    for pod in pods_in(rendered):
        standard = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert standard.items() <= pod["securityContext"].items()
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            restricted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert restricted.items() <= container["securityContext"].items()
            resources = container["resources"]
            assert resources["limits"] == {name: size for name, size in resources["requests"].items() if name != "cpu"}
