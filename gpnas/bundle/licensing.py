"""The text of a licence, as it lies in a bundle.

The texts in `licences.tar.xz` are those of the SPDX License List, taken from the npm package
spdx-license-list 6.12.0 without a change; in MIT's, year and holder are filled in. Three of them are nearly
the same, so that together they take half the room in the wheel.
"""

from __future__ import annotations

import tarfile
from datetime import UTC, datetime
from pathlib import Path

from gpnas.bundle.manifest import MAX_LICENCE
from gpnas.errors import BundleError
from gpnas.files import opened

KNOWN = ("Apache-2.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT")
"""SPDX identifiers of the licences whose text is known."""
HOLDER = "the authors of these weights"


def known_licence(identifier: str, holder: str | None = None) -> str | None:
    """The text of a licence that is known.

    Args:
        identifier: SPDX's, in capitals or not.
        holder: of the copyright, where the text names one; None is `HOLDER`.

    Returns:
        The text; None where the licence is not one of `KNOWN`.
    """
    for name in KNOWN:
        if name.lower() == identifier.lower():
            with tarfile.open(Path(__file__).with_name("licences.tar.xz")) as archive:
                text = archive.extractfile(f"{name}.txt").read().decode()  # type: ignore[union-attr]
            year = str(datetime.now(UTC).year)
            return text.replace("<year>", year).replace(
                "<copyright holders>", " ".join((holder or HOLDER).split())
            )
    return None


def read_licence(path: Path) -> str:
    """The text of a licence in someone's own file.

    Raises:
        BundleError: it cannot be read, is empty or too large, or is no text in UTF-8.
    """
    try:
        with opened(path, follow=True) as file:
            content = file.read(MAX_LICENCE + 1)
    except OSError as error:
        raise BundleError(
            f"{path}: a licence's text must be readable, but {error.strerror or error}; name another file"
        ) from None
    return checked_licence(content, str(path))


def checked_licence(content: bytes, where: str) -> str:
    """The text of a file that must be one.

    Raises:
        BundleError: it is empty or too large, or no text in UTF-8.
    """
    if len(content) > MAX_LICENCE:
        raise BundleError(f"{where}: a licence's text must be at most {MAX_LICENCE} bytes, but is larger")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{where}: a licence's text must be UTF-8, but byte {error.start} is not; save it as UTF-8"
        ) from None
    if not text.strip() or "\0" in text:
        reason = "holds a NUL" if "\0" in text else "is empty"
        raise BundleError(f"{where}: a licence's text must be plain text, but {reason}; name another file")
    return text
