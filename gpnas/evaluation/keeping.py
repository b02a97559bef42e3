"""The newest evaluation of a bundle, kept beside it, where its report finds it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gpnas.bundle import Bundle
from gpnas.errors import DataError
from gpnas.evaluation.results import Evaluation
from gpnas.files import read, replacing

MOST_BYTES = 64 * 2**20
"""Bytes that such a file may have."""


def place_of(bundle: Path) -> Path:
    """The file beside a bundle that holds its evaluation: `bundle.evaluation.json` for `bundle` and for
    `bundle.zip`."""
    bundle = bundle.absolute()
    name = bundle.stem if bundle.suffix == ".zip" else bundle.name
    return bundle.with_name(f"{name}.evaluation.json")


def fingerprint_of(bundle: Bundle) -> str:
    """What tells a bundle from every other: the SHA-256 of its manifest, which has those of its networks."""
    return hashlib.sha256(bundle.manifest.model_dump_json().encode()).hexdigest()


def keep(evaluation: Evaluation, bundle: Bundle, path: Path) -> Path:
    """Writes an evaluation beside its bundle, in place of an earlier one.

    Args:
        evaluation: of the bundle.
        bundle: as it was read.
        path: of the bundle.

    Raises:
        OSError: it cannot be written.
    """
    document = {"bundle": fingerprint_of(bundle), **evaluation.to_json()}
    place = place_of(path)
    with replacing(place) as new:
        new.write_text(json.dumps(document, indent=1), "utf-8")
    return place


def kept(bundle: Bundle, path: Path) -> dict[str, Any] | None:
    """The evaluation that is kept beside a bundle; None where there is none.

    Raises:
        DataError: it is of another bundle, as of an earlier one in the same place, or no evaluation.
    """
    place = place_of(path)
    if not place.exists():
        return None
    document = read_evaluation(place)
    if document.get("bundle") != fingerprint_of(bundle):
        raise DataError(
            f"{place}: an evaluation must be of the bundle beside it, but this one is of another; run "
            f"`gpnas evaluate {path}` again"
        )
    return document


def read_evaluation(file: Path) -> dict[str, Any]:
    """What `gpnas evaluate --json` printed, or what is kept beside a bundle.

    Raises:
        DataError: the file is neither.
    """
    try:
        document = json.loads(read(file, MOST_BYTES))
        if not isinstance(document, dict):
            raise ValueError("a list or a number")
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: must be what `gpnas evaluate BUNDLE --json` prints, but got {error}"
        ) from None
    return document
