"""Checks whether the manager answers, and which version of the protocol it uses."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Final
from uuid import UUID

from jobnik_sdk.errors import (
    AnswerError,
    ConfigurationError,
    JobNotFoundError,
    SettingsError,
    UnexpectedAnswerError,
    UnreachableError,
)
from jobnik_sdk.http.client import Capabilities, JobnikClient, read_one
from jobnik_sdk.worker.settings import WorkerSettings, environment

from jobnik_devtools.doctor.findings import CannotCheckError, Finding, note, ok, problem
from jobnik_devtools.doctor.project import Project

_PROTOCOL: Final = "1"
_TIMEOUT: Final = timedelta(seconds=5)
_NO_JOB: Final = UUID(int=0)
"""An id that no job has."""
_CORRECT_ADDRESS: Final = "correct JOBNIK_BASE_URL"


def check(_project: Project) -> Iterator[Finding]:
    """Send a request to the manager at JOBNIK_BASE_URL, even if other settings are invalid."""
    try:
        address = environment(WorkerSettings).get("JOBNIK_BASE_URL")
    except SettingsError as error:
        raise CannotCheckError(error) from None
    if not address:
        raise CannotCheckError("JOBNIK_BASE_URL is not set", "set it to check a manager; make dev starts one")
    try:
        yield asyncio.run(_check_address(address))
    except ConfigurationError as error:
        raise CannotCheckError(error) from None


async def _check_address(address: str) -> Finding:
    async with JobnikClient(address, timeout=_TIMEOUT) as client:
        return await check_manager(client)


async def check_manager(client: JobnikClient) -> Finding:
    """Find out whether a manager answers, and which one."""
    address = client.base_url
    try:
        return await _check_capabilities(client)
    except UnreachableError as error:
        reason = str(error).partition(": ")[2]
        return problem(
            f"{address} does not answer: {reason}",
            "start the manager (make dev starts one), or correct JOBNIK_BASE_URL",
        )
    except UnexpectedAnswerError as error:
        return problem(f"{address} is not a Jobnik manager: {error}", _CORRECT_ADDRESS)
    except AnswerError as error:
        return problem(f"the manager at {address} refuses the request: {error}", "read the manager's log")


async def _check_capabilities(client: JobnikClient) -> Finding:
    try:
        answer = read_one(Capabilities, await client.request("GET", "/v1/capabilities", retry=False))
    except AnswerError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return await _check_part_a(client)
    if not answer.protocol:
        return problem(f"{client.base_url} is not a Jobnik manager: it reports no protocol version", _CORRECT_ADDRESS)
    if answer.protocol != _PROTOCOL:
        text = f"{client.base_url} uses version {answer.protocol} of the protocol, this worker version {_PROTOCOL}"
        return problem(text, "use the same release of both; make update updates this worker")
    return ok(f"{client.base_url} answers, version {answer.version}")


async def _check_part_a(client: JobnikClient) -> Finding:
    """Request a job that does not exist: only a manager answers with the protocol's error code."""
    try:
        await client.request("GET", f"/v1/jobs/{_NO_JOB}", retry=False)
    except JobNotFoundError:
        text = (
            f"{client.base_url} serves only part A of the protocol, without leases that recover a dead worker's tasks"
        )
        return note(text, "update the manager if you need leases")
    return problem(f"{client.base_url} is not a Jobnik manager: it returns a job that does not exist", _CORRECT_ADDRESS)
