"""Tokens as texts, their combinations of scopes and limits, and the lines about refused requests."""

import json
import re

import pytest
from prometheus_client import CollectorRegistry, Counter
from reference_manager.access import audit
from reference_manager.access.audit import BURST, LONGEST_PATH, Audit
from reference_manager.access.limits import Limit, Owner, limit_of
from reference_manager.access.principals import Principal, Scope
from reference_manager.access.secrets import PATTERN, generate_secret, is_secret, mask_tokens
from reference_manager.access.tokens import NewToken
from reference_manager.api.common.access import declared_access
from reference_manager.api.common.strict import StrictRoute
from reference_manager.server.access import is_loopback
from reference_manager.settings import Settings
from structlog.testing import capture_logs


def test_a_token_matches_the_published_pattern_and_its_checksum() -> None:
    """Each token is new, and differs from all others."""
    made = {generate_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(PATTERN, secret) and is_secret(secret) for secret in made)


def test_a_damaged_token_is_recognised() -> None:
    """Whatever was changed or cut off, the text is not a token."""
    secret = generate_secret()

    def other(place: int) -> str:
        digit = "a" if secret[place] != "a" else "b"
        return secret[:place] + digit + secret[place + 1 :]

    damaged = [secret[:-1], f"{secret}0", secret.upper(), other(20), other(55), f" {secret}", f"{secret}\n", ""]
    damaged += [secret.replace("jobnik_", "other__"), "jobnik_" + "é" * 49]
    assert not any(map(is_secret, damaged))


def test_tokens_in_texts_are_masked() -> None:
    """Also those that were cut off."""
    secret = generate_secret()
    assert mask_tokens(f"/v1/{secret}/x?{secret[:20]}") == "/v1/jobnik_***/x?jobnik_***"


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        (NewToken("a", frozenset({Scope.VIEWER})), None),
        (NewToken("a", frozenset({Scope.WORKER}), stage_types=["x"]), None),
        (NewToken("a", frozenset({Scope.WORKER, Scope.PRODUCER}), ["x"], ["y"]), None),
        (NewToken("a", frozenset({Scope.VIEWER}), stage_types=["x"]), "stage types limit the scope worker"),
        (NewToken("a", frozenset({Scope.WORKER}), job_names=["x"]), "job names limit the scope producer"),
        (NewToken("a", frozenset({Scope.ADMIN}), stage_types=["x"]), "admin cannot be limited"),
        (NewToken("a", frozenset({Scope.WORKER, Scope.ADMIN}), stage_types=["x"]), "admin cannot be limited"),
        (NewToken("a", frozenset({Scope.WORKER}), stage_types=[]), "must be 1 to 100 names"),
        (NewToken("a", frozenset({Scope.WORKER}), stage_types=["x" * 51]), "of 1 to 50 characters"),
        (NewToken("", frozenset({Scope.WORKER})), "the name must have"),
        (NewToken(" a", frozenset({Scope.WORKER})), "the name must have"),
        (NewToken("a\nb", frozenset({Scope.WORKER})), "the name must have"),
        (NewToken("a" * 101, frozenset({Scope.WORKER})), "the name must have"),
    ],
)
def test_a_token_is_refused_if_its_parts_do_not_fit(new: NewToken, problem: str | None) -> None:
    """A limit that would have no effect is refused, so that nobody relies on it."""
    if problem is None:
        new.check()
    else:
        with pytest.raises(ValueError, match=problem):
            new.check()


def test_a_limit_applies_only_if_each_scope_that_permits_the_request_has_one() -> None:
    """A producer that is not limited may do what the limited worker with the same token may not."""
    limited = Principal("", frozenset({Scope.PRODUCER, Scope.WORKER}), frozenset({"a"}))
    assert limit_of(limited, [Scope.WORKER]) == Limit(frozenset({"a"}))
    assert limit_of(limited, [Scope.PRODUCER, Scope.WORKER]) is None
    both = Principal("", frozenset({Scope.PRODUCER, Scope.WORKER}), frozenset({"a"}), frozenset({"job"}))
    limit = limit_of(both, [Scope.PRODUCER, Scope.WORKER])
    assert limit is not None
    assert limit == Limit(frozenset({"a"}), frozenset({"job"}))
    owners = [Owner("a", "x"), Owner("b", "job"), Owner("b", "x"), Owner(None, "x"), Owner("b", None)]
    assert [limit.allows(owner) for owner in owners] == [True, True, False, False, False]


def test_a_scanner_cannot_fill_the_disk() -> None:
    """After a burst there is one line per second. It counts those that were left out, and the metric counts all."""
    now = 0.0
    registry = CollectorRegistry()
    refusals = Counter("refusals_total", "", ["status"], registry=registry)
    lines = Audit(refusals, lambda: now)

    def refuse(times: int) -> None:
        for _ in range(times):
            lines.refused(401, "why", method="GET", path="/" + "x" * 1000, client="1.2.3.4:5", token="")

    with capture_logs() as logged:
        refuse(BURST + 10)
        now = 1.5
        refuse(2)
        now = 2.5
        refuse(1)
    assert len(logged) == BURST + 2
    assert [line.get("lines_skipped") for line in logged[-3:]] == [None, 10, 1]
    assert len(logged[0]["path"]) == LONGEST_PATH
    assert registry.get_sample_value("refusals_total", {"status": "401"}) == BURST + 13


def test_a_line_never_contains_a_token() -> None:
    """Not even if the client has put it into the path."""
    secret = generate_secret()
    refusals = Counter("refusals_total", "", ["status"], registry=CollectorRegistry())
    with capture_logs() as logged:
        Audit(refusals).refused(401, "why", method="GET", path=f"/v1/jobs/{secret}", client="", token="")
    assert "jobnik_***" in json.dumps(logged)
    assert secret not in json.dumps(logged)
    assert audit.LINES_PER_SECOND <= 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),  # noqa: S104 - on purpose
        ("::", False),
        ("::ffff:0.0.0.0", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_only_the_addresses_of_this_machine_are_loopback(address: str, *, expected: bool) -> None:
    """An address is judged by what can reach it, whatever its notation."""
    assert is_loopback(address) is expected


def test_a_route_without_declared_access_cannot_be_built() -> None:
    """A new route cannot be forgotten: the manager would not start."""

    async def forgotten() -> None:
        pass

    with pytest.raises(TypeError, match="forgotten declares no access"):
        StrictRoute("/forgotten", forgotten)
    with pytest.raises(TypeError, match="forgotten declares no access"):
        declared_access(forgotten)


def test_an_invalid_admin_token_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of the setting does not contain the value, which may be a token that was cut off."""
    monkeypatch.setenv("JOBNIK_MANAGER_ADMIN_TOKEN", "jobnik_cut-off")
    with pytest.raises(ValueError, match="is not a token") as caught:
        Settings()
    assert "cut-off" not in str(caught.value)


def test_a_token_is_not_in_the_representation_of_its_owner() -> None:
    """Neither the settings nor the sender of a request show it."""
    secret = generate_secret()
    assert secret not in repr(Settings(admin_token=secret))  # pyright: ignore[reportArgumentType] - as from the environment
    assert "digest" not in repr(Principal("name", frozenset(), digest=b"digest"))
