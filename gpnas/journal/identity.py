"""Whether a run goes on as it was begun, and in which words it is said where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpnas.errors import JournalError
from gpnas.journal.documents import plain
from gpnas.journal.header import SESSION, Header


def check_same(run: Path, before: Header, now: Header) -> None:
    """Raises a `JournalError` that names what differs, apart from the fields in `SESSION`."""
    differences = list(_differences(_identity(before), _identity(now)))
    if differences:
        name, old, new = differences[0]
        name = name.removeprefix("setup.").removeprefix("search.")
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise JournalError(
            f"{run}: a run goes on only as it was begun, but `{name}` was {_short(old)} and is now "
            f"{_short(new)}{more}; choose another folder with --run, or go back to what it was begun with"
        )


def _identity(header: Header) -> dict[str, Any]:
    """What going on with a run must not change, as JSON."""
    document: dict[str, Any] = plain(header.to_json())
    return {"kind": header.kind} | {key: value for key, value in document.items() if key not in SESSION}


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two documents differ: path, old value, new value; what a person understands comes first."""
    if old == new:
        return
    if not (isinstance(old, dict) and isinstance(new, dict)):
        yield name, old, new
        return
    if "fingerprint" in old and old.get("fingerprint") == new.get("fingerprint"):
        return
    keys = dict.fromkeys([*old, *new])
    for key in sorted(keys, key=lambda key: key == "fingerprint"):
        if key not in old or key not in new:
            yield f"{name}.{key}".lstrip("."), old.get(key, "absent"), new.get(key, "absent")
        else:
            yield from _differences(old[key], new[key], f"{name}.{key}".lstrip("."))


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"
