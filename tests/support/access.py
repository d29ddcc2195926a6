"""Tokens, and the senders of requests to an API that runs in the process of the test."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from jobnik_devtools.environments import clean_environment
from reference_manager.access.principals import Principal
from reference_manager.access.principals import Scope as AccessScope
from reference_manager.api.common.access import PRINCIPAL
from starlette.types import ASGIApp, Receive, Scope, Send

from tools.manager import ManagerProcess

EVERYONE = Principal("", frozenset({AccessScope.ADMIN}))
"""The sender of a request to a manager without tokens."""


def sent_by(app: ASGIApp, principal: Principal = EVERYONE) -> ASGIApp:
    """Return an application whose requests all have this sender."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, PRINCIPAL: principal}, receive, send)

    return serve


async def run_manager(*arguments: str | Path, **variables: str) -> tuple[int, str]:
    """Run ``jobnik-manager`` until it ends. Return its exit code and its output, with that of standard error."""
    reading, writing = os.pipe()
    environment = clean_environment(keep_python=True) | variables
    try:
        process = ManagerProcess.start([str(argument) for argument in arguments], environment, writing)
    finally:
        os.close(writing)
    with os.fdopen(reading) as output:
        text = await asyncio.to_thread(output.read)
    return await asyncio.to_thread(process.wait), text


async def run_token_command(database_url: str, command: str, *arguments: str) -> Any:  # noqa: ANN401 - any JSON
    """Run a token command with ``--json``, which must succeed. Return its JSON."""
    code, output = await run_manager("token", command, *arguments, "--json", "--database-url", database_url)
    assert code == 0, output
    return json.loads(output)


def bearer(secret: str) -> dict[str, str]:
    """Return the header of requests with a token."""
    return {"Authorization": f"Bearer {secret}"}
