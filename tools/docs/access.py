"""docs/reference/access.md: tokens, their scopes, and what each scope may do, from the declarations of the routes."""

import json
from collections.abc import Iterator
from datetime import timedelta

from reference_manager.access.principals import MEANINGS, Scope
from reference_manager.access.registry import POLL_INTERVAL, USE_INTERVAL
from reference_manager.access.secrets import PATTERN
from reference_manager.access.tokens import MAX_LIFETIME, MAX_LIMITS, MAX_NAME, MAX_OVERLAP
from reference_manager.api.app import OPEN_FOLDER, OPEN_PAGES

from tools.docs import openapi
from tools.docs.markdown import document, table

_INTRODUCTION = """\
As soon as a manager has a token, every request needs one, in the header `Authorization: Bearer jobnik_…`. [Secure a
manager](../how-to/secure-a-manager.md) shows how to get there; [Security](../explanation/security.md) explains what
tokens protect."""

_FORM = f"""\
## The form of a token

A token is the prefix `jobnik_`, followed by 32 random bytes and a checksum, as 49 letters and digits. Give secret
scanners this regular expression:

    {PATTERN}

The manager shows a token once and stores its SHA-256. A text with a wrong checksum is refused without a look at the
tokens."""

_SCOPES = """\
## Scopes

A token has one or more scopes."""

_LIMITS = f"""\
## Limits

| limit | restricts the scope | to |
|---|---|---|
| stage types (`--stage-type`) | `worker` | claims of these types; reports, heartbeats, checkpoints, additions and \
metadata of their tasks and stages; deregistering workers that name or hold only these types |
| job names (`--job-name`) | `producer` | creating jobs with these names; changes of these jobs, and of their stages \
and tasks |

- Limits restrict changes, not reading: a limited token reads everything. A limit on a token that has neither of these
  scopes is refused, and so is one on `admin`.
- Names are compared exactly. A token has at most {MAX_LIMITS} of each.
- A limited worker cannot replace the metadata of a job, because a job has no stage type.
- If a request names several tasks, one task outside the limit refuses the whole request.
- A token with the scopes `producer` and `worker` may do what one of them permits.
- Requests of limited tokens bypass the hot path, and take several times as much of the manager's CPU."""

_LIFE = f"""\
## The life of a token

| event | takes effect |
|---|---|
| created | at once, on every manager. A manager that does not know a token reads the tokens first, at most once \
a second |
| rotated | the new secret at once. The previous one stays valid for the overlap: one hour, or `--overlap`, at most \
{MAX_OVERLAP.days} days; a second rotation ends it. A token that expires gets its whole lifetime again |
| revoked | on every manager as soon as it is notified, or after {POLL_INTERVAL:g} seconds if the \
notification is lost. \
A claim that waits meanwhile gets no task: 401 |
| expires | when the clock of the database says so (`--expires-in`, at most {
    MAX_LIFETIME // timedelta(days=365)
} years).\
 Between two polls, a manager continues that clock with its monotonic clock, so its own clock may jump |

- Names have 1 to {MAX_NAME} characters and are unique among the tokens that are not revoked.
- While the database is away, the tokens that a manager read last stay valid. An unknown token is answered 503, because
  it cannot be checked.
- The last use of a token is recorded about once in {USE_INTERVAL:g} seconds, with an accuracy of a minute or two.
- A manager is open until its first token is created. From then on it is closed for ever, also without a valid token.
  `jobnik-manager token create` makes another one, because it works on the database."""

_ERRORS = """\
## Errors

| status | code | `WWW-Authenticate` | when |
|---|---|---|---|
| 401 | `TOKEN_REQUIRED` | `Bearer realm="jobnik"` | there is no bearer token. The answer is the same for every path |
| 401 | `TOKEN_INVALID` | `error="invalid_token"` | the token is malformed, unknown, revoked or expired |
| 400 | `VALIDATION_ERROR` | `error="invalid_request"` | there is more than one `Authorization` header |
| 403 | `FORBIDDEN` | `error="insufficient_scope"`, `scope="…"` | the token has none of these scopes; without `scope`, \
it is limited to others |

The headers follow RFC 6750. Each refusal is a log line `request refused` with the reason, the method, the path, the
address of the client and the name of the token if it is known, never with the token. After a burst of 100 lines there
is one line per second, which counts those that were left out. `jobnik_manager_requests_refused_total` counts all
of them."""


def page() -> str:
    """Return the text of the page."""
    scopes = table(("scope", "may do"), ((f"`{scope}`", meaning) for scope, meaning in MEANINGS.items()))
    head = ("request", *(f"`{scope}`" for scope in Scope))
    pages = ", ".join(f"`{path}`" for path in OPEN_PAGES)
    matrix = (
        "## Requests by scope\n\n`open`: needs no token. `/metrics` needs none with `--metrics-open`. The API page "
        f"needs none either: {pages} and the files below `{OPEN_FOLDER}`."
    )
    parts = (_FORM, _SCOPES, scopes, matrix, table(head, _rows()), _LIMITS, _LIFE, _ERRORS)
    return document("Access", _INTRODUCTION, *parts)


def _rows() -> Iterator[tuple[str, ...]]:
    for path, methods in json.loads(openapi.page())["paths"].items():
        for method, operation in methods.items():
            sufficient = {scope for alternative in operation["security"] for scope in alternative["token"]}
            marks = (
                "open" if not sufficient else "yes" if scope in sufficient | {Scope.ADMIN} else "" for scope in Scope
            )
            yield f"{method.upper()} {path}", *marks
