"""The HTTP client of a manager: one request at a time, with retries, typed errors and trace context."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

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
from jobnik_sdk.http import responses, retries
from jobnik_sdk.http.addresses import Address
from jobnik_sdk.http.blocking import LimitedTransport
from jobnik_sdk.http.connections import Connections, Pool
from jobnik_sdk.http.network import DirectTransport
from jobnik_sdk.http.tokens import GivenToken, TokenAuth, check_given, token_in_environment
from jobnik_sdk.model.arguments import check_duration, check_instance
from jobnik_sdk.model.payloads import first_validation_error
from jobnik_sdk.observability import metrics, trace_context

DEFAULT_TIMEOUT: Final = timedelta(seconds=30)
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
_MIN_TIMEOUT: Final = timedelta(milliseconds=1)
FEATURES_MAX_AGE: Final = timedelta(minutes=1)
"""How long the client keeps the manager's features before it reads them again."""

_NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)

ModelT = TypeVar("ModelT", bound=BaseModel)


class Capabilities(BaseModel):
    """The response to `GET /v1/capabilities`, which a manager with part B of the protocol has."""

    model_config = ConfigDict(frozen=True)

    protocol: str = ""
    """The version of the protocol."""
    version: str = ""
    """The version of the manager."""
    features: frozenset[str]
    """The features of part B that the manager supports."""


class _ErrorBody(BaseModel):
    model_config = ConfigDict(frozen=True)

    message: str
    code: str


@dataclass(slots=True)
class _Features:
    known: frozenset[str] | None = None
    read_at: float = 0.0


class JobnikClient:
    """A connection to the manager at `base_url`, shared by any number of producers, consumers and workers.

    A client can be used on several event loops, and before and after a fork: each loop and each process has its own
    connections. They are closed with their loop, by `aclose`, or at the end of an `async with` block. `timeout`
    (default 30 s) limits each wait for data; connecting may take 5 s. `transport` replaces the network in tests. If it
    is also an `httpx2.BaseTransport`, it replaces it for `blocking` connections as well.

    `token` is sent with every request, and to no other host: a text, or the path of a file that is read again when it
    changes. Default: the environment variable JOBNIK_TOKEN or, with the path of a file, JOBNIK_TOKEN_FILE, unless
    JOBNIK_BASE_URL is set to another manager.

    A name and a password in `base_url` are sent with every request, and are not part of the attribute `base_url`. The
    proxies of the environment do not apply to a manager on this machine.

    Raises:
        ConfigurationError: `base_url` is not an http or https URL, or ends with /v1; or a variable of the environment
            that concerns proxies, certificates or the token is invalid.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
        token: str | Path | None = None,
    ) -> None:
        check_instance("base_url", base_url, str)
        check_given(token)
        check_duration("timeout", timeout, _MIN_TIMEOUT)
        if transport is not None:
            check_instance("transport", transport, httpx2.AsyncBaseTransport)
        self._address = Address.parse(base_url)
        self.base_url = self._address.url
        self.timeout: Final = timeout
        self._token = _token_auth(self._address, token)
        self._ssl_context = self._address.ssl_context()
        if transport is None:
            self._address.check_proxies()
        self._blocking_transport = transport if isinstance(transport, httpx2.BaseTransport) else None
        self._is_network = transport is None
        self._headers = {"User-Agent": f"jobnik-sdk/{metrics.VERSION}"}
        address, context, headers, token_auth = self._address, self._ssl_context, self._headers, self._token
        pool_timeout = httpx2.Timeout(timeout.total_seconds(), connect=CONNECT_TIMEOUT.total_seconds(), pool=None)

        # Not a method of this object: without a reference cycle, a client that is no longer used is closed at once. Not
        # a partial function either, whose representation would show the password.
        def open_pool(
            *,
            limits: httpx2.Limits,
            timeout: httpx2.Timeout | float = pool_timeout,
            transport: httpx2.AsyncBaseTransport | None = transport,
        ) -> httpx2.AsyncClient:
            if transport is None and address.is_direct:
                transport = DirectTransport(context, limits)
            return httpx2.AsyncClient(
                base_url=address.url,
                auth=token_auth or address.auth,
                trust_env=address.uses_proxy,
                verify=context,
                limits=limits,
                timeout=timeout,
                transport=transport,
                headers=headers,
            )

        self._open_pool = open_pool
        self._connections = Connections(self._open_pool)
        self._features = _Features()
        self._limit: timedelta | None = None

    async def __aenter__(self) -> Self:
        """Return the client itself; connections are opened on demand."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self.aclose()

    @property
    def given_token(self) -> GivenToken | None:
        """The token or its file, for another client of the same manager; None: it has none."""
        return None if self._token is None else self._token.given

    def limited(self, limit: timedelta) -> Self:
        """Return this client with a limit for the duration of each request, with its retries and their delays.

        Both share their connections.
        """
        client = copy(self)
        client._limit = limit  # noqa: SLF001 of the same class
        return client

    def blocking(self, timeout: timedelta) -> httpx2.Client:
        """Return a synchronous client for use in one other thread; `timeout` limits the duration of each request."""
        limits = httpx2.Limits(max_keepalive_connections=1)
        open_client = partial(self._open_pool, limits=limits, timeout=timeout.total_seconds(), transport=None)
        transport = self._blocking_transport or LimitedTransport(timeout, open_client)
        return httpx2.Client(
            base_url=self.base_url,
            auth=self._token or self._address.auth,
            trust_env=False,
            transport=transport,
            headers=self._headers,
        )

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._connections.aclose()

    async def capabilities(self, *, retry: bool = True) -> frozenset[str]:
        """Return the features of part B of the protocol that the manager supports; empty if it has only part A.

        The client keeps the answer for a minute, because another release may replace the manager, and for longer if the
        manager does not answer then. `retry` is passed to `request`.

        Raises:
            UnreachableError, AnswerError: as `request`, unless an earlier call was answered; the next call asks again.
        """
        features = self._features
        if features.known is None:
            features.known = await self._read_features(retry=retry)
            features.read_at = time.monotonic()
        elif time.monotonic() - features.read_at > FEATURES_MAX_AGE.total_seconds():
            features.read_at = time.monotonic()
            with suppress(UnreachableError, AnswerError):
                features.known = await self._read_features(retry=False)
        return features.known

    async def _read_features(self, *, retry: bool) -> frozenset[str]:
        try:
            return read_one(Capabilities, await self.request("GET", "/v1/capabilities", retry=retry)).features
        except AnswerError as error:
            # A response that is not in the protocol's format may come from a proxy whose manager is down, for example.
            if error.status != HTTPStatus.NOT_FOUND or isinstance(error, UnexpectedAnswerError):
                raise
            return frozenset()

    async def request(  # noqa: PLR0913 the options of a request belong in one place
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        traceparent: str | None = None,
        prefer: str | None = None,
        idempotency_key: str | None = None,
        retry: bool = True,
        pool: Pool = Pool.GENERAL,
    ) -> httpx2.Response:
        """Send a request and return its response, which has a success status and is JSON or empty.

        `json` is the body; bytes are sent as they are and must contain JSON. `prefer` is the `Prefer` header (RFC
        7240). Without `traceparent`, the request belongs to the current trace, or to a new one if there is none.
        `idempotency_key` makes a POST safe to repeat, if the manager has the feature `idempotency-keys`.

        With `retry`, a failed request is sent up to three more times: after status 502, 503 or 504 (once `Retry-After`
        has passed), after a refused connection, and, except for a POST without `idempotency_key`, after a lost
        response. `pool` selects the connections.

        Raises:
            UnreachableError: no response arrived; `LostAnswerError` if the manager may have processed the request.
            AnswerError: the manager refused the request; the subclass shows why.
        """
        headers = trace_context.fields(traceparent or trace_context.current_traceparent() or trace_context.generate())
        if prefer is not None:
            headers["Prefer"] = prefer
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        http = await self._connections.get(pool)
        if isinstance(json, bytes):
            headers["Content-Type"] = "application/json"
            request = http.build_request(method, path, content=json, headers=headers)
        else:
            request = http.build_request(method, path, json=json, headers=headers)
        delays: Iterator[float] = retries.delays() if retry else iter(())
        deadline = _Deadline(self._limit)
        creates = method == "POST" and idempotency_key is None
        retried = maybe_done = False
        failure: UnreachableError | AnswerError
        while True:
            try:
                response = await self._send(http, request, deadline, retried=retried)
                if response.is_success and _may_be_json(response):
                    return response
                failure = error_in(response)
            except (httpx2.HTTPError, _DeadlineError) as error:
                failure = self._unreachable_error(error, maybe_done=maybe_done)
            delay = next(delays, None) if retries.is_retryable(failure, creates=creates) else None
            if delay is None or deadline.is_before(delay, failure):
                raise failure
            await retries.wait_before_retry(failure, method, delay)
            retried = True
            maybe_done = isinstance(failure, LostAnswerError | AnswerError)

    async def _send(
        self, http: httpx2.AsyncClient, request: httpx2.Request, deadline: "_Deadline", *, retried: bool
    ) -> httpx2.Response:
        started = time.perf_counter()
        status_code = "none"
        try:
            response = await deadline.send(http, request, is_network=self._is_network)
            status_code = str(response.status_code)
            return response
        finally:
            duration = metrics.HTTP_DURATION.labels(request.method, status_code, str(retried).lower())
            duration.observe(time.perf_counter() - started)

    def _unreachable_error(self, error: "httpx2.HTTPError | _DeadlineError", *, maybe_done: bool) -> UnreachableError:
        """Return the error of a request without a response, given whether an earlier try may have been carried out."""
        reason = str(error) or type(error).__name__
        not_sent = isinstance(error, _NOT_SENT) or (isinstance(error, _DeadlineError) and not error.sent)
        if not_sent and not maybe_done:
            advice = "check the address, and that the manager is running"
            return UnreachableError(f"The manager at {self.base_url} cannot be reached ({advice}): {reason}.")
        return LostAnswerError(f"The manager at {self.base_url} did not answer: {reason}.")


def _token_auth(address: Address, token: GivenToken | None) -> TokenAuth | None:
    """Return what sends the token that was given, or that of the environment; None: there is none.

    Raises:
        ConfigurationError: the token is invalid, or the address has a password as well.
    """
    given = token_in_environment(address.url) if token is None else token
    if given is None:
        return None
    if address.auth is not None:
        raise ConfigurationError("The manager's address has a password, and there is a token: use only one of them.")
    return TokenAuth(address.url, given)


class _DeadlineError(Exception):
    def __init__(self, limit: timedelta, *, sent: bool) -> None:
        super().__init__(f"the time limit of {limit.total_seconds():g} s has passed")
        self.sent = sent


class _Deadline:
    """The end of the time that a request may take, with its retries."""

    def __init__(self, limit: timedelta | None) -> None:
        self._limit = limit
        self._started = time.monotonic()

    def is_before(self, delay: float, failure: UnreachableError | AnswerError) -> bool:
        """Return whether the deadline will have passed before a retry after this failure."""
        if self._limit is None:
            return False
        retry_after = failure.retry_after.total_seconds() if isinstance(failure, AnswerError) else 0.0
        return max(delay, retry_after) >= self._remaining(self._limit)

    async def send(self, http: httpx2.AsyncClient, request: httpx2.Request, *, is_network: bool) -> httpx2.Response:
        """Send a request and read its response.

        Raises:
            _DeadlineError: the deadline has passed.
            AnswerError: the response is too large.
        """
        if self._limit is None:
            return await responses.send(http, request)
        sent = not is_network  # only the network tells when it sends a request

        async def trace(event: str, _details: object) -> None:
            nonlocal sent
            sent = sent or event.endswith(".send_request_headers.started")

        request.extensions["trace"] = trace
        scope = asyncio.timeout(self._remaining(self._limit))
        try:
            async with scope:
                return await responses.send(http, request)
        except TimeoutError:
            if not scope.expired():
                raise
            raise _DeadlineError(self._limit, sent=sent) from None

    def _remaining(self, limit: timedelta) -> float:
        return max(0.0, limit.total_seconds() - (time.monotonic() - self._started))


def read_one(model: type[ModelT], response: httpx2.Response, document: bytes | None = None) -> ModelT:
    """Return the entity in a response, or in `document`, which is a part of it.

    Raises:
        UnexpectedAnswerError: the response does not fit the model; the message names the field.
    """
    try:
        return model.model_validate_json(response.content if document is None else document)
    except ValidationError as error:
        raise _unexpected_answer(response, error) from None


class EntityList(NamedTuple, Generic[ModelT]):
    """The entities in a response.

    Args:
        items: The entities, or one page of them.
        is_page: Whether the response is a page of a list whose pages have numbers.
        total: The number of entities on all pages; None if the response does not have it.
    """

    items: list[ModelT]
    is_page: bool = False
    total: int | None = None


def read_list(model: type[ModelT], response: httpx2.Response) -> EntityList[ModelT]:
    """Return the entities in a response, an array or a page `{"total", "items"}`; raises as `read_one` does."""
    try:
        if response.content.lstrip().startswith(b"{"):
            page = _adapter(_Page, model).validate_json(response.content)
            return EntityList(page.items, is_page=True, total=page.total)
        return EntityList(_adapter(list, model).validate_json(response.content))
    except ValidationError as error:
        raise _unexpected_answer(response, error) from None


class _Page(BaseModel, Generic[ModelT]):
    items: list[ModelT]
    total: int | None = None


@cache
def _adapter(generic: Any, model: type[BaseModel]) -> TypeAdapter[Any]:  # noqa: ANN401 a generic class
    return TypeAdapter(generic[model])


def _unexpected_answer(response: httpx2.Response, error: ValidationError) -> UnexpectedAnswerError:
    field, reason = first_validation_error(error)
    request = response.request
    place = field or "the top level"
    message = f"The response to {request.method} {request.url} does not match the expected model at {place}: {reason}"
    return UnexpectedAnswerError(message, status=response.status_code, code="UNEXPECTED_ANSWER")


def _may_be_json(response: httpx2.Response) -> bool:
    """Return whether a response is empty, an object or an array; anything else is the page of a proxy."""
    return response.content.lstrip()[:1] in {b"", b"{", b"["}


def _redirect_advice(response: httpx2.Response) -> str:
    """Return where a redirect points. Redirects are not followed, since a client may turn another method into GET."""
    if response.next_request is None:
        return ""
    target = response.next_request.url
    path = target.path.removesuffix(response.request.url.path)
    base_url = target.copy_with(username=None, password=None, query=None, fragment=None, path=path or "/")
    return f", a redirect to {str(base_url).rstrip('/')}: if the manager is there, set this as the manager's address"


def error_in(response: httpx2.Response) -> AnswerError:
    """Return the error in a response."""
    request = response.request
    try:
        body = _ErrorBody.model_validate_json(response.content)
        message, code = f"{request.method} {request.url.path}: {body.message}", body.code
    except ValidationError:
        message = f"The response to {request.method} {request.url} was {response.status_code} {response.reason_phrase}"
        message += f"{', but not JSON' if response.is_success else _redirect_advice(response)}."
        code = None
    retry_after = retries.parse_retry_after(response.headers.get("Retry-After", ""))
    return answer_error(message, status=response.status_code, code=code, retry_after=retry_after)
