"""The chart: it renders with its defaults and with every option on, and says no to what it does not know."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.template.charts import Chart, Manifest, assert_restricted

EVERYTHING: dict[str, Any] = {
    "image": {"tag": "1.2.3", "pullPolicy": "Always", "pullSecrets": ["registry"]},
    "env": {
        "jobnik": {"baseUrl": "https://manager.example.com/jobnik"},
        "worker": {"concurrency": 8, "retryInitialDelayMs": 500, "retryMaxDelayMs": 3_600_000},
        "telemetry": {"tracingUrl": "http://collector:4318/v1/traces"},
        "logLevel": "DEBUG",
        "extra": {"THUMBNAIL_QUALITY": "90"},
    },
    "secrets": ["storage"],
    "drainSeconds": 300,
    "resources": {"cpu": 1, "memory": "1Gi"},
    "stageTypes": ["thumbnails", "contact sheets"],
    "autoscaling": {
        "by": "queue",
        "minReplicas": 0,
        "maxReplicas": 10,
        "queue": {"tasksPerSlot": 3, "pollSeconds": 5, "idleSeconds": 60},
        "cpu": {"percent": 60},
    },
    "podDisruptionBudget": {"enabled": True, "maxUnavailable": "25%"},
    "networkPolicy": {
        "enabled": True,
        "manager": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "extraEgress": [{"ports": [{"port": 9000}]}],
    },
    "podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
    "alerts": {
        "enabled": True,
        "runbookUrl": "https://example.com/RUNBOOK.md",
        "labels": {"release": "prometheus"},
    },
    "dashboard": {"enabled": True, "labels": {"grafana_dashboard": "yes"}},
    "volumes": [{"name": "pictures", "persistentVolumeClaim": {"claimName": "pictures"}}],
    "volumeMounts": [{"name": "pictures", "mountPath": "/pictures"}],
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "workers", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
}

DOCS = Path(__file__).parents[2] / "docs" / "reference"

Manifests = dict[str, Manifest]
Template = Callable[[dict[str, Any]], Manifests]


@pytest.fixture
def chart(rendered: Path, helm: Path, own: Path, tool: Callable[..., str], tmp_path: Path) -> Chart:
    """Give the chart of a rendered project."""
    return Chart(rendered / "helm", helm, own / "kubernetes-validate", tool, tmp_path)


@pytest.fixture
def manifests(chart: Chart) -> Template:
    """Give a function from values to manifests by kind; the dashboard's ConfigMap counts as a kind of its own."""

    def rendered(values: dict[str, Any]) -> Manifests:
        return {
            "Dashboard" if document["metadata"]["name"].endswith("-dashboard") else document["kind"]: document
            for document in chart.render(values)
        }

    return rendered


def test_the_defaults_render(manifests: Template) -> None:
    """Nothing has to be set for a chart that Kubernetes accepts."""
    rendered = manifests({})

    assert set(rendered) == {"ConfigMap", "Deployment", "Pod", "PodDisruptionBudget", "ServiceAccount"}
    assert rendered["Deployment"]["spec"]["replicas"] == 1
    assert rendered["ConfigMap"]["data"] == {
        "JOBNIK_BASE_URL": "http://jobnik-manager:8080",
        "WORKER_CONCURRENCY": "1",
        "WORKER_RETRY_INITIAL_DELAY_MS": "1000",
        "WORKER_RETRY_MAX_DELAY_MS": "60000",
        "WORKER_DRAIN_SECONDS": "45",
        "LOG_LEVEL": "INFO",
    }


def test_every_option_renders(manifests: Template) -> None:
    """All options work together, and each reaches its place."""
    rendered = manifests(EVERYTHING)
    pod = rendered["Deployment"]["spec"]["template"]["spec"]

    assert {"ScaledObject", "NetworkPolicy", "PodMonitor", "PrometheusRule", "Dashboard"} < set(rendered)
    assert rendered["ConfigMap"]["data"]["WORKER_RETRY_MAX_DELAY_MS"] == "3600000"
    assert rendered["ConfigMap"]["data"]["THUMBNAIL_QUALITY"] == "90"
    assert rendered["ConfigMap"]["data"]["TELEMETRY_TRACING_URL"] == "http://collector:4318/v1/traces"
    assert rendered["ConfigMap"]["data"]["OTEL_SERVICE_NAME"] == "thumbnail-worker"
    assert pod["containers"][0]["image"].endswith(":1.2.3")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeSelector"] == EVERYTHING["nodeSelector"]
    assert rendered["NetworkPolicy"]["spec"]["egress"][1] == {
        "ports": [{"port": 443}],
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    }
    assert rendered["NetworkPolicy"]["spec"]["egress"][2] == {"ports": [{"port": 4318}]}


@pytest.mark.parametrize(("by", "scaler"), [("queue", "ScaledObject"), ("cpu", "HorizontalPodAutoscaler")])
def test_an_autoscaler_decides_on_the_replicas_alone(manifests: Template, by: str, scaler: str) -> None:
    """With autoscaling on, a new release leaves the number of pods as it is, and there is one scaler."""
    rendered = manifests({"autoscaling": {"by": by, "minReplicas": 0}})

    assert "replicas" not in rendered["Deployment"]["spec"]
    assert {"ScaledObject", "HorizontalPodAutoscaler"} & set(rendered) == {scaler}


def test_pods_follow_the_queue(manifests: Template) -> None:
    """The manager is asked how much there is for each stage type; a pod takes as much as its slots times the aim."""
    rendered = manifests(EVERYTHING)["ScaledObject"]["spec"]

    assert (rendered["minReplicaCount"], rendered["maxReplicaCount"]) == (0, 10)
    assert [trigger["metadata"] for trigger in rendered["triggers"]] == [
        {
            "url": f"https://manager.example.com/jobnik/v1/queues/{stage_type}/depth",
            "valueLocation": "total",
            "targetValue": "24",
        }
        for stage_type in ("thumbnails", "contact%20sheets")
    ]


def test_every_alert_has_its_heading_in_the_runbook(manifests: Template, chart: Chart) -> None:
    """The runbook tells what to do about each alert and about nothing else, and each alert leads there."""
    (group,) = manifests(EVERYTHING)["PrometheusRule"]["spec"]["groups"]
    headings = re.findall(r"^## (\w+)$", (chart.folder / "RUNBOOK.md").read_text(), re.MULTILINE)

    assert [rule["alert"] for rule in group["rules"]] == headings
    assert [rule["annotations"]["runbook_url"] for rule in group["rules"]] == [
        f"https://example.com/RUNBOOK.md#{heading.lower()}" for heading in headings
    ]


def test_every_metric_that_is_watched_exists(manifests: Template) -> None:
    """What dashboard and alerts ask for is what a worker or a manager tells."""
    rendered = manifests(EVERYTHING)
    rules = rendered["PrometheusRule"]["spec"]["groups"][0]["rules"]
    dashboard = json.loads(rendered["Dashboard"]["data"]["thumbnail-worker.json"])
    asked = [rule["expr"] for rule in rules]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"] for variable in dashboard["templating"]["list"]]
    told = (DOCS / "metrics.md").read_text()

    watched = {name for expression in asked for name in re.findall(r"\b(?:jobnik|process)_\w+", expression)}
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in watched}
    assert len(names) > 10
    of_python = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
    assert {name for name in names if f"`{name}`" not in told} == of_python


def test_the_grace_period_follows_the_drain_time(manifests: Template) -> None:
    """The worker takes as long as it was told, and is ended 15 s after that."""
    rendered = manifests({"drainSeconds": 100})

    assert rendered["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 115
    assert rendered["ConfigMap"]["data"]["WORKER_DRAIN_SECONDS"] == "100"


def test_a_service_name_of_ones_own_is_kept(manifests: Template) -> None:
    """The traces' name stands in the settings once, whoever says it."""
    own = {"telemetry": {"tracingUrl": "http://collector:4318/v1/traces"}, "extra": {"OTEL_SERVICE_NAME": "painter"}}

    assert manifests({"env": own})["ConfigMap"]["data"]["OTEL_SERVICE_NAME"] == "painter"


def test_another_setting_makes_other_pods(manifests: Template) -> None:
    """The settings' checksum is in the pods, which a changed ConfigMap alone would not restart."""
    checksums = {
        manifests(values)["Deployment"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for values in ({}, {"env": {"extra": {"NAME": "value"}}})
    }

    assert len(checksums) == 2


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_every_pod_is_restricted(manifests: Template, kind: str) -> None:
    """Each pod passes the "restricted" security standard, has a read-only root, no token and no fixed user."""
    assert_restricted(manifests(EVERYTHING)[kind])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replica": 2}, "'replica' not allowed"),
        ({"env": {"jobnik": {"baseURL": "http://manager"}}}, "'baseURL' not allowed"),
        ({"env": {"jobnik": {"baseUrl": "manager:8080"}}}, "/env/jobnik/baseUrl"),
        ({"env": {"worker": {"concurrency": 0}}}, "/env/worker/concurrency"),
        ({"env": {"extra": {"PORT": 8080}}}, "/env/extra/PORT"),
        ({"env": {"telemetry": {"tracingUrl": "collector:4317"}}}, "/env/telemetry/tracingUrl"),
        ({"drainSeconds": 0}, "/drainSeconds"),
        ({"autoscaling": {"by": "queues"}}, "/autoscaling/by"),
        ({"alerts": {"runbookUrl": "RUNBOOK.md"}}, "/alerts/runbookUrl"),
    ],
)
def test_a_wrong_value_is_refused(chart: Chart, values: dict[str, Any], complaint: str) -> None:
    """A misspelt name or a value of the wrong kind is named, and nothing is rendered."""
    chart.assert_refuses(values, complaint)
