"""Writing a bundle: whole, under its final name, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpnas.bundle.card import model_card
from gpnas.bundle.licensing import checked_licence, known_licence
from gpnas.bundle.manifest import (
    FUSION,
    LICENCE,
    MANIFEST,
    PICTURE,
    README,
    SUMS,
    VERSION,
    Manifest,
    explain,
    sums,
)
from gpnas.bundle.member import Description, Licence, Member, Picture, StoredFusion
from gpnas.bundle.reading import is_bundle, is_zip
from gpnas.bundle.weights import Graph, StoredWeights
from gpnas.errors import BundleError
from gpnas.files import is_full, replacing, sync


def write_bundle(
    path: Path,
    members: Sequence[Member],
    description: Description,
    *,
    licence: Licence | None = None,
    picture: Picture | None = None,
    fusion: StoredFusion | None = None,
) -> None:
    """Writes a bundle; an earlier bundle of that name is replaced, nothing else ever is.

    Args:
        path: a file where it ends in .zip, else a folder; the folder that it lies in must exist.
        members: the networks of the average, at least one; their weights sum to 1.
        description: where they come from.
        licence: of the weights.
        picture: for the model card. Whose photographs they are is the caller's business.
        fusion: weights of the members for each pixel; None: their own weights are all.

    Raises:
        BundleError: something given breaks a rule, what lies there is not a bundle, or the disk is
            full. Then nothing is left behind, and what was there before still is.
    """
    path = Path(path).resolve()
    licence, own = licence or Licence(), vars(description)
    document = {
        "format": "gpnas bundle",
        "version": VERSION,
        "gpnas": description.versions.get("gpnas") or _version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": licence.name,
        **{name: dict(value) if isinstance(value, Mapping) else value for name, value in own.items()},
    }
    text = licence.text
    if text is None and licence.name is not None:
        text = known_licence(licence.name)
    content = None if text is None else text.encode(errors="surrogateescape")
    if content is not None:
        checked_licence(content, str(path))
    contents = _contents(path, members, document, picture, content, fusion)
    try:
        if not path.parent.is_dir():
            raise BundleError(f"{path.parent}: the folder that a bundle goes into must exist, but does not")
        _check_replaceable(path)
        if is_zip(path):
            with replacing(path) as new:
                _write_zip(new, contents)
        else:
            _put_folder(path, contents)
    except OSError as error:
        reason = "the disk is full" if is_full(error) else error.strerror or str(error)
        raise BundleError(
            f"{path}: a bundle must be written as a whole, but {reason}; nothing was"
        ) from error


def _version() -> str:
    try:
        return version("gpnas")
    except PackageNotFoundError:
        return "not installed"


def _contents(
    path: Path,
    members: Sequence[Member],
    description: Mapping[str, Any],
    picture: Picture | None,
    licence: bytes | None,
    fusion: StoredFusion | None,
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, one at a time, so that one network's copy is in memory."""
    digests: list[tuple[str, str]] = []

    def entry(name: str, content: bytes) -> dict[str, Any]:
        """What the manifest says of a file, which is among the checksums from now on."""
        digests.append((name, hashlib.sha256(content).hexdigest()))
        return {"file": name, "sha256": digests[-1][1], "bytes": len(content)}

    entries = []
    for number, member in enumerate(members, 1):
        stored = _weights(path, member)
        name = f"network-{number}.{'onnx' if isinstance(stored, Graph) else 'safetensors'}"
        own = {
            "architecture": member.architecture.to_json(),
            "parameters": stored.count,
            "weight": float(member.weight),
            "metrics": {key: float(value) for key, value in member.metrics.items()},
            "candidate": member.candidate,
        }
        entries.append(entry(name, stored.content) | own)
        yield name, stored.content
    document = {**description, "members": entries}
    if fusion is not None:
        content = StoredWeights.of(fusion.state).content
        kept = {name: getattr(fusion, name) for name in ("kind", "gain", "error", "images")}
        document["fusion"] = entry(FUSION, content) | kept
        yield FUSION, content
    if picture is not None:
        document["picture"] = entry(PICTURE, picture.png) | {"caption": picture.caption}
        yield PICTURE, picture.png
    if licence is not None:
        document["licence_file"] = entry(LICENCE, licence)
        yield LICENCE, licence
    placeholder = {"file": README, "sha256": "0" * 64, "bytes": 0}
    _checked(path, {**document, "model_card": placeholder})  # before the card relies on it
    card = model_card(document).encode()
    document["model_card"] = entry(README, card)
    yield README, card
    manifest = _checked(path, document).to_bytes()
    entry(MANIFEST, manifest)
    yield MANIFEST, manifest
    yield SUMS, sums(digests)


def _checked(path: Path, document: Mapping[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate_json(json.dumps(document, allow_nan=False))
    except ValidationError as error:
        raise BundleError(f"{path}: a manifest must follow its schema, but {explain(error)}") from None
    except (TypeError, ValueError) as error:
        raise BundleError(f"{path}: a manifest must hold plain JSON values, but {error}") from None


def _weights(path: Path, member: Member) -> StoredWeights | Graph:
    if isinstance(member.state, Graph):
        return member.state
    try:
        return StoredWeights.of(member.state)
    except ValueError as error:
        raise BundleError(
            f"{path}: {member.architecture}: weights {error}; train this network again, or leave it out"
        ) from None


def _check_replaceable(path: Path) -> None:
    if os.path.lexists(path) and not is_bundle(path):
        raise BundleError(
            f"{path}: only a bundle may be replaced, but this is something else; "
            "remove it or choose another name"
        )


def _put_folder(path: Path, contents: Iterator[tuple[str, bytes]]) -> None:
    temporary = path.with_name(f".gpnas-{secrets.token_hex(8)}")
    try:
        temporary.mkdir()
        for name, content in contents:
            with open(temporary / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync(temporary)
        _replace_folder(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_zip(archive: Path, contents: Iterator[tuple[str, bytes]]) -> None:
    # stored: weights hardly shrink. One fixed date: the same content gives the same archive.
    with zipfile.ZipFile(archive, "x", zipfile.ZIP_STORED) as written:
        for name, content in contents:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100644 << 16
            written.writestr(entry, content)


def _replace_folder(temporary: Path, path: Path) -> None:
    if not path.exists():
        os.rename(temporary, path)
        return
    # a folder that is not empty cannot be replaced in one step; the earlier one returns on failure, and
    # where a signal comes between
    earlier = path.with_name(f".gpnas-{secrets.token_hex(8)}")
    try:
        os.rename(path, earlier)
        os.rename(temporary, path)
    finally:
        if path.exists():
            shutil.rmtree(earlier, ignore_errors=True)
        else:
            os.rename(earlier, path)
