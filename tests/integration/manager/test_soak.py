"""The soak of ``make bench PART=soak`` runs, and nothing is lost in it."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.soak import report, samples
from benchmarks.soak.run import Plan, soak
from tests.support import invariants
from tests.support.sessions import Session
from tools.manager import ManagerProcess


@pytest.mark.timeout(180)  # waits for delayed tasks
async def test_a_short_soak(
    start_manager: Callable[..., ManagerProcess], database_url: str, connection: Session, tmp_path: Path
) -> None:
    """Every task ends, finished jobs are deleted, and the samples become a table and charts."""
    manager = start_manager()
    plan = Plan(1.0, settling=0.5, measuring=0.4, interval=0.5, keep=0.3, backlog=200, output=tmp_path)
    await soak(database_url, [manager.url] * 2, [manager.process.pid] * 2, plan)

    assert await invariants.violations(connection) == []
    assert await connection.fetchval("SELECT count(*) FROM jobs WHERE status NOT IN ('COMPLETED', 'FAILED')") == 0
    _, second = samples.read(tmp_path / report.SAMPLES)
    assert min(second.memory) > 10
    assert not second.events.get("requests answered with 503")
    assert not second.events["reports refused"]
    lines = report.write(tmp_path).splitlines()
    assert [line.split(" | ")[0] for line in lines[2 : 2 + len(report.ROWS)]] == [
        f"| {row.title}" for row in report.ROWS
    ]
    assert "".join(f"{line}\n" for line in lines) == (tmp_path / report.TABLE).read_text()
    picture = ET.fromstring((tmp_path / report.CHARTS).read_text())  # noqa: S314 - our own picture
    titles = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "title"]
    assert titles[:2] == ["Memory, MB", "Connections to PostgreSQL"]
