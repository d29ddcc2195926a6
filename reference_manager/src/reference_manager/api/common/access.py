"""Who may use a route. Each route declares it once, with a decorator next to the route.

The authenticator (api/authenticator.py) finds out who sent a request. The declaration is checked after the path and the
method have been matched, and before the body is read. From the same declarations come the ``security`` of the OpenAPI
document and the reference.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.types import Scope as AsgiScope

from reference_manager.access.audit import Audit
from reference_manager.access.errors import ForbiddenError, RefusedError, UnauthenticatedError
from reference_manager.access.limits import Guard, Limit, Owners, limit_of
from reference_manager.access.principals import ANONYMOUS, Principal, Scope
from reference_manager.access.registry import Registry
from reference_manager.api.common.errors import describe_error

PRINCIPAL: Final = "jobnik.principal"
"""The key in an ASGI scope that holds the sender of the request."""
GUARD: Final = "jobnik.guard"
"""The key in an ASGI scope that holds what checks the changes of a limited token."""
_DECLARED: Final = "__jobnik_access__"

EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])


class Access:
    """Who may use a route: a token with one of these scopes. A decorator for the endpoint.

    Args:
        scopes: The scopes. None: the route needs no token. ``admin`` is always sufficient.
        limited: Whether limits of the token apply. They do not apply to reading.
    """

    def __init__(self, *scopes: Scope, limited: bool = True) -> None:
        self.scopes = scopes
        self._sufficient = frozenset((*scopes, Scope.ADMIN))
        self._limited = limited

    def __call__(self, endpoint: EndpointT) -> EndpointT:
        """Declare the access to a route."""
        setattr(endpoint, _DECLARED, self)
        return endpoint

    def is_unrestricted(self, scope: AsgiScope) -> bool:
        """Return whether the sender may use the route for any entity. This is the whole check on the hot path."""
        principal = principal_of(scope)
        return not self._sufficient.isdisjoint(principal.scopes) and self._limit(principal) is None

    def check(self, scope: AsgiScope) -> Limit | None:
        """Check the scopes of the sender.

        Returns:
            The limit of the sender; None: not limited.

        Raises:
            UnauthenticatedError: The request has no token.
            ForbiddenError: The token has none of the scopes.
        """
        if not self.scopes:
            return None
        principal = principal_of(scope)
        if self._sufficient.isdisjoint(principal.scopes):
            if principal is ANONYMOUS:
                raise UnauthenticatedError("This request needs a token", None)
            needed = " or ".join((*self.scopes, *({Scope.ADMIN} - set(self.scopes))))
            has = ", ".join(sorted(principal.scopes))
            raise ForbiddenError(f"The token needs the scope {needed}; it has {has}", self.scopes)
        return self._limit(principal)

    def _limit(self, principal: Principal) -> Limit | None:
        if not self._limited or (principal.stage_types is None and principal.job_names is None):
            return None
        return limit_of(principal, self.scopes)


OPEN: Final = Access()
READ: Final = Access(Scope.VIEWER, Scope.PRODUCER, Scope.WORKER, limited=False)
"""Every scope includes reading."""
PRODUCE: Final = Access(Scope.PRODUCER)
WORK: Final = Access(Scope.WORKER)
PRODUCE_OR_WORK: Final = Access(Scope.PRODUCER, Scope.WORKER)
"""What handlers of the SDK do as well: add tasks to a later stage, and replace metadata."""
ADMINISTER: Final = Access(Scope.ADMIN)


class Gate:
    """What the routes need to check access, apart from the sender of the request.

    Args:
        registry: The tokens.
        owners: Looks up what entities belong to.
        audit: Records refusals.
    """

    def __init__(self, registry: Registry, owners: Owners, audit: Audit) -> None:
        self.registry = registry
        self.owners = owners
        self.audit = audit


def declared_access(endpoint: Callable[..., Any]) -> Access:
    """Return the access that an endpoint declares.

    Raises:
        TypeError: It declares none.
    """
    access = getattr(endpoint, _DECLARED, None)
    if not isinstance(access, Access):
        raise TypeError(f"{endpoint.__qualname__} declares no access: decorate it with one of api.common.access")
    return access


def principal_of(scope: AsgiScope) -> Principal:
    """Return the sender of a request. Without an authenticator in front, the sender is anonymous."""
    return scope.get(PRINCIPAL, ANONYMOUS)


def record_refusal(audit: Audit, scope: AsgiScope, error: RefusedError) -> None:
    """Count a refusal, and log it."""
    client = scope.get("client")
    audit.refused(
        describe_error(error).status,
        str(error),
        method=scope["method"],
        path=scope["path"],
        client=f"{client[0]}:{client[1]}" if client else "",
        token=principal_of(scope).name,
    )


async def check_access(request: Request, access: Access) -> None:
    """Check that the sender may use the route, and may change the entity in the path.

    Raises:
        UnauthenticatedError, ForbiddenError: It may not.
    """
    limit = access.check(request.scope)
    if limit is None:
        return
    gate: Gate = request.app.state.gate
    guard = request.scope[GUARD] = Guard(limit, gate.owners)
    for name, value in request.path_params.items():
        await guard.check_parameter(name, str(value))


def guard_in(scope: AsgiScope) -> Guard | None:
    """Return what checks the changes of a limited token; None: the sender is not limited."""
    return scope.get(GUARD)
