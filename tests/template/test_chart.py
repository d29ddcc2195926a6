"""The worker's chart renders with its defaults and with every option, and refuses unknown values."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.template.charts import DOWNLOAD_TIMEOUT, Chart, Manifest, everything

pytestmark = pytest.mark.timeout(DOWNLOAD_TIMEOUT)

EVERYTHING = everything("worker")

Manifests = dict[str, Manifest]
Template = Callable[[dict[str, Any]], Manifests]


@pytest.fixture
def manifests(worker_chart: Chart) -> Template:
    """Return a function that renders values to manifests by kind. The dashboard's ConfigMap has the kind Dashboard."""

    def rendered(values: dict[str, Any]) -> Manifests:
        return {
            "Dashboard" if document["metadata"]["name"].endswith("-dashboard") else document["kind"]: document
            for document in worker_chart.render(values)
        }

    return rendered


def test_the_defaults_render(manifests: Template) -> None:
    """The defaults render valid manifests, so no value is required."""
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


@pytest.mark.parametrize(("name", "values"), [("worker-defaults", {}), ("worker-everything", EVERYTHING)])
def test_all_that_is_rendered_matches_the_golden_file(worker_chart: Chart, name: str, values: dict[str, Any]) -> None:
    """The chart renders exactly the golden file."""
    worker_chart.assert_golden(name, values)


def test_a_kubernetes_that_is_too_old_is_refused(worker_chart: Chart) -> None:
    """Helm refuses to render for a Kubernetes below the supported version."""
    worker_chart.assert_refuses({}, "kubeVersion: >=1.27.0-0", "--kube-version", "1.26.0")


def test_every_option_renders(manifests: Template) -> None:
    """All options work together, and each value reaches its manifest."""
    rendered = manifests(EVERYTHING)
    pod = rendered["Deployment"]["spec"]["template"]["spec"]

    assert {"ScaledObject", "NetworkPolicy", "PodMonitor", "PrometheusRule", "Dashboard"} < set(rendered)
    assert rendered["ConfigMap"]["data"]["WORKER_RETRY_MAX_DELAY_MS"] == "3600000"
    assert rendered["ConfigMap"]["data"]["THUMBNAIL_QUALITY"] == "90"
    assert rendered["ConfigMap"]["data"]["TELEMETRY_TRACING_URL"] == "http://collector:4318/v1/traces"
    assert rendered["ConfigMap"]["data"]["OTEL_SERVICE_NAME"] == "thumbnail-worker"
    assert pod["containers"][0]["image"].endswith(f":stable@sha256:{'0123456789abcdef' * 4}")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeSelector"] == EVERYTHING["nodeSelector"]
    assert pod["priorityClassName"] == "batch"
    assert rendered["NetworkPolicy"]["spec"]["egress"][1] == {
        "ports": [{"port": 443}, {"port": 8080}],
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    }
    assert rendered["NetworkPolicy"]["spec"]["egress"][2] == {"ports": [{"port": 4318}]}


@pytest.mark.parametrize(("by", "scaler"), [("queue", "ScaledObject"), ("cpu", "HorizontalPodAutoscaler")])
def test_only_the_autoscaler_sets_the_replicas(manifests: Template, by: str, scaler: str) -> None:
    """With autoscaling, the Deployment sets no replicas and exactly one scaler exists."""
    rendered = manifests({"autoscaling": {"by": by, "minReplicas": 0}})

    assert "replicas" not in rendered["Deployment"]["spec"]
    assert {"ScaledObject", "HorizontalPodAutoscaler"} & set(rendered) == {scaler}


def test_pods_follow_the_queue(manifests: Template) -> None:
    """KEDA reads the queue depth of each stage type; the target per pod is its slots times the configured factor.

    With credentials, each trigger authenticates.
    """
    rendered = manifests(EVERYTHING)["ScaledObject"]["spec"]

    assert (rendered["minReplicaCount"], rendered["maxReplicaCount"]) == (0, 10)
    assert [trigger["metadata"] for trigger in rendered["triggers"]] == [
        {
            "url": f"https://manager.example.com/jobnik/v1/queues/{stage_type}/depth",
            "valueLocation": "total",
            "targetValue": "24",
            "authMode": "basic",
        }
        for stage_type in ("thumbnails", "contact%20sheets")
    ]
    assert [trigger["authenticationRef"] for trigger in rendered["triggers"]] == 2 * [{"name": "manager"}]


def test_the_scaler_uses_the_full_address_of_the_manager(manifests: Template) -> None:
    """KEDA runs in another namespace, so its URL contains the namespace of the manager."""
    scaled = manifests({"autoscaling": {"by": "queue"}})["ScaledObject"]["spec"]

    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["url"] == "http://jobnik-manager.jobs.svc:8080/v1/queues/thumbnail-worker/depth"
    assert not {"authMode", "authenticationRef"} & (set(trigger) | set(trigger["metadata"]))


def test_a_minimum_above_the_maximum_is_refused(worker_chart: Chart) -> None:
    """Helm refuses minReplicas above maxReplicas."""
    worker_chart.assert_refuses(
        {"autoscaling": {"minReplicas": 6}}, "minReplicas is 6 and autoscaling.maxReplicas is 5"
    )


def test_the_grace_period_follows_the_drain_time(manifests: Template) -> None:
    """The termination grace period is 15 s longer than the drain time."""
    rendered = manifests({"drainSeconds": 100})

    assert rendered["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 115
    assert rendered["ConfigMap"]["data"]["WORKER_DRAIN_SECONDS"] == "100"


def test_a_custom_service_name_takes_precedence(manifests: Template) -> None:
    """OTEL_SERVICE_NAME in the extra settings replaces the default."""
    own = {"telemetry": {"tracingUrl": "http://collector:4318/v1/traces"}, "extra": {"OTEL_SERVICE_NAME": "painter"}}

    assert manifests({"env": own})["ConfigMap"]["data"]["OTEL_SERVICE_NAME"] == "painter"


def test_extra_settings_cannot_replace_settings_of_the_chart(worker_chart: Chart, manifests: Template) -> None:
    """Extra settings cannot set a variable that the chart sets, or change the host or port of the probes."""
    written = set(manifests(EVERYTHING)["ConfigMap"]["data"]) - set(EVERYTHING["env"]["extra"]) - {"OTEL_SERVICE_NAME"}

    assert "WORKER_DRAIN_SECONDS" in written
    for name in (*written, "PROBE_HOST", "PROBE_PORT"):
        worker_chart.assert_refuses({"env": {"extra": {name: "1"}}}, f"invalid propertyName '{name}'")


def test_a_changed_setting_restarts_the_pods(manifests: Template) -> None:
    """The pods contain a checksum of the settings, because a changed ConfigMap alone does not restart them."""
    checksums = {
        manifests(values)["Deployment"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for values in ({}, {"env": {"extra": {"NAME": "value"}}})
    }

    assert len(checksums) == 2


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
        ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "/podDisruptionBudget/maxUnavailable"),
        ({"alerts": {"runbookUrl": "RUNBOOK.md"}}, "/alerts/runbookUrl"),
    ],
)
def test_a_wrong_value_is_refused(worker_chart: Chart, values: dict[str, Any], complaint: str) -> None:
    """Helm names a misspelt or invalid value and renders nothing."""
    worker_chart.assert_refuses(values, complaint)
