"""Whether the manager answers, and what it can do."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Final
from uuid import UUID

from jobnik_sdk.errors import AnswerError, ConfigurationError, JobNotFoundError, UnexpectedAnswerError, UnreachableError
from jobnik_sdk.http.client import Capabilities, JobnikClient, read_one
from jobnik_sdk.service.settings import WorkerSettings, environment

from jobnik_devtools.doctor.findings import CannotCheckError, Finding, note, well, wrong
from jobnik_devtools.doctor.project import Project

_PROTOCOL: Final = "1"
_TIMEOUT: Final = timedelta(seconds=5)
_NOBODY: Final = UUID(int=0)
"""The id of no job."""
_ELSEWHERE: Final = "correct JOBNIK_BASE_URL"


def check(_project: Project) -> Iterator[Finding]:
    """Ask the manager at JOBNIK_BASE_URL once, whatever other settings say."""
    address = environment(WorkerSettings).get("JOBNIK_BASE_URL")
    if not address:
        raise CannotCheckError("JOBNIK_BASE_URL is not set")
    try:
        yield asyncio.run(_look_at(address))
    except ConfigurationError:
        raise CannotCheckError("JOBNIK_BASE_URL is no address of a manager") from None


async def _look_at(address: str) -> Finding:
    async with JobnikClient(address, timeout=_TIMEOUT) as client:
        return await look(client)


async def look(client: JobnikClient) -> Finding:
    """Find out who answers."""
    address = client.base_url
    try:
        return await _ask(client)
    except UnreachableError as error:
        reason = str(error).partition(": ")[2]
        return wrong(
            f"{address} does not answer: {reason}", "start it (make dev starts one), or correct JOBNIK_BASE_URL"
        )
    except UnexpectedAnswerError as error:
        return wrong(f"{address} is no Jobnik manager: {error}", _ELSEWHERE)
    except AnswerError as error:
        return wrong(f"the manager at {address} refuses: {error}", "read its log")


async def _ask(client: JobnikClient) -> Finding:
    try:
        answer = read_one(Capabilities, await client.request("GET", "/v1/capabilities", retry=False))
    except AnswerError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return await _ask_for_part_a(client)
    if not answer.protocol:
        return wrong(f"{client.base_url} is no Jobnik manager: it states no version of the protocol", _ELSEWHERE)
    if answer.protocol != _PROTOCOL:
        text = f"{client.base_url} speaks version {answer.protocol} of the protocol, this worker version {_PROTOCOL}"
        return wrong(text, "move both to the same release: make update moves this worker")
    return well(f"{client.base_url} answers, version {answer.version}")


async def _ask_for_part_a(client: JobnikClient) -> Finding:
    """Ask for a job that there is not: only a manager says so in the protocol's words."""
    try:
        await client.request("GET", f"/v1/jobs/{_NOBODY}", retry=False)
    except JobNotFoundError:
        text = (
            f"{client.base_url} knows part A of the protocol alone, so that no lease saves the tasks of a dead worker"
        )
        return note(text, "update the manager, if that matters")
    return wrong(f"{client.base_url} is no Jobnik manager: it has a job that nobody created", _ELSEWHERE)
