"""The alerts, dashboard and scaler of the worker's chart use metrics that are really exported."""

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx2
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families
from pydantic import JsonValue

from tests.template.charts import DOWNLOAD_TIMEOUT, Chart, Manifest, everything
from tests.template.promql import labels_left, selections
from tools.snapshot import ROOT

pytestmark = pytest.mark.timeout(DOWNLOAD_TIMEOUT)

STAGE_TYPE = "thumbnails"

TARGET = {"namespace": "jobs", "pod": "thumbnail-worker-7c9d8b6f5-x2x4z"}
"""The labels that Prometheus adds to the metrics of a pod."""

VARIABLES = {"namespace": "jobs", "pod": TARGET["pod"], "stage_type": STAGE_TYPE, "manager_namespace": "jobs"}
"""The selected values of the dashboard's variables."""

Samples = Mapping[str, Sequence[Mapping[str, str]]]
"""The labels of each sample, by the name of the metric."""


@pytest.fixture(scope="module")
def manifests(worker_chart: Chart) -> Mapping[str, Manifest]:
    """Return all manifests by kind. The dashboard's ConfigMap is rendered last, so it is the one in the mapping."""
    values = everything("worker")
    values["alerts"]["managerNamespace"] = "jobs"
    return {manifest["kind"]: manifest for manifest in worker_chart.render(values)}


@pytest.fixture(scope="module")
def rules(manifests: Mapping[str, Manifest]) -> Sequence[dict[str, Any]]:
    """Return the alerts."""
    (group,) = manifests["PrometheusRule"]["spec"]["groups"]
    return group["rules"]


@pytest.fixture(scope="module")
def dashboard(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Return the dashboard."""
    return json.loads(manifests["ConfigMap"]["data"]["jobs_thumbnail-worker.json"])


@pytest.fixture(scope="module")
def samples(tool: Callable[..., str], jobnik_manager: str, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Return the samples that a worker and its manager export after they have processed tasks."""
    file = tmp_path_factory.mktemp("metrics") / "metrics"
    tool(sys.executable, "-m", "tests.template.metrics_worker", jobnik_manager, STAGE_TYPE, file, cwd=ROOT)
    samples: dict[str, list[Mapping[str, str]]] = {}
    for text in (file.read_text(), httpx2.get(f"{jobnik_manager}/metrics").text):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample.labels | TARGET)
    return samples


def _assert_exported(expression: str, samples: Samples) -> None:
    for selection in selections(expression):
        # prometheus_client reads these metrics from /proc, which macOS does not have.
        if not (selection.name.startswith("process_") and sys.platform == "darwin"):
            assert any(map(selection.takes, samples[selection.name])), f"{selection} in {expression}"


def test_alerts_use_exported_metrics(rules: Sequence[dict[str, Any]], samples: Samples) -> None:
    """A running worker or manager exports each metric of an alert, with matching labels."""
    for rule in rules:
        _assert_exported(rule["expr"], samples)


def test_alerts_have_the_labels_that_they_use(rules: Sequence[dict[str, Any]]) -> None:
    """Each alert has the labels that its summary, its description and its receivers use."""
    for rule in rules:
        labels = labels_left(rule["expr"])
        assert labels is not None
        for annotation in ("summary", "description"):
            assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"][annotation])) <= labels
        assert {"severity", "namespace"} <= labels | rule["labels"].keys()


def test_the_runbook_has_a_heading_for_each_alert(rules: Sequence[dict[str, Any]], worker_chart: Chart) -> None:
    """The runbook has one heading for each alert and no other, and each alert links to its heading."""
    headings = re.findall(r"^## (\w+)$", (worker_chart.folder / "RUNBOOK.md").read_text(), re.MULTILINE)

    assert [rule["alert"] for rule in rules] == headings
    assert [rule["annotations"]["runbook_url"] for rule in rules] == [
        f"https://example.com/RUNBOOK.md#{heading.lower()}" for heading in headings
    ]


def test_the_runbook_quotes_events_that_the_sdk_logs(worker_chart: Chart) -> None:
    """The SDK logs every event that the runbook quotes in lower case and double quotes."""
    quoted = set(re.findall(r'"([a-z][^"]*)"', (worker_chart.folder / "RUNBOOK.md").read_text()))

    assert "task failed" in quoted
    assert quoted - set(_logged_events()) == set()


def test_descriptions_quote_panels_and_events_that_exist(
    rules: Sequence[dict[str, Any]], dashboard: dict[str, Any]
) -> None:
    """The description of an alert quotes only panels of the dashboard, log events, and a few words of its own."""
    known = {panel["title"] for panel in dashboard["panels"]} | set(_logged_events())
    quoted = {quotation for rule in rules for quotation in re.findall(r'"([^"]+)"', rule["annotations"]["description"])}

    assert quoted - known == {"handler", "dequeue", "helm test"}


def _logged_events() -> Iterator[str]:
    """Yield the event of each log call in the SDK, which is a literal: the first argument, or that after the logger."""
    for path in (ROOT / "sdk" / "src" / "jobnik_sdk").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="debug" | "info" | "warning" | "error" | "exception"),
                    args=[ast.Constant(value=str(event)), *_],
                ):
                    yield event
                case ast.Call(func=ast.Name("LimitedWarning"), args=[_, ast.Constant(value=str(event)), *_]):
                    yield event
                case _:
                    pass


def test_the_runbook_names_panels_of_the_dashboard(worker_chart: Chart, dashboard: dict[str, Any]) -> None:
    """The dashboard has every panel whose title the runbook prints in bold."""
    named = set(re.findall(r"panel \*\*(.+?)\*\*", (worker_chart.folder / "RUNBOOK.md").read_text()))

    assert named
    assert named <= {panel["title"] for panel in dashboard["panels"]}


def test_alerts_select_the_pods_of_their_release(worker_chart: Chart) -> None:
    """The alerts of a release select its pods and no others, also if its name is long."""
    values = {"alerts": {"enabled": True}}
    for release in ("thumbnail-worker", "thumbnails-of-a-department-with-quite-a-name"):
        rendered = {manifest["kind"]: manifest for manifest in worker_chart.render(values, release=release)}
        name = rendered["Deployment"]["metadata"]["name"]
        for selection in selections(rendered["PrometheusRule"]["spec"]["groups"][0]["rules"][0]["expr"]):
            # The hash of a ReplicaSet has up to ten characters; the name is cut to 58 before the suffix of the pod.
            assert selection.wanted["pod"].fullmatch(f"{f'{name}-7c9d8b6f5a-'[:58]}x2x4z")
            assert not selection.wanted["pod"].fullmatch(f"{name}-large-7c9d8b6f5a-x2x4z")


def test_panels_use_exported_metrics(dashboard: dict[str, Any], samples: Samples) -> None:
    """A running worker or manager exports each metric of a panel or variable, with matching labels."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = _chosen(target["expr"])
            _assert_exported(expression, samples)
            labels = labels_left(expression)
            assert labels is None or set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
    for variable in dashboard["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert found is not None
        _assert_exported(_chosen(found[1]), samples)
        assert all(found[2] in labels for labels in samples[selections(_chosen(found[1]))[0].name])


def _chosen(expression: str) -> str:
    """Replace the variables in an expression, as Grafana does."""
    chosen = expression.replace("$__rate_interval", "2m")
    for name, value in VARIABLES.items():
        chosen = chosen.replace(f'"${name}"', json.dumps(value))
    assert "$" not in chosen
    return chosen


def _as_grafana_reads(dashboard: dict[str, Any]) -> JsonValue:
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))


def test_grafana_accepts_the_dashboard(dashboard: dict[str, Any]) -> None:
    """Grafana's own types know every field of the dashboard, and a misspelt field is found."""
    misspelt = {**dashboard, "panles": ""}

    assert list(_differences(dashboard, _as_grafana_reads(dashboard))) == []
    assert list(_differences(misspelt, _as_grafana_reads(misspelt))) == ["/panles"]


def _differences(given: JsonValue, read: JsonValue, place: str = "") -> Iterator[str]:
    """Yield the paths where `read` lacks a given value or has another one. `read` may contain further defaults."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            yield from _differences(value, read.get(key), f"{place}/{key}")
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from _differences(one, other, f"{place}/{index}")
    elif given != read:
        yield place


def test_every_panel_is_complete(dashboard: dict[str, Any]) -> None:
    """Each panel has a title, a description, a unit and a data source, and panels do not overlap."""
    places = set[tuple[int, int]]()
    for number, panel in enumerate(dashboard["panels"], start=1):
        assert panel["id"] == number
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["legendFormat"]
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & places
        assert max(x for x, _ in covered) < 24
        places |= covered


def test_each_release_has_its_own_dashboard(dashboard: dict[str, Any], worker_chart: Chart) -> None:
    """The id, title and file of a dashboard differ between releases, and it initially shows its own worker."""
    variables = dashboard["templating"]["list"]
    chosen = {variable["name"]: variable["current"]["value"] for variable in variables if "current" in variable}
    values = {"dashboard": {"enabled": True}}
    other = {manifest["kind"]: manifest for manifest in worker_chart.render(values, release="other")}

    ((file, text),) = other["ConfigMap"]["data"].items()
    # Grafana's sidecar puts the files of all releases into one folder.
    assert file == "jobs_other-thumbnail-worker.json"
    assert dashboard["title"] == "thumbnail-worker (jobs)"
    assert json.loads(text)["title"] == "other-thumbnail-worker (jobs)"
    assert json.loads(text)["uid"] != dashboard["uid"]
    assert (chosen["namespace"], chosen["stage_type"]) == ("jobs", ["thumbnails", "contact sheets"])


def test_the_manager_answers_the_scaler(worker_chart: Chart, jobnik_manager: str) -> None:
    """A manager responds to each URL of KEDA with a number at the location that KEDA reads."""
    values = {
        "autoscaling": {"by": "queue"},
        "stageTypes": [STAGE_TYPE, "contact sheets"],
        "env": {"jobnik": {"baseUrl": f"{jobnik_manager}/"}},
    }
    (scaled,) = (manifest for manifest in worker_chart.render(values) if manifest["kind"] == "ScaledObject")

    for trigger in scaled["spec"]["triggers"]:
        answer = httpx2.get(trigger["metadata"]["url"])
        assert answer.status_code == 200
        assert answer.json()[trigger["metadata"]["valueLocation"]] == 0
