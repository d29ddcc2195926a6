"""docs/reference/openapi.json: the document that the manager serves at /openapi.json."""

import asyncio
import json
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx2
from reference_manager.api.app import create_app
from reference_manager.engine.engine import Engine
from reference_manager.server.access import build_gate
from reference_manager.settings import Settings
from reference_manager.store.connections import Connector
from reference_manager.store.pool import Database

_REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"


@cache
def reference() -> dict[str, Any]:
    """Return the document as the reference has it, for tests: FastAPI takes half a second to make it."""
    return json.loads(_REFERENCE.read_text(encoding="utf-8"))


@cache
def page() -> str:
    """Return the document with one line per path and one per schema, which keeps the file short and diffs readable."""
    document = asyncio.run(_document())
    paths, parts = document.pop("paths"), document.pop("components")
    schemas, security = parts["schemas"], json.dumps(parts["securitySchemes"])
    head = json.dumps(document, ensure_ascii=False).removesuffix("}")
    components = f'{{"securitySchemes": {security},\n"schemas": {_lines(schemas)}}}'
    return f'{head},\n"paths": {_lines(paths)},\n"components": {components}}}\n'


def _lines(members: dict[str, Any]) -> str:
    lines = (f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in members.items())
    return "{\n" + ",\n".join(lines) + "\n}"


async def _document() -> dict[str, Any]:
    unused = Database(
        Connector("", {}), Connector("", {}), cast("Any", None), timedelta()
    )  # the document depends on the code alone
    body_limit = Settings.model_fields["body_limit"].default
    app = create_app(Engine(unused, stale_after=timedelta()), build_gate(unused), body_limit=body_limit)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://manager") as client:
        return (await client.get("/openapi.json")).raise_for_status().json()
