"""A manager behind a connection pooler works, or refuses to start and says why."""

import httpx2
import pytest

from tests.support.pooler import Mode, Pooler
from tests.support.protocol import Client, branch
from tools.manager import ManagerProcess


async def test_a_manager_works_behind_a_pooler_in_session_mode(database_url: str) -> None:
    """The pooler refuses the parameters of a connection, so the manager sets its settings by a statement."""
    with Pooler(database_url, "session") as pooler, ManagerProcess("--database-url", pooler.url) as manager:
        async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
            assert (await http.get("/readiness")).status_code == 200
            client = Client(http)
            job = await client.job(stages=[branch("work", 1)])
            await client.settle(await client.claimed("work"))
            assert await client.status(job) == "COMPLETED"


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_shares_sessions_is_a_clear_error(database_url: str, mode: Mode) -> None:
    """The manager does not start. The message names the mode of the pooler and what to do, without a traceback."""
    with Pooler(database_url, mode) as pooler:
        manager = ManagerProcess("--database-url", pooler.url)
        with pytest.raises(RuntimeError) as caught, manager:
            pass
    assert f"A connection pooler in {mode} mode" in str(caught.value)
    assert "Use the pooler in session mode" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert manager.process.returncode == 1
