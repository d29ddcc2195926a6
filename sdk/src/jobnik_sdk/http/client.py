"""The HTTP conversation with a manager: one request at a time, with retries, typed errors and trace context."""

import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx2
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from jobnik_sdk.errors import (
    AnswerError,
    ConfigurationError,
    LostAnswerError,
    UnexpectedAnswerError,
    UnreachableError,
    answer_error,
)
from jobnik_sdk.http import retries
from jobnik_sdk.model.payloads import first_validation_error
from jobnik_sdk.observability import metrics, trace_context

DEFAULT_TIMEOUT: Final = timedelta(seconds=30)
CONNECT_TIMEOUT: Final = timedelta(seconds=5)

_NOT_FOUND: Final = 404
_NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Refusal(BaseModel):
    model_config = ConfigDict(frozen=True)

    message: str
    code: str


class _Capabilities(BaseModel):
    model_config = ConfigDict(frozen=True)

    features: frozenset[str]


class JobnikClient:
    """A connection to the manager at `base_url`, shared by any number of producers, consumers and workers.

    It belongs to the event loop on which it is first used. Use it as an async context manager, or call `aclose` in the
    end. `timeout` (default 30 s) holds for each wait for bytes; a connection has 5 s to come about. `transport` takes
    the network's place, for tests; one that is an `httpx2.BaseTransport` as well does so for `blocking` connections.

    Raises:
        ConfigurationError: `base_url` is no http or https address, or ends with /v1.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = checked_address(base_url)
        self.timeout: Final = timeout
        self._trust = _trust(base_url)
        self._blocking_transport = transport if isinstance(transport, httpx2.BaseTransport) else None
        self._features: frozenset[str] | None = None
        self._http = httpx2.AsyncClient(
            base_url=base_url,
            verify=self._trust,
            timeout=httpx2.Timeout(timeout.total_seconds(), connect=CONNECT_TIMEOUT.total_seconds(), pool=None),
            transport=transport,
            headers={"User-Agent": f"jobnik-sdk/{version('jobnik-sdk')}"},
        )

    async def __aenter__(self) -> Self:
        """Return the client itself; connections are opened as they are needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self.aclose()

    def blocking(self, timeout: timedelta) -> httpx2.Client:
        """Return a connection for another thread, without an event loop; `timeout` holds for each wait for bytes."""
        headers = {"User-Agent": self._http.headers["User-Agent"]}
        return httpx2.Client(
            base_url=self._http.base_url,
            verify=self._trust,
            timeout=timeout.total_seconds(),
            transport=self._blocking_transport,
            headers=headers,
        )

    async def aclose(self) -> None:
        """Close all connections; saying it twice does no harm."""
        await self._http.aclose()

    async def capabilities(self) -> frozenset[str]:
        """Return the features of part B of the protocol that the manager has; it is asked once.

        Empty: it has part A alone.

        Raises:
            UnreachableError, AnswerError: as `request`; the next call asks again.
        """
        if self._features is None:
            try:
                answer = await self.request("GET", "/v1/capabilities")
                self._features = read_one(_Capabilities, answer).features
            except AnswerError as error:
                if error.status != _NOT_FOUND:
                    raise
                self._features = frozenset()
        return self._features

    async def request(  # noqa: PLR0913 what a request may have belongs in one place
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        traceparent: str | None = None,
        prefer: str | None = None,
        retry: bool = True,
    ) -> httpx2.Response:
        """Send a request and return the answer, which is a success.

        The body is `json`; bytes are JSON already. `prefer` says what the answer should be like (RFC 7240). Without
        `traceparent` the request belongs to the current trace, else to a new one. With `retry` it is sent up to three
        times more: after 502, 503 and 504 (not before `Retry-After` is over), after a connection that was refused, and,
        unless it is a POST, which may not be carried out twice, after an answer that was lost.

        Raises:
            UnreachableError: no answer came; LostAnswerError if the request may have been carried out.
            AnswerError: the manager refused; its subclasses tell the reason.
        """
        headers = trace_context.fields(traceparent or trace_context.current_traceparent() or trace_context.generate())
        if prefer is not None:
            headers["Prefer"] = prefer
        if isinstance(json, bytes):
            headers["Content-Type"] = "application/json"
            request = self._http.build_request(method, path, content=json, headers=headers)
        else:
            request = self._http.build_request(method, path, json=json, headers=headers)
        delays: Iterator[float] = retries.delays() if retry else iter(())
        retried = False
        failure: UnreachableError | AnswerError
        while True:
            try:
                response = await self._send(request, retried=retried)
                if response.is_success:
                    return response
                failure = _refusal_in(response)
            except httpx2.HTTPError as error:
                failure = self._silence(error)
            delay = next(delays, None) if retries.may_repeat(failure, method) else None
            if delay is None:
                raise failure
            await retries.pause(failure, method, delay)
            retried = True

    async def _send(self, request: httpx2.Request, *, retried: bool) -> httpx2.Response:
        started = time.perf_counter()
        status_code = "none"
        try:
            response = await self._http.send(request)
            status_code = str(response.status_code)
            return response
        finally:
            duration = metrics.HTTP_DURATION.labels(request.method, status_code, str(retried).lower())
            duration.observe(time.perf_counter() - started)

    def _silence(self, error: httpx2.HTTPError) -> UnreachableError:
        why = str(error) or type(error).__name__
        if isinstance(error, _NEVER_SENT):
            advice = "check the address, and that it runs"
            return UnreachableError(f"The manager at {self.base_url} cannot be reached ({advice}): {why}.")
        return LostAnswerError(f"The manager at {self.base_url} did not answer: {why}.")


def checked_address(base_url: str) -> str:
    """Return a manager's address as it is.

    Raises:
        ConfigurationError: it is no http or https address, or ends with /v1.
    """
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise ConfigurationError(f"The manager's address {base_url!r} cannot be read: {error}.") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(f"The manager's address is like http://127.0.0.1:8080, not {base_url!r}.")
    if url.path.rstrip("/").endswith("/v1"):
        raise ConfigurationError(f"The manager's address is said without /v1, which is added to it: {base_url!r}.")
    return base_url


def _trust(base_url: str) -> ssl.SSLContext:
    """Whom to trust at an address: for https whom the machine trusts.

    Reading that takes a tenth of a second and some megabytes, so that it is done once, and never for http: there nobody
    is trusted.
    """
    if httpx2.URL(base_url).scheme == "https":
        return httpx2.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def read_one(model: type[ModelT], response: httpx2.Response, document: bytes | None = None) -> ModelT:
    """Return the entity in an answer, or in a part of it.

    Raises:
        UnexpectedAnswerError: the answer does not fit the model; the message names the field.
    """
    try:
        return model.model_validate_json(response.content if document is None else document)
    except ValidationError as error:
        raise _misfit(response, error) from None


def read_many(model: type[ModelT], response: httpx2.Response) -> list[ModelT]:
    """Return the list of entities in an answer; raises as `read_one` does."""
    try:
        return _list_of(model).validate_json(response.content)
    except ValidationError as error:
        raise _misfit(response, error) from None


@cache
def _list_of(model: type[ModelT]) -> TypeAdapter[list[ModelT]]:
    # The annotation is made at run time, which only pydantic needs to understand.
    annotation: Any = list.__class_getitem__(model)
    return TypeAdapter(annotation)


def _misfit(response: httpx2.Response, error: ValidationError) -> UnexpectedAnswerError:
    field, why = first_validation_error(error)
    request = response.request
    message = f"The answer to {request.method} {request.url} does not fit at {field or 'its top'}: {why}"
    return UnexpectedAnswerError(message, status=response.status_code, code="UNEXPECTED_ANSWER")


def _refusal_in(response: httpx2.Response) -> AnswerError:
    try:
        refusal = _Refusal.model_validate_json(response.content)
        request = response.request
        message, code = f"{request.method} {request.url.path}: {refusal.message}", refusal.code
    except ValidationError:
        message = f"{response.request.method} {response.request.url} was answered {response.reason_phrase}."
        code = None
    retry_after = retries.asked_delay(response.headers.get("Retry-After", ""))
    return answer_error(message, status=response.status_code, code=code, retry_after=retry_after)
