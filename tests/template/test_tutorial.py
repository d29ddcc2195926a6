"""docs/tutorial.md, followed to the letter as far as no cluster is needed."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import copier
import pytest
import yaml

from tests.template.charts import Chart
from tests.template.environments import INSTALLATION
from tests.template.versions import commit, edit
from tools.crds import Schema

Tool = Callable[..., str]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()
FILES = re.findall(r"^\*\*`([^`]+)`\*\*([^\n]*)\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def write(project: Path) -> None:
    """Write each file of the page: the whole of it, or at its end, or in place of the line that begins as it does."""
    for name, how, text in FILES:
        path = project / name
        if "at its end" in how:
            text = path.read_text() + text  # noqa: PLW2901 - the text of the file
        elif "in the line" in how:
            begin = text.partition(":")[0]
            text, replaced = re.subn(rf"(?m)^{begin}:.*\n", text, path.read_text())  # noqa: PLW2901 - as above
            assert replaced == 1
        path.write_text(text)


@pytest.fixture
def history(thin_template: Path, tmp_path: Path, tool: Tool) -> Path:
    """Give a clone of the template that a test may change."""
    tool("git", "clone", "--quiet", thin_template, tmp_path / "history", cwd=tmp_path)
    return tmp_path / "history"


@pytest.fixture
def project(render: Callable[..., Path], history: Path) -> Path:
    """Give what the page has one render and write."""
    command = PAGE.split("uvx copier copy ")[1].partition('"$PWD')[0]
    answers = dict(re.findall(r"--data (\w+)=(\S+)", command))
    project = render(history, **{name: yaml.safe_load(answer) for name, answer in answers.items()})
    write(project)
    return project


@pytest.mark.timeout(INSTALLATION)
def test_its_worker_is_green_and_works(project: Path, installed: Path, tool: Tool, jobnik_manager: str) -> None:
    """Lint, types and tests pass as the page says, and its seed prints what it shows."""
    # The dependencies are the installed project's: the worker's code is found first.
    python = installed / ".venv" / "bin" / "python"
    found = {"PYTHONPATH": str(project / "src"), "JOBNIK_BASE_URL": jobnik_manager}

    with ThreadPoolExecutor() as pool:
        types = pool.submit(tool, python.parent / "pyright", "--pythonpath", python, cwd=project)
        tests = pool.submit(tool, python, "-m", "pytest", cwd=project, PYTHONPATH=found["PYTHONPATH"])
        tool(python.parent / "ruff", "check", "--no-cache", ".", cwd=project)
        tool(python.parent / "ruff", "format", "--no-cache", "--diff", ".", cwd=project)
        command = [python, "-m", "traffic_worker"]
        with subprocess.Popen(command, cwd=project, env=os.environ | found | {"PROBE_PORT": "0"}) as worker:
            try:
                said = tool(python, "seed.py", cwd=project, **found)
            finally:
                worker.terminate()
    types.result()
    number = {"four": 4}[PAGE.split("run the ")[1].split()[0]]
    assert f"{number} passed" in tests.result()
    assert worker.returncode == 0
    shown = PAGE.split("Look for these lines in the output:\n\n")[1].split("\n\n")[0]
    assert said == dedent(shown).replace("seed    | ", "") + "\n"
    assert (project / ".dev" / "reports" / "this-week.md").read_text().startswith("8 requests")


def test_its_values_deploy_both_stage_types(project: Path, helm: Path, schemas: Mapping[str, Schema]) -> None:
    """Helm and Kubernetes take its values, KEDA follows both queues, and the settings reach the worker."""
    values = yaml.safe_load((project / "helm" / "values-production.yaml").read_text())
    rendered = Chart(project / "helm", helm, schemas).render(values)

    by_kind = {manifest["kind"]: manifest for manifest in rendered}
    assert {"ScaledObject", "PodMonitor", "PrometheusRule"} < set(by_kind)
    asked = [trigger["metadata"]["url"].split("/queues/")[1] for trigger in by_kind["ScaledObject"]["spec"]["triggers"]]
    assert asked == ["count-log/depth", "write-report/depth"]
    settings = next(one["data"] for one in rendered if one["kind"] == "ConfigMap" and "LOG_LEVEL" in one["data"])
    assert (settings["REPORTS_FOLDER"], settings["LOG_RETRY_DELAY"]) == ("/data/reports", "PT10M")
    mounts = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "data", "mountPath": "/data"} in mounts


def test_an_update_leaves_what_was_written(project: Path, history: Path, tool: Tool) -> None:
    """What is new in the template arrives beside the page's files, which stay as they are."""
    tool("git", "init", "--quiet", cwd=project)
    commit(project, tool)
    written = {name: (project / name).read_text() for name, *_ in FILES}
    edit(history / "template" / "Dockerfile.jinja", "# Probes and metrics.", "# Probes and metrics, on one port.")
    edit(history / "template" / "helm" / "values.yaml.jinja", "drainSeconds: 45", "drainSeconds: 60")
    edit(history / "template" / "pyproject.toml.jinja", "requires-python =", 'license = "MIT"\nrequires-python =')
    commit(history, tool)

    copier.run_update(project, defaults=True, overwrite=True, quiet=True)

    written["helm/values.yaml"] = written["helm/values.yaml"].replace("drainSeconds: 45", "drainSeconds: 60")
    assert {name: (project / name).read_text() for name in written} == written
    assert "on one port" in (project / "Dockerfile").read_text()
    tool("git", "diff", "--check", cwd=project)
