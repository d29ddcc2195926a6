"""The schemas of both charts know exactly the values of values.yaml."""

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema_rs
import pytest
import yaml
from jobnik_devtools.doctor.chart_values import merged
from pydantic import JsonValue

from tests.template.charts import DOWNLOAD_TIMEOUT, Chart, Values

pytestmark = pytest.mark.timeout(DOWNLOAD_TIMEOUT)

FREE_FORM = {
    "affinity": "fields of Kubernetes",
    "annotations": "the user's annotations",
    "extended": "resources of nodes",
    "extra": "the user's settings",
    "kedaNamespace": "labels of a namespace",
    "labels": "the user's labels",
    "monitoringNamespace": "labels of a namespace",
    "nodeSelector": "labels of nodes",
    "podAnnotations": "the user's annotations",
    "podLabels": "the user's labels",
    "podSecurityContext": "fields of Kubernetes",
    "podSpec": "fields of Kubernetes",
    "securityContext": "fields of Kubernetes",
    "valueFrom": "the user's settings",
}
"""Values that accept any name, and the meaning of the names."""

WITHOUT_SWITCH = {("image", "repository"), ("networkPolicy", "monitoringNamespace"), ("networkPolicy", "kedaNamespace")}
"""Values that depend on the cluster and are not enabled or disabled."""

VALID: list[tuple[str, JsonValue]] = [
    ("resources.cpu", "1500m"),
    ("resources.cpu", 0.5),
    ("resources.cpu", "0.25"),
    ("resources.memory", "1.5Gi"),
    ("tolerations", [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5}]),
    ("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": []}),
    ("affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution", [{"topologyKey": "zone"}]),
    ("networkPolicy.monitoringNamespace", {"kubernetes.io/metadata.name": None, "team": "watch"}),
    ("networkPolicy.extraEgress", [{"ports": [{"port": 9000, "endPort": 9010, "protocol": "UDP"}]}]),
    ("networkPolicy.extraEgress", [{"to": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}}}]}]),
    ("resources.extended", {"nvidia.com/gpu": 2, "ephemeral-storage": "10Gi", "hugepages-2Mi": "1Gi"}),
    ("image.digest", f"sha256:{'0a' * 32}"),
    ("env.valueFrom", {"TOKEN": {"secretKeyRef": {"name": "storage", "key": "token", "optional": True}}}),
    ("podSpec", {"hostAliases": [], "dnsPolicy": "None", "schedulerName": "volcano"}),
    ("podSecurityContext", {"fsGroup": 10001}),
    ("initContainers", [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}]),
    ("volumes", [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]),
    ("volumeMounts", [{"name": "data", "mountPath": "/data", "subPath": "a", "readOnly": True}]),
]
"""Paths with a valid value."""

INVALID: list[tuple[str, JsonValue]] = [
    ("resources.cpu", "1 core"),
    ("resources.cpu", "1.5m"),
    ("resources.cpu", 0),
    ("resources.memory", "512"),
    ("resources.memory", 1073741824),
    ("resources.memory", "1.2.3Gi"),
    ("resources.memory", "512m"),
    ("migration.resources.memory", "512mb"),
    ("image.tag", "1.0 "),
    ("image.digest", "sha256:0a1b"),
    ("resources.extended", {"gpu": 1}),
    ("resources.extended", {"nvidia.com/gpu": 0}),
    ("resources.extended", {"nvidia.com/gpu": 0.5}),
    ("env.valueFrom", {"TOKEN": {"secretKeyRef": {"name": "storage"}}}),
    ("env.valueFrom", {"TOKEN": "secret"}),
    ("env.valueFrom", {"WORKER_CONCURRENCY": {"fieldRef": {"fieldPath": "spec.nodeName"}}}),
    ("env.worker.concurrency", 1e30),
    ("podAnnotations", {"checksum/config": "mine"}),
    ("podAnnotations", {"cost": 1}),
    ("podLabels", {"app.kubernetes.io/name": "mine"}),
    ("podSpec", {"hostAlias": []}),
    ("podSpec", {"hostNetwork": True}),
    ("podSpec", {"securityContext": {}}),
    ("podSecurityContext", {"fsgroup": 1}),
    ("sidecars", [{"name": "worker", "image": "proxy:1"}]),
    ("sidecars", [{"name": "proxy"}]),
    ("sidecars", [{"name": "proxy", "image": "proxy:1", "enviroment": []}]),
    ("initContainers", [{"name": "proxy", "image": ""}]),
    ("topologySpreadConstraints", [{"topologyKey": "zone"}]),
    ("serviceAccount.name", "My Account"),
    ("priorityClassName", "High Priority"),
    ("tolerations", [{"kye": "a"}]),
    ("tolerations", [{"key": "a", "effect": "NoScheduling"}]),
    ("tolerations", [{"key": "a", "value": True}]),
    ("affinity.nodeAffinty", {}),
    ("affinity.nodeAffinity.requiredDuringScheduling", {}),
    ("affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution", [{"topologykey": "zone"}]),
    ("networkPolicy.monitoringNamespace", {"kubernetes.io/metadata.name": None}),
    ("networkPolicy.extraEgress", [{}]),
    ("networkPolicy.extraEgress", [{"ports": [{"ports": 9000}]}]),
    ("networkPolicy.extraEgress", [{"ports": [{"port": 9000, "protocol": "udp"}]}]),
    ("networkPolicy.extraEgress", [{"to": [{"namespace": "a"}]}]),
    ("networkPolicy.extraEgress", [{"to": [{"ipBlock": {"cdir": "10.0.0.0/8"}}]}]),
    ("networkPolicy.clients", [{"namespaceSelector": {"kubernetes.io/metadata.name": "jobs"}}]),
    ("ca.secret", "My CA"),
    ("secrets", ["storage", ""]),
    ("stageTypes", ["a", "a"]),
    ("volumes", [{"name": "data", "persistentVolumClaim": {"claimName": "data"}}]),
    ("volumes", [{"name": "data", "hostPath": {"path": "/data"}}]),
    ("volumes", [{"name": "data"}]),
    ("volumes", [{"name": "tmp", "emptyDir": {}}]),
    ("volumeMounts", [{"name": "data", "mountPath": "data"}]),
    ("volumeMounts", [{"name": "data", "path": "/data"}]),
]
"""Paths with an invalid value, which Kubernetes rejects or which does not mean what it seems to mean."""

ValuePath = tuple[str, ...]


@pytest.fixture
def schema(chart: Chart) -> dict[str, Any]:
    """Return the schema of the chart's values."""
    return json.loads((chart.folder / "values.schema.json").read_text())


@pytest.fixture
def defaults(chart: Chart) -> Values:
    """Return the default values of the chart."""
    return yaml.safe_load((chart.folder / "values.yaml").read_text())


def _paths(values: JsonValue, path: ValuePath = ()) -> Iterator[ValuePath]:
    """Yield the path of each fixed name in the values."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield (*path, name)
            if name not in FREE_FORM:
                yield from _paths(value, (*path, name))


def _known(schema: dict[str, Any], part: dict[str, Any], path: ValuePath = ()) -> Iterator[ValuePath]:
    """Yield the path of each name in this part of the schema."""
    definition = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    for name, inner in definition.get("properties", {}).items():
        yield (*path, name)
        if name not in FREE_FORM:
            yield from _known(schema, inner, (*path, name))


def _nested(path: Sequence[str], value: JsonValue) -> JsonValue:
    """Return values that contain only this value, at this path."""
    for name in reversed(path):
        value = {name: value}
    return value


def test_a_misspelt_value_is_refused_at_every_level(schema: dict[str, Any], defaults: Values) -> None:
    """The schema reports every misspelt name."""
    validator = jsonschema_rs.validator_for(schema)
    validator.validate(defaults)

    for *path, name in _paths(defaults):
        wrong = copy.deepcopy(defaults)
        inner = wrong
        for part in path:
            inner = inner[part]
        inner[f"{name}x"] = inner.pop(name)
        assert any(f"{name}x" in error.message for error in validator.iter_errors(wrong)), (*path, name)


def test_no_value_may_be_null(schema: dict[str, Any], defaults: Values) -> None:
    """Helm removes null values, and the schema requires every value."""
    validator = jsonschema_rs.validator_for(schema)

    for path in _paths(defaults):
        nulled = merged(defaults, _nested(path, None))
        assert any(
            f'"{path[-1]}" is a required property' in error.message for error in validator.iter_errors(nulled)
        ), path


def test_values_that_kubernetes_defines_are_checked(schema: dict[str, Any], defaults: Values) -> None:
    """The schema checks Kubernetes' own names and quantities, for the values that the chart has."""
    validator = jsonschema_rs.validator_for(schema)

    for dotted, value in VALID:
        path = dotted.split(".")
        known = path[0] == "affinity" or {tuple(path[:2])} <= {*_paths(defaults)}
        assert not known or validator.is_valid(merged(defaults, _nested(path, value))), (dotted, value)
    for dotted, value in INVALID:
        first, *_ = path = dotted.split(".")
        errors = validator.iter_errors(merged(defaults, _nested(path, value)))
        assert first not in defaults or any(error.instance_path[0] == first for error in errors), (dotted, value)


def test_helm_enforces_the_schema(chart: Chart) -> None:
    """Helm refuses values that the schema rejects."""
    chart.assert_refuses({"podDisruptionBudget": {"enabledx": True}}, "'enabledx' not allowed")
    chart.assert_refuses({"podDisruptionBudget": {"enabled": None}}, "missing property 'enabled'")


def test_the_schema_contains_only_values_with_a_default(schema: dict[str, Any], defaults: Values) -> None:
    """Each name in the schema has a default in values.yaml."""
    assert set(_known(schema, schema)) - {("global",)} == set(_paths(defaults))


def test_the_everything_values_enable_every_option(chart: Chart, defaults: Values) -> None:
    """The values that enable every option set every value, except replicas if a scaler sets them."""
    values = chart.everything

    missing = set(_paths(defaults)) - set(_paths(values)) - WITHOUT_SWITCH
    assert missing == ({("replicas",)} if "autoscaling" in values else set())
