"""What others say about the rendered manifests: the schemas of operators, and checkov's policies for Kubernetes."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema_rs import ValidationError

from tests.template.charts import FETCHING, GOLDEN, Chart, Manifest, assert_restricted, parts, pods_in
from tests.template.versions import edit

pytestmark = pytest.mark.timeout(FETCHING)

CHECKOV = "checkov==3.3.30"
"""In an environment of its own: it brings a hundred packages in versions of its own."""

PODS = {"Deployment", "Job", "Pod"}
ENDING = {"Job", "Pod"}
"""What runs to its end: the only pods that nothing owns are helm's tests."""

FIXED = {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups", "hostPath", "hostPort", "hostNetwork", "hostPID"}
"""What OpenShift's constraint `restricted-v2` leaves to nobody but itself."""

ACCEPTED = {
    "CKV_K8S_8": (ENDING, "what runs to its end has no liveness to probe; every Deployment has"),
    "CKV_K8S_9": (ENDING, "what runs to its end serves nobody; every Deployment has its probe"),
    "CKV_K8S_11": (PODS, "a CPU limit throttles a pod while its node idles"),
    "CKV_K8S_15": (PODS, "tags are not moved, and a pod starts without the registry where its node has the image"),
    "CKV_K8S_21": (None, "the namespace is helm's --namespace, which stands in no manifest"),
    "CKV_K8S_35": (PODS, "settings are environment variables, those in secrets too"),
    "CKV_K8S_40": (PODS, "no user id is fixed, since OpenShift gives one; the images' own is 10001"),
    "CKV_K8S_43": (PODS, "image.tag takes a digest, too (1.2.3@sha256:…), but there is none by default"),
}
"""What checkov complains of, about what (None: anything), and why that stays."""


class Finding(NamedTuple):
    """What checkov complains of."""

    check: str
    kind: str
    """Of the manifest."""
    said: str


def test_checkov_finds_nothing_else(tool: Callable[..., str]) -> None:
    """What either chart renders, by default or with all there is, breaks no other policies than are named here."""
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
    """Each pod passes the "restricted" security standard, has a read-only root, no token and no fixed user."""
    assert_restricted(chart.render(chart.everything))


def test_every_pod_goes_to_the_same_nodes(chart: Chart) -> None:
    """Nodes that are kept for something are so for each pod; one that ends soon keeps no distance from others."""
    values = chart.everything
    pods = pods_in(chart.render(values))

    assert len(pods) > 1
    for pod in pods:
        assert [pod[name] for name in ("nodeSelector", "tolerations", "priorityClassName")] == [
            values[name] for name in ("nodeSelector", "tolerations", "priorityClassName")
        ]
        ends = "restartPolicy" in pod
        assert pod["affinity"] == ({"nodeAffinity": values["affinity"]["nodeAffinity"]} if ends else values["affinity"])


def test_openshift_minds_nothing(chart: Chart) -> None:
    """What OpenShift gives to a pod itself is nowhere asked for, and nothing of the node's is."""
    fields = {name for part in parts(*chart.render(chart.everything)) for name in part}

    assert "runAsNonRoot" in fields
    assert not fields & FIXED


def test_a_release_may_be_called_by_a_number(chart: Chart) -> None:
    """Whatever looks like a number is text where Kubernetes wants text."""
    chart.render(chart.everything, release="2024")


@pytest.mark.parametrize("name", ["null", "on", "y"])
def test_a_worker_may_be_called_by_a_word_of_yaml(worker_chart: Chart, tmp_path: Path, name: str) -> None:
    """A name that YAML would read as something else is a name, in each label, setting and reference."""
    folder = shutil.copytree(worker_chart.folder, tmp_path / "chart")
    edit(folder / "Chart.yaml", 'name: "thumbnail-worker"', f'name: "{name}"')

    rendered = Chart(folder, worker_chart.helm, worker_chart.schemas).render(worker_chart.everything)

    named = {part["app.kubernetes.io/name"] for part in parts(*rendered) if "app.kubernetes.io/name" in part}
    assert named == {name}


@pytest.fixture
def resources(worker_chart: Chart, manager_chart: Chart) -> Mapping[str, Manifest]:
    """Give a custom resource of each kind."""
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
    """The schemas of operators are strict."""
    wrong: Any = copy.deepcopy(resources[kind])
    part = wrong
    for step in place:
        part = part[step]
    part[f"{name}x"] = part.pop(name)

    with pytest.raises(ValidationError, match=f"{name}x|'{name}' is a required property|not valid under any"):
        worker_chart.assert_valid(wrong)


def test_a_duration_that_the_operator_does_not_read_is_found(
    worker_chart: Chart, resources: Mapping[str, Manifest]
) -> None:
    """The schemas hold values, too."""
    wrong = copy.deepcopy(resources["PodMonitor"])
    wrong["spec"]["podMetricsEndpoints"][0]["interval"] = "half a minute"

    with pytest.raises(ValidationError, match="not valid under any"):
        worker_chart.assert_valid(wrong)
