"""What the pods of the worker's chart can be given: names, numbers, containers, resources and security contexts."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.template.charts import DOWNLOAD_TIMEOUT, Chart, Manifest, Values, assert_restricted, everything, pods_in
from tests.template.versions import edit

pytestmark = pytest.mark.timeout(DOWNLOAD_TIMEOUT)

EVERYTHING = everything("worker")
MILLION = 1_000_000
EXPONENT = re.compile(r"\d[eE][+-]?\d+\b(?!\")")
HASH = "sha256:[0-9a-f]+|[0-9a-f]{40,}"
SMALLER: dict[tuple[str, ...], int] = {
    ("autoscaling", "cpu", "percent"): 100,
    ("database", "connections"): 1000,
    ("networkPolicy", "databasePort"): 65_535,
    ("service", "port"): 65_535,
}
"""Integers that the schema limits."""


def pod_of(chart: Chart, values: Values, **options: str) -> Manifest:
    """Return the spec of the worker's pods."""
    (deployment,) = (one for one in chart.render(values, **options) if one["kind"] == "Deployment")
    return deployment["spec"]["template"]["spec"]


def merged_at(values: Values, path: tuple[str, ...], value: object) -> Values:
    """Return the values with another value at this path."""
    first, *rest = path
    return {**values, first: merged_at(values.get(first, {}), tuple(rest), value) if rest else value}


def integers(values: Values, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each integer in the values."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from integers(cast("Values", value), (*path, name))
        elif type(value) is int:
            yield (*path, name)


def test_long_releases_that_differ_at_the_end_have_different_names(chart: Chart) -> None:
    """A name that is too long for a pod ends with a hash, so that two releases share no object."""
    names = list[set[str]]()
    for release in ("r" * 52 + "a", "r" * 52 + "b"):
        rendered = chart.render(chart.everything, release=release)
        names.append({manifest["metadata"]["name"] for manifest in rendered})
        (deployment,) = (one for one in rendered if one["kind"] == "Deployment")
        assert re.fullmatch("r{37,44}-[0-9a-f]{8}", deployment["metadata"]["name"])

    assert not names[0] & names[1]


@pytest.mark.parametrize("by", ["none", "queue", "cpu"])
def test_integers_stay_integers(worker_chart: Chart, by: str) -> None:
    """Helm reads numbers as floating-point numbers, but none is rendered as 1e+06."""
    defaults = yaml.safe_load((worker_chart.folder / "values.yaml").read_text())
    values: Values = {**EVERYTHING, "autoscaling": {**EVERYTHING["autoscaling"], "by": by}}
    for path in integers(defaults):
        values = merged_at(values, path, SMALLER.get(path, MILLION))
    values = merged_at(values, ("resources", "extended"), {"example.com/slices": MILLION})
    values = merged_at(values, ("tolerations",), [{"operator": "Exists", "tolerationSeconds": MILLION}])

    text = worker_chart.text(values)

    assert not EXPONENT.findall(re.sub(HASH, "", text))
    rendered = {manifest["kind"]: manifest for manifest in worker_chart.render(values)}
    settings = next(one["data"] for one in yaml.safe_load_all(text) if "WORKER_CONCURRENCY" in one.get("data", {}))
    assert {name: value for name, value in settings.items() if value.isdigit()} == {
        "THUMBNAIL_QUALITY": "90",
        "WORKER_CONCURRENCY": "1000000",
        "WORKER_DRAIN_SECONDS": "1000000",
        "WORKER_RETRY_INITIAL_DELAY_MS": "1000000",
        "WORKER_RETRY_MAX_DELAY_MS": "1000000",
    }
    assert rendered["Deployment"]["spec"].get("replicas", MILLION) == MILLION
    assert rendered["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == MILLION + 15
    assert rendered["PodDisruptionBudget"]["spec"]["maxUnavailable"] == MILLION
    if by == "queue":
        scaled = rendered["ScaledObject"]["spec"]
        assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (MILLION, MILLION)
        assert (scaled["pollingInterval"], scaled["cooldownPeriod"]) == (MILLION, MILLION)
        assert {trigger["metadata"]["targetValue"] for trigger in scaled["triggers"]} == {str(MILLION * MILLION)}


def test_integers_of_the_manager_stay_integers(manager_chart: Chart) -> None:
    """The same is true of the manager's chart."""
    defaults = yaml.safe_load((manager_chart.folder / "values.yaml").read_text())
    values = manager_chart.everything
    for path in integers(defaults):
        values = merged_at(values, path, SMALLER.get(path, MILLION))

    assert not EXPONENT.findall(re.sub(HASH, "", manager_chart.text(values)))


def test_settings_may_have_the_names_of_yaml_words(worker_chart: Chart) -> None:
    """`NO`, `Y` and `NULL` stay names, and values such as `no` and `0123` stay text."""
    own = {"NO": "no", "Y": "0123", "ON": "1e3", "NULL": "null", "TRUE": "", "E": "line\nline\t\u00e9 \"'", "N": "~"}

    (config,) = (one for one in worker_chart.render({"env": {"extra": own}}) if one["kind"] == "ConfigMap")

    assert own.items() <= config["data"].items()


def test_a_port_is_a_decimal_number(worker_chart: Chart) -> None:
    """A leading zero does not make the port of a URL octal."""
    values: Values = {"env": {"jobnik": {"baseUrl": "http://manager:08443"}}, "networkPolicy": {"enabled": True}}

    (policy,) = (one for one in worker_chart.render(values) if one["kind"] == "NetworkPolicy")

    assert policy["spec"]["egress"][1]["ports"] == [{"port": 8443}, {"port": 8080}]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({"digest": f"sha256:{'a' * 64}"}, f"registry.example.com/thumbnail-worker@sha256:{'a' * 64}"),
        ({"tag": "1.2.3"}, "registry.example.com/thumbnail-worker:1.2.3"),
        ({}, "registry.example.com/thumbnail-worker:0.1.0"),
    ],
)
def test_an_image_has_a_tag_or_a_digest(worker_chart: Chart, image: dict[str, str], reference: str) -> None:
    """With a digest alone there is no tag, because it would be that of another image."""
    pods = pods_in(worker_chart.render({"image": image}))

    assert {pod["containers"][0]["image"] for pod in pods} == {reference}


def test_a_version_with_build_metadata_is_a_valid_label_and_tag(worker_chart: Chart, tmp_path: Path) -> None:
    """Labels and tags cannot contain a plus sign, and a label has at most 63 characters."""
    folder = shutil.copytree(worker_chart.folder, tmp_path / "chart")
    version = f"1.2.3-rc+{'build.' * 10}1"
    for old in ("version: 0.1.0", 'appVersion: "0.1.0"'):
        edit(folder / "Chart.yaml", f"\n{old}\n", f"\n{old.partition(':')[0]}: {version}\n")
    chart = Chart(folder, worker_chart.helm, worker_chart.schemas)

    (deployment,) = (one for one in chart.render({}) if one["kind"] == "Deployment")

    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"registry.example.com/thumbnail-worker:{version.replace('+', '_')}"
    labels: dict[str, str] = deployment["metadata"]["labels"]
    assert all(re.fullmatch("[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", label) for label in labels.values())


def test_pods_can_use_an_existing_account(worker_chart: Chart) -> None:
    """With the name of an account the chart creates none, and all pods run under it."""
    rendered = worker_chart.render({"serviceAccount": {"name": "team"}})

    assert "ServiceAccount" not in {manifest["kind"] for manifest in rendered}
    assert {pod["serviceAccountName"] for pod in pods_in(rendered)} == {"team"}


def test_own_containers_are_restricted_unless_they_say_otherwise(worker_chart: Chart) -> None:
    """A container gets the worker's security context, in which it can replace each field, even by false."""
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    own: Values = {"name": "own", "image": "own:1", "resources": resources}
    first = {**own, "name": "first"}
    assert_restricted(worker_chart.render({"sidecars": [own], "initContainers": [first]}))

    writes = {**own, "securityContext": {"readOnlyRootFilesystem": False, "runAsUser": 1000}}
    pod = pod_of(worker_chart, {"sidecars": [writes], "initContainers": [first]})

    assert [container["name"] for container in pod["containers"]] == ["worker", "own"]
    assert [container["name"] for container in pod["initContainers"]] == ["first"]
    assert pod["containers"][1]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": False,
        "runAsUser": 1000,
    }


def test_security_contexts_can_be_extended(worker_chart: Chart) -> None:
    """A field such as fsGroup is added, and the others stay restricted."""
    values: Values = {"podSecurityContext": {"fsGroup": 10001}, "securityContext": {"readOnlyRootFilesystem": False}}

    pod = pod_of(worker_chart, values)

    assert pod["securityContext"] == {
        "fsGroup": 10001,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": False,
    }


def test_constraints_count_the_pods_of_the_release(worker_chart: Chart) -> None:
    """A topology spread constraint without a selector gets that of the worker; one with a selector keeps it."""
    zone = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    own = {**zone, "labelSelector": {"matchLabels": {"mine": "yes"}}}

    pod = pod_of(worker_chart, {"topologySpreadConstraints": [zone, own]})

    selector = {
        "app.kubernetes.io/name": "thumbnail-worker",
        "app.kubernetes.io/instance": "thumbnail-worker",
        "app.kubernetes.io/component": "worker",
    }
    assert pod["topologySpreadConstraints"] == [{**zone, "labelSelector": {"matchLabels": selector}}, own]


def test_every_option_reaches_the_pod(worker_chart: Chart) -> None:
    """Labels, annotations, resources, settings from secrets, and fields of the pod's spec."""
    rendered = {one["kind"]: one for one in worker_chart.render(EVERYTHING)}
    template = rendered["Deployment"]["spec"]["template"]
    worker: dict[str, Any] = template["spec"]["containers"][0]

    for metadata in (template["metadata"], rendered["Pod"]["metadata"]):
        assert EVERYTHING["podLabels"].items() <= metadata["labels"].items()
        assert EVERYTHING["podAnnotations"].items() <= metadata["annotations"].items()
    assert rendered["ServiceAccount"]["metadata"]["annotations"] == EVERYTHING["serviceAccount"]["annotations"]
    assert worker["resources"] == {
        "requests": {"cpu": 1, "memory": "1Gi", "nvidia.com/gpu": 1, "ephemeral-storage": "10Gi"},
        "limits": {"memory": "1Gi", "nvidia.com/gpu": 1, "ephemeral-storage": "10Gi"},
    }
    assert [setting["name"] for setting in worker["env"]] == ["SSL_CERT_FILE", "BUCKET_KEY", "NODE"]
    assert worker["startupProbe"]["failureThreshold"] * worker["startupProbe"]["periodSeconds"] == 600
    assert EVERYTHING["podSpec"].items() <= template["spec"].items()
    assert template["spec"]["runtimeClassName"] == "nvidia"
