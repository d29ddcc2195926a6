"""Access control of a manager at its start: reads the tokens, and refuses to serve other machines without any."""

import json
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import structlog

from reference_manager.access.audit import Audit
from reference_manager.access.limits import Owners
from reference_manager.access.registry import Registry
from reference_manager.access.secrets import is_secret
from reference_manager.access.tokens import Tokens
from reference_manager.api.common.access import Gate
from reference_manager.engine.metrics import REQUESTS_REFUSED
from reference_manager.server.errors import InvalidSettingError
from reference_manager.settings import Settings, flag, variable
from reference_manager.store.pool import Database

log = structlog.stdlib.get_logger(__name__)


def build_gate(database: Database) -> Gate:
    """Build what the routes need to check access. The registry has no tokens yet."""
    return Gate(Registry(database), Owners(database), Audit(REQUESTS_REFUSED))


async def prepare_access(settings: Settings, database: Database, registry: Registry, address: str) -> None:
    """Create the token of the settings, read the tokens, and decide whether the manager may serve without any.

    Args:
        settings: The settings of this manager.
        database: The migrated database.
        registry: Reads the tokens.
        address: The IP address that the manager listens on.

    Raises:
        InvalidSettingError: The token of the settings is invalid, or other machines would have full access.
        DatabaseError: The database failed.
    """
    for secret, source in _given(settings):
        token = json.loads(await Tokens(database).ensure_admin(secret, source))
        if token["revokedAt"]:
            log.warning("the given admin token was revoked; it stays so", token=token["name"], setting=source)
    await registry.load()
    if registry.closed:
        if not registry.has_admin():
            log.warning(
                "no valid admin token", advice="create one with: jobnik-manager token create --name NAME --scope admin"
            )
    elif not is_loopback(address):
        if not settings.insecure:
            raise InvalidSettingError(
                f"Other machines can reach {address}, and no token exists, so they would have full access. Create a "
                "token with `jobnik-manager token create --name admin --scope admin`, or set "
                f"{variable('admin_token_file')} or {variable('admin_token')}. To give everyone full access, set "
                f"{flag('insecure')} or {variable('insecure')}=true."
            )
        log.warning("manager is open", reason=f"{flag('insecure')} is set, and no token exists", address=address)


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach an IP address."""
    parsed = ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback


def _given(settings: Settings) -> list[tuple[str, str]]:
    """Return the tokens of the settings, each with the name of its variable."""
    given = [(settings.admin_token.get_secret_value(), variable("admin_token"))] if settings.admin_token else []
    if settings.admin_token_file:
        given.append((_read(settings.admin_token_file), variable("admin_token_file")))
    return given


def _read(file: Path) -> str:
    where = f"{flag('admin_token_file')} or {variable('admin_token_file')}"
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidSettingError(f"{where}: cannot read {file}: {reason}") from error
    if not is_secret(secret):
        raise InvalidSettingError(f"{where}: {file} contains no token; jobnik-manager token generate makes one")
    return secret
