"""The steps of docs/tutorial.md that need no cluster."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import copier
import pytest
import yaml

from tests.template.charts import Chart
from tests.template.environments import INSTALL_TIMEOUT
from tests.template.versions import commit, edit
from tools.crds import Schema

Tool = Callable[..., str]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()
FILES = re.findall(r"^\*\*`([^`]+)`\*\*([^\n]*)\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def write(project: Path) -> None:
    """Write each file of the page: the whole file, an addition at its end, or a replacement of one line."""
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
    """Return a clone of the template that a test may change."""
    tool("git", "clone", "--quiet", thin_template, tmp_path / "history", cwd=tmp_path)
    return tmp_path / "history"


@pytest.fixture
def project(render: Callable[..., Path], history: Path) -> Path:
    """Return the project of the page, rendered and written as described."""
    command = PAGE.split("uvx copier copy ")[1].partition(" git+https://")[0]
    answers = dict(re.findall(r"--data (\w+)=(\S+)", command))
    project = render(history, **{name: yaml.safe_load(answer) for name, answer in answers.items()})
    write(project)
    return project


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_the_tutorials_worker_passes_its_checks_and_runs(
    project: Path, installed: Path, tool: Tool, jobnik_manager: str
) -> None:
    """Lint, types and tests pass as documented, and the seed prints the documented output."""
    # Use the dependencies of the installed project; PYTHONPATH puts the worker's code first.
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
                output = tool(python, "seed.py", cwd=project, **found)
            finally:
                worker.terminate()
    types.result()
    number = {"four": 4}[PAGE.split("run the ")[1].split()[0]]
    assert f"{number} passed" in tests.result()
    assert worker.returncode == 0
    shown = PAGE.split("Look for these lines in the output:\n\n")[1].split("\n\n")[0]
    assert output == dedent(shown).replace("seed    | ", "") + "\n"
    assert (project / ".dev" / "reports" / "this-week.md").read_text().startswith("8 requests")


def test_the_tutorials_project_can_be_built(history: Path, tmp_path: Path, tool: Tool) -> None:
    """The worker is rendered from a URL, which the build of the image can reach, so its README has no warning."""
    command = PAGE.split("uvx copier copy ")[1].partition("\n    cd ")[0]
    assert command.split()[-2:] == ["git+https://git.example.com/jobnik.git", "traffic-worker"]

    copier_program = Path(sys.executable).with_name("copier")
    options = ["--quiet", *shlex.split(command.replace("\\\n", ""))]
    configuration = {
        "COPIER_CACHE_DIR": str(tmp_path / "mirrors"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{history}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://git.example.com/jobnik.git",
    }
    tool(copier_program, "copy", *options, cwd=tmp_path, **configuration)

    readme = (tmp_path / "traffic-worker" / "README.md").read_text()
    assert "The build fetches the SDK from `https://git.example.com/jobnik.git`" in readme
    assert "cannot reach" not in readme
    sources = tomllib.loads((tmp_path / "traffic-worker" / "pyproject.toml").read_text())["tool"]["uv"]["sources"]
    assert {source["git"] for source in sources.values()} == {"https://git.example.com/jobnik.git"}


def test_the_tutorials_values_deploy_both_stage_types(project: Path, helm: Path, schemas: Mapping[str, Schema]) -> None:
    """Helm and Kubernetes accept the values, KEDA scales by both queues, and the settings reach the worker."""
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


def test_an_update_keeps_the_tutorials_files(project: Path, history: Path, tool: Tool) -> None:
    """An update of the template adds its changes and keeps the files of the page."""
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
