"""The HTTP interface as a page, from the OpenAPI document that the service itself gives."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from fields import kind

from gpnas.service.app import application
from gpnas.service.tokens import Tokens


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_asked(application(Path(folder), Tokens(Path(folder)))))


async def _asked(service: Any) -> dict[str, Any]:
    """What a service answers to whoever asks for its document."""
    way = httpx.ASGITransport(service)
    async with httpx.AsyncClient(transport=way, base_url="http://127.0.0.1") as client:
        answer: dict[str, Any] = (await client.get("/openapi.json")).raise_for_status().json()
    return answer


def http_reference() -> Iterator[str]:
    """Every request with its parameters, body and answers, and every document."""
    described = document()
    yield "# HTTP\n"
    yield (
        "What `GET /openapi.json` of [the service](../service.md) describes. Every request but those to "
        "`/healthz`, `/readyz` and `/openapi.json` brings a token as `Authorization: Bearer TOKEN`; every "
        "error is an RFC 9457 problem.\n"
    )
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield from _operation(f"{method.upper()} {path}", operation)
    yield "## Errors\n"
    meanings: dict[str, str] = {}
    for methods in described["paths"].values():
        for operation in methods.values():
            for status, answer in operation.get("responses", {}).items():
                if int(status) >= 400:
                    meanings.setdefault(status, answer.get("description", ""))
    for status, meaning in sorted(meanings.items()):
        yield f"- `{status}`: {meaning}"
    yield "\n## Documents\n"
    for name, schema in described["components"]["schemas"].items():
        yield f"### {name}\n"
        yield from _schema(schema)


def _operation(heading: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {heading}\n"
    yield f"{operation.get('description') or operation.get('summary', '')}\n"
    for each in operation.get("parameters", ()):
        needed = "required" if each.get("required") else "optional"
        text = each.get("description") or _kind(each["schema"])
        yield f"- `{each['name']}` ({each['in']}, {needed}): {text}"
    body = operation.get("requestBody", {}).get("content", {})
    for content in body.values():
        yield f"- body: {_kind(content.get('schema', {}))}"
        for example in content.get("examples", {}).values():
            yield f"\n```json\n{json.dumps(example.get('value'), indent=2)}\n```\n"
    yield ""
    for status, answer in operation.get("responses", {}).items():
        if int(status) >= 400:
            continue
        kinds = ", ".join(_kind(each.get("schema", {})) for each in answer.get("content", {}).values())
        yield f"- `{status}`: {answer.get('description', '')}" + (f" ({kinds})" if kinds else "")
    errors = [status for status in operation.get("responses", {}) if int(status) >= 400]
    if errors:
        yield f"- errors: {', '.join(f'`{status}`' for status in errors)}"
    yield ""


def _schema(schema: Mapping[str, Any]) -> Iterator[str]:
    if text := schema.get("description"):
        yield f"{text}\n"
    needed = set(schema.get("required", ()))
    for name, each in schema.get("properties", {}).items():
        text = " ".join(str(each.get("description") or "").split())
        default = "" if each.get("default") is None else f", else `{json.dumps(each['default'])}`"
        value = _kind(each) + (", required" if name in needed else default)
        yield f"- `{name}`, {value}" + (f": {text}" if text else "")
    yield ""


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, others linked."""
    return kind(schema, lambda name: f"[{name}](#{name.lower()})")
