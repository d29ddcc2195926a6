"""What is done with every chart: render it, refuse wrong values, look at its pods."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A chart, and a folder for what is rendered from it."""

    folder: Path
    helm: Path
    validate: Path
    """The command kubernetes-validate."""
    tool: Callable[..., str]
    scratch: Path

    def render(self, values: dict[str, Any]) -> Sequence[Manifest]:
        """Return the manifests by these values, accepted by lint and by Kubernetes' own schemas."""
        given = self.scratch / "given.yaml"
        given.write_text(yaml.safe_dump(values))
        self.tool(self.helm, "lint", "--strict", ".", "--values", given, cwd=self.folder)
        text = self.tool(self.helm, "template", "release", ".", "--values", given, cwd=self.folder)
        (self.scratch / "rendered.yml").write_text(text)
        self.tool(self.validate, "--strict", "rendered.yml", cwd=self.scratch)
        return list(yaml.safe_load_all(text))

    def assert_refuses(self, values: dict[str, Any], complaint: str) -> None:
        """See that nothing is rendered from these values, and what is wrong is named."""
        command = [str(self.helm), "template", "release", ".", "--values", "-"]
        result = subprocess.run(
            command, cwd=self.folder, input=yaml.safe_dump(values), capture_output=True, text=True, check=False
        )
        assert result.returncode != 0
        assert complaint in result.stderr


def assert_restricted(manifest: Manifest) -> None:
    """See that a pod passes the "restricted" security standard, with a read-only root, no token and no fixed user."""
    pod = manifest["spec"] if manifest["kind"] == "Pod" else manifest["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        resources = container["resources"]
        assert resources["limits"] == {"memory": resources["requests"]["memory"]}
