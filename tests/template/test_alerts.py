"""The worker's alerts, evaluated by promtool."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.template.charts import DOWNLOAD_TIMEOUT, Chart, everything
from tools.promtool import find_promtool

pytestmark = pytest.mark.timeout(DOWNLOAD_TIMEOUT)

POD = 'namespace="jobs",pod="thumbnail-worker-7c9d8b6f5-x2x4z"'
OF_TYPE = f'{POD},stage_type="thumbnails"'

COMPLETED = f'jobnik_sdk_worker_task_duration_seconds_count{{{OF_TYPE},status="completed"}}'
FAILED = f'jobnik_sdk_worker_task_duration_seconds_count{{{OF_TYPE},status="failed"}}'
RETRIES = f"jobnik_sdk_worker_task_retries_total{{{OF_TYPE}}}"
BREAKER = f'jobnik_sdk_worker_circuit_breaker_state{{{OF_TYPE},breaker="handler"}}'
OF_ANOTHER_RELEASE = BREAKER.replace("worker-7c9d8b6f5", "worker-large-7c9d8b6f5")
AGE = 'jobnik_oldest_waiting_age_seconds{namespace="jobnik",stage_type="thumbnails"}'
AT_ANOTHER_MANAGER = AGE.replace('"jobnik"', '"staging"')
SUCCESS = f"jobnik_sdk_worker_last_success_timestamp_seconds{{{OF_TYPE}}}"
TAKEN = f'jobnik_sdk_consumer_task_updates_total{{{OF_TYPE},status="COMPLETED",result="success"}}'
REFUSED = TAKEN.replace("success", "failure")
UNANSWERED = f'jobnik_sdk_http_request_duration_seconds_count{{{POD},status_code="none"}}'
UNAVAILABLE = UNANSWERED.replace("none", "503")

LOST = f"jobnik_sdk_worker_leases_lost_total{{{OF_TYPE}}}"
WAITING = f"jobnik_sdk_worker_reports_waiting{{{POD}}}"
BLOCKED = f"jobnik_sdk_worker_event_loop_blocked_seconds_total{{{POD}}}"
LATE = f"jobnik_sdk_worker_heartbeats_late_total{{{POD}}}"
DIED = f'jobnik_sdk_worker_processes_ended_total{{{OF_TYPE},reason="died"}}'
REPLACED = DIED.replace("died", "replaced")
ABANDONED = f"jobnik_sdk_worker_handlers_abandoned_total{{{OF_TYPE}}}"
SLOTS = f"jobnik_sdk_worker_slots{{{OF_TYPE}}}"

SEVERE = {"severity": "critical", "namespace": "jobs"}
MILD = {"severity": "warning", "namespace": "jobs", "stage_type": "thumbnails"}
MILD_FOR_POD = {"severity": "warning", "namespace": "jobs", "pod": "thumbnail-worker-7c9d8b6f5-x2x4z"}


class Scenario(NamedTuple):
    """Time series in promtool's notation with one value per half minute, and the times when the alert fires."""

    name: str
    series: Mapping[str, str]
    silent: Sequence[int] = ()
    """Minutes at which the alert must not fire."""
    firing: Sequence[int] = ()
    """Minutes at which the alert must fire."""


NOTHING = Scenario("no pods and no manager exist", {}, silent=[30])
HOURLY = " ".join(f"{hour * 3600}x119" for hour in range(5))

ALERTS: dict[str, tuple[dict[str, str], list[Scenario]]] = {
    "JobnikWorkerTasksFail": (
        MILD,
        [
            NOTHING,
            Scenario(
                "half of the tasks fail",
                {COMPLETED: "0+1x80", FAILED: "0+1x80", RETRIES: "0x80"},
                silent=[9],
                firing=[25],
            ),
            Scenario("one task in ten fails", {COMPLETED: "0+9x80", FAILED: "0+1x80", RETRIES: "0x80"}, silent=[25]),
            Scenario(
                "a third of the attempts fail, and their tasks are completed later",
                {COMPLETED: "0+2x80", FAILED: "0+1x80", RETRIES: "0+1x80"},
                silent=[9, 25, 35],
            ),
            Scenario(
                "half of the attempts fail, and half of those are the last ones",
                {COMPLETED: "0+4x80", FAILED: "0+4x80", RETRIES: "0+2x80"},
                silent=[9],
                firing=[25],
            ),
            Scenario(
                "most attempts fail, and their tasks are tried again",
                {COMPLETED: "0+1x80", FAILED: "0+2x80", RETRIES: "0+2x80"},
                silent=[9],
                firing=[25],
            ),
            Scenario(
                "the only attempt failed",
                {FAILED: "0x10 1x70", RETRIES: "0x80"},
                silent=[6, 10, 14, 15, 16, 20],
            ),
        ],
    ),
    "JobnikWorkerBreakerOpen": (
        MILD | {"pod": "thumbnail-worker-7c9d8b6f5-x2x4z", "breaker": "handler"},
        [
            NOTHING,
            Scenario("it opens again after each try", {BREAKER: "2 1 " * 40}, silent=[4], firing=[10]),
            Scenario("it is half open and no task is available", {BREAKER: "2 1x80"}, silent=[10]),
            Scenario("it is open in a release with a longer name", {OF_ANOTHER_RELEASE: "2x80"}, silent=[10]),
            Scenario("its pod is gone", {BREAKER: "2x5 stale"}, silent=[10]),
        ],
    ),
    "JobnikWorkerIdleBesideBacklog": (
        SEVERE | {"stage_type": "thumbnails"},
        [
            NOTHING,
            Scenario("a task waits and no pods exist", {AGE: "0+30x400"}, silent=[90], firing=[100]),
            Scenario(
                "the queue is long and one task per hour completes",
                {AGE: "9000x500", SUCCESS: HOURLY},
                silent=[100, 230],
            ),
            Scenario("pods hang", {AGE: "9000x400", SUCCESS: "60x400"}, silent=[90], firing=[100]),
            Scenario("pods are gone", {AGE: "9000x400", SUCCESS: "0+30x200 stale"}, silent=[180], firing=[200]),
            Scenario("pods exist and no task waits", {AGE: "0x400", SUCCESS: "60x400"}, silent=[100]),
            Scenario("a task waits at another manager", {AT_ANOTHER_MANAGER: "9000x400"}, silent=[100]),
        ],
    ),
    "JobnikWorkerLeasesLost": (
        MILD,
        [
            NOTHING,
            Scenario(
                "one attempt in ten loses its lease",
                {LOST: "0+1x120", COMPLETED: "0+10x120"},
                silent=[14],
                firing=[35],
            ),
            Scenario("the only attempt loses its lease", {LOST: "0x10 1x110", COMPLETED: "0x120"}, silent=[16, 20, 35]),
            Scenario("long attempts lose their leases", {LOST: "0+1x120", COMPLETED: "0x120"}, firing=[35]),
            Scenario(
                "leases were lost for a minute", {LOST: "0x10 0+9x2 18x110", COMPLETED: "0+1x120"}, silent=[16, 35]
            ),
            Scenario("one attempt in 200 loses its lease", {LOST: "0+1x120", COMPLETED: "0+200x120"}, silent=[35]),
        ],
    ),
    "JobnikWorkerReportsRefused": (
        MILD,
        [
            NOTHING,
            Scenario("one report in ten is refused", {TAKEN: "0+9x80", REFUSED: "0+1x80"}, silent=[8], firing=[25]),
            Scenario("one report in forty is refused", {TAKEN: "0+39x80", REFUSED: "0+1x80"}, silent=[25]),
        ],
    ),
    "JobnikWorkerReportsWait": (
        MILD_FOR_POD,
        [
            NOTHING,
            Scenario("none is accepted", {WAITING: "0x10 8x80", COMPLETED: "0x90"}, silent=[9], firing=[25]),
            Scenario("the only one is never accepted", {WAITING: "0x10 1x80", COMPLETED: "0x90"}, firing=[25]),
            Scenario("half of them wait for minutes", {WAITING: "9x90", COMPLETED: "0+2x90"}, firing=[25]),
            Scenario("some always wait for a moment", {WAITING: "9x90", COMPLETED: "0+3000x90"}, silent=[25]),
            Scenario("none waits for long", {WAITING: "0 9 " * 45, COMPLETED: "0x90"}, silent=[25]),
        ],
    ),
    "JobnikWorkerStalls": (
        MILD_FOR_POD,
        [
            NOTHING,
            Scenario("the event loop is blocked for a fifth of the time", {BLOCKED: "0+6x80"}, silent=[9], firing=[25]),
            Scenario("the event loop is blocked now and then", {BLOCKED: "0+2x80"}, silent=[25]),
            Scenario("heartbeats are late", {BLOCKED: "0x80", LATE: "0+1x80"}, silent=[9], firing=[25]),
            Scenario("one heartbeat is late", {BLOCKED: "0x80", LATE: "0x10 1x70"}, silent=[6, 10, 16, 25]),
        ],
    ),
    "JobnikWorkerProcessesDie": (
        MILD,
        [
            NOTHING,
            Scenario("one in ten dies", {DIED: "0+1x80", COMPLETED: "0+9x80"}, silent=[9], firing=[25]),
            Scenario("one in fifty dies", {DIED: "0+1x80", COMPLETED: "0+49x80"}, silent=[25]),
            Scenario("each is replaced", {REPLACED: "0+9x80", DIED: "0x80", COMPLETED: "0+9x80"}, silent=[25]),
        ],
    ),
    "JobnikWorkerSlotsAbandoned": (
        MILD_FOR_POD | {"stage_type": "thumbnails"},
        [
            NOTHING,
            Scenario("half of the slots", {ABANDONED: "0x10 4x70", SLOTS: "8x80"}, silent=[4, 14], firing=[16]),
            Scenario("a few slots", {ABANDONED: "3x80", SLOTS: "8x80"}, silent=[25]),
            Scenario("none, in a pod that stops", {ABANDONED: "0x80", SLOTS: "0x80"}, silent=[25]),
            Scenario("their processes were killed", {ABANDONED: "8x80", SLOTS: "8x80", DIED: "0x80"}, silent=[25]),
        ],
    ),
    "JobnikWorkerCannotReachManager": (
        SEVERE,
        [
            NOTHING,
            Scenario("no request gets a response", {UNANSWERED: "0+1x80"}, silent=[4], firing=[12]),
            Scenario("the manager responds with 503", {UNAVAILABLE: "0+1x80"}, silent=[12]),
        ],
    ),
}
"""The labels and scenarios of each alert."""


@pytest.fixture(scope="module")
def promtool() -> Path:
    """Return the path of promtool."""
    return find_promtool()


@pytest.fixture
def rules(worker_chart: Chart, tmp_path: Path) -> Path:
    """Return a rule file with the chart's alerts."""
    manifests = worker_chart.render(everything("worker"))
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(next(found["spec"] for found in manifests if found["kind"] == "PrometheusRule")))
    return file


def test_promtool_accepts_the_alerts(promtool: Path, rules: Path, tool: Callable[..., str]) -> None:
    """The expressions, durations and summary templates of all alerts are valid."""
    assert f"{len(ALERTS)} rules found" in tool(promtool, "check", "rules", rules.name, cwd=rules.parent)


def test_alerts_fire_only_in_the_scenarios_that_need_them(
    promtool: Path, rules: Path, tool: Callable[..., str]
) -> None:
    """Each alert fires with the expected labels, and does not fire when all is well or no data exists.

    Each alert is evaluated without the others: promtool evaluates all rules of a file at every step of a test.
    """
    (group,) = yaml.safe_load(rules.read_text())["groups"]
    files: list[str] = []
    for rule in group["rules"]:
        alert = rule["alert"]
        labels, scenarios = ALERTS[alert]
        del rule["annotations"]  # otherwise each expectation would have to repeat them
        alone, tests = rules.with_name(f"{alert}.rules.yml"), rules.with_name(f"{alert}.tests.yml")
        alone.write_text(yaml.safe_dump({"groups": [{**group, "rules": [rule]}]}))
        described = [_test(alert, labels, scenario) for scenario in scenarios]
        tests.write_text(yaml.safe_dump({"rule_files": [alone.name], "evaluation_interval": "30s", "tests": described}))
        files.append(tests.name)
    assert len(files) == len(ALERTS)

    tool(promtool, "test", "rules", *files, cwd=rules.parent)


def _test(alert: str, labels: Mapping[str, str], scenario: Scenario) -> dict[str, Any]:
    expected = [{"exp_labels": dict(labels)}]
    return {
        "name": f"{alert}: {scenario.name}",
        "interval": "30s",
        "input_series": [{"series": series, "values": values} for series, values in scenario.series.items()],
        "alert_rule_test": [
            {"alertname": alert, "eval_time": f"{minute}m", "exp_alerts": expected if minute in scenario.firing else []}
            for minute in (*scenario.silent, *scenario.firing)
        ],
    }
