"""The rendered manifests meet the schemas of operators and checkov's policies for Kubernetes."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema_rs import ValidationError

from tests.template.charts import DOWNLOAD_TIMEOUT, GOLDEN, Chart, Manifest, assert_restricted, mappings_in, pods_in
from tests.template.versions import edit

pytestmark = pytest.mark.timeout(DOWNLOAD_TIMEOUT)

CHECKOV = "checkov==3.3.30"
"""Runs in its own environment, because it pins a hundred dependencies."""

PODS = {"Deployment", "Job", "Pod"}
ENDING = {"Job", "Pod"}
"""Kinds of pods that run to completion. The only bare Pods are those of `helm test`."""

FIXED = {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups", "hostPath", "hostPort", "hostNetwork", "hostPID"}
"""Fields that OpenShift's constraint `restricted-v2` forbids."""

ACCEPTED = {
    "CKV_K8S_8": (ENDING, "a pod that runs to completion needs no liveness probe; every Deployment has one"),
    "CKV_K8S_9": (ENDING, "a pod that runs to completion serves no requests; every Deployment has a readiness probe"),
    "CKV_K8S_11": (PODS, "a CPU limit throttles a pod while its node idles"),
    "CKV_K8S_15": (PODS, "tags are immutable, and a pod can start without the registry if its node has the image"),
    "CKV_K8S_21": (None, "the namespace is helm's --namespace, which is not part of the manifests"),
    "CKV_K8S_35": (PODS, "all settings are environment variables, including secrets"),
    "CKV_K8S_40": (PODS, "no user id is fixed, because OpenShift assigns one; the images default to 10001"),
    "CKV_K8S_43": (PODS, "image.digest sets one, but the default has none"),
}
"""Accepted findings: the check, the kinds that it may concern (None: any), and the reason."""


class Finding(NamedTuple):
    """A finding of checkov."""

    check: str
    kind: str
    """The kind of the manifest."""
    text: str


def test_checkov_finds_only_accepted_findings(tool: Callable[..., str]) -> None:
    """Both charts, with defaults and with every option, break exactly the policies that are accepted here."""
    options = ["--framework", "kubernetes", "--skip-download", "--quiet", "--soft-fail", "--output", "json"]
    kept = [file.name for file in GOLDEN.glob("*.yaml") if not file.name.endswith(".values.yaml")]
    files = [part for name in kept for part in ("--file", name)]
    report = json.loads(tool("uv", "tool", "run", "--quiet", CHECKOV, *files, *options, cwd=GOLDEN))

    findings = [
        Finding(found["check_id"], found["resource"].partition(".")[0], found["check_name"])
        for found in report["results"]["failed_checks"]
    ]
    assert report["summary"]["passed"] > 500
    unexpected = {found for found in findings if not _is_accepted(found)}
    assert not unexpected
    assert {found.check for found in findings} == set(ACCEPTED)


def _is_accepted(finding: Finding) -> bool:
    kinds, _ = ACCEPTED.get(finding.check, (set[str](), ""))
    return kinds is None or finding.kind in kinds


def test_every_pod_is_restricted(chart: Chart) -> None:
    """Each pod meets the "restricted" standard, with a read-only root, no token and no fixed user."""
    assert_restricted(chart.render(chart.everything))


def test_every_pod_is_scheduled_on_the_same_nodes(chart: Chart) -> None:
    """All pods have the same node selection and tolerations; a pod that runs to completion has no pod affinity."""
    values = chart.everything
    pods = pods_in(chart.render(values))

    assert len(pods) > 1
    for pod in pods:
        assert [pod[name] for name in ("nodeSelector", "tolerations", "priorityClassName")] == [
            values[name] for name in ("nodeSelector", "tolerations", "priorityClassName")
        ]
        ends = "restartPolicy" in pod
        assert pod["affinity"] == ({"nodeAffinity": values["affinity"]["nodeAffinity"]} if ends else values["affinity"])


def test_openshift_accepts_every_pod(chart: Chart) -> None:
    """No pod sets a field that OpenShift assigns, and no pod uses resources of its node."""
    fields = {name for part in mappings_in(*chart.render(chart.everything)) for name in part}

    assert "runAsNonRoot" in fields
    assert not fields & FIXED


def test_a_release_name_may_be_a_number(chart: Chart) -> None:
    """A numeric name is rendered as a string wherever Kubernetes requires a string."""
    chart.render(chart.everything, release="2024")


@pytest.mark.parametrize("name", ["null", "on", "y"])
def test_a_worker_name_may_be_a_yaml_keyword(worker_chart: Chart, tmp_path: Path, name: str) -> None:
    """A name such as `null` is rendered as a string in each label, setting and reference."""
    folder = shutil.copytree(worker_chart.folder, tmp_path / "chart")
    edit(folder / "Chart.yaml", 'name: "thumbnail-worker"', f'name: "{name}"')

    rendered = Chart(folder, worker_chart.helm, worker_chart.schemas).render(worker_chart.everything)

    named = {part["app.kubernetes.io/name"] for part in mappings_in(*rendered) if "app.kubernetes.io/name" in part}
    assert named == {name}


@pytest.fixture
def resources(worker_chart: Chart, manager_chart: Chart) -> Mapping[str, Manifest]:
    """Return a custom resource of each kind."""
    rendered = [*manager_chart.render(manager_chart.everything), *worker_chart.render(worker_chart.everything)]
    return {manifest["kind"]: manifest for manifest in rendered if manifest["kind"] in worker_chart.schemas}


@pytest.mark.parametrize(
    ("kind", "place", "name"),
    [
        ("ScaledObject", ["spec"], "pollingInterval"),
        ("ScaledObject", ["spec", "triggers", 0], "metadata"),
        ("ScaledObject", ["spec", "advanced", "horizontalPodAutoscalerConfig", "behavior"], "scaleDown"),
        ("PodMonitor", ["spec", "podMetricsEndpoints", 0], "interval"),
        ("PodMonitor", ["metadata"], "labels"),
        ("PrometheusRule", ["spec", "groups", 0, "rules", 0], "for"),
    ],
)
def test_a_misspelt_field_of_a_custom_resource_is_found(
    worker_chart: Chart, resources: Mapping[str, Manifest], kind: str, place: list[str | int], name: str
) -> None:
    """The schemas of operators reject unknown fields."""
    wrong: Any = copy.deepcopy(resources[kind])
    part = wrong
    for step in place:
        part = part[step]
    part[f"{name}x"] = part.pop(name)

    with pytest.raises(ValidationError, match=f"{name}x|'{name}' is a required property|not valid under any"):
        worker_chart.assert_valid(wrong)


def test_an_invalid_duration_in_a_custom_resource_is_found(
    worker_chart: Chart, resources: Mapping[str, Manifest]
) -> None:
    """The schemas of operators also check values."""
    wrong = copy.deepcopy(resources["PodMonitor"])
    wrong["spec"]["podMetricsEndpoints"][0]["interval"] = "half a minute"

    with pytest.raises(ValidationError, match="not valid under any"):
        worker_chart.assert_valid(wrong)
