"""What an image file says besides its pixels: read without trust, and kept as far as a format allows.

An error in metadata is not an error in the pixels: what cannot be understood is left out.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

COLOUR = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")
"""PNG's own chunks about colours."""
TEXT = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEYWORD = b"XML:com.adobe.xmp"
_ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x0112, 0x8769, 0x8825
_DIRECTORIES = (_EXIF_IFD, _GPS_IFD)
_PIXELS = {0xA002: 1, 0xA003: 0}
"""The EXIF tags of width and height, with their places in a shape (height, width)."""
DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
"""EXIF's texts: description, make, model, software, time, artist, copyright."""
_IN_XMP = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)([1-8])")
_COMMENT, _APP2, _SCAN = 0xFE, 0xE2, 0xDA
"""Kinds of JPEG's markers."""
_MOST_MARKERS = 10_000
"""How many markers are looked at before the pixels."""
_MOST_EXIF, _MOST_XMP, _MOST_PROFILE = 65_533 - 8, 65_502, 255 * 65_519
"""Bytes that a JPEG's markers hold."""


@dataclass(frozen=True)
class Metadata:
    """What a file says of its image."""

    profile: bytes | None = None
    """The ICC profile of its colours."""
    exif: bytes | None = None
    """A TIFF structure behind `Exif\\0\\0`."""
    xmp: bytes | None = None
    density: tuple[float, float] | None = None
    """Pixels per inch, across and down."""
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    """PNG's chunks about colours, and its texts: kind and content."""
    others: tuple[str, ...] = ()
    """What is in the file besides, by name."""


NOTHING = Metadata()


def orientation(metadata: Metadata) -> int:
    """How the stored image is turned, by EXIF, else by XMP: 1 … 8."""
    value = _parsed(metadata.exif).get(_ORIENTATION)
    if value is None and metadata.xmp is not None:
        said = _IN_XMP.search(metadata.xmp)
        value = int(said[2]) if said else None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def for_format(metadata: Metadata, format: str, shape: tuple[int, int]) -> tuple[Metadata, tuple[str, ...]]:
    """What a file of a format is given, and the names of what it cannot hold.

    Args:
        metadata: of the image that it is made of.
        format: PNG, JPEG, WebP, TIFF or BMP.
        shape: height and width of the upright image that is written.
    """
    exif = _upright_exif(metadata.exif, shape)
    xmp = None if metadata.xmp is None else _IN_XMP.sub(rb"\g<1>1", metadata.xmp)
    texts = tuple(
        (kind, content.replace(metadata.xmp, xmp) if metadata.xmp and xmp else content)
        for kind, content in metadata.chunks
        if not content.startswith(b"Raw profile type ")  # which may tell an orientation
    )
    # a profile names its colours here (ICC.1, Sec. 7.2.6); one of grey or CMYK does not fit RGB
    profile = metadata.profile if metadata.profile and metadata.profile[16:20] == b"RGB " else None
    chunks = texts if format == "PNG" else ()
    kept = replace(metadata, exif=exif, xmp=xmp, chunks=chunks, others=(), profile=profile)
    match format:
        case "BMP":
            kept = Metadata(density=kept.density)
        case "WebP":
            kept = replace(kept, density=None)
        case "JPEG":
            kept = replace(
                kept,
                exif=exif if len(exif or b"") <= _MOST_EXIF else None,
                xmp=xmp if len(xmp or b"") <= _MOST_XMP else None,
                profile=kept.profile if len(kept.profile or b"") <= _MOST_PROFILE else None,
            )
    return kept, tuple(_missing(metadata, kept))


def _missing(metadata: Metadata, kept: Metadata) -> Iterator[str]:
    names = {"profile": "ICC profile", "exif": "EXIF", "xmp": "XMP", "density": "dpi"}
    for field, name in names.items():
        if getattr(metadata, field) and not getattr(kept, field):
            yield name
    held = {kind for kind, _ in kept.chunks}
    kinds = dict.fromkeys(kind for kind, content in metadata.chunks if not content.startswith(XMP_KEYWORD))
    yield from (kind.decode() for kind in kinds if kind not in held)
    yield from metadata.others


def beside_a_jpeg(file: BinaryIO) -> tuple[str, ...]:
    """The names of what a JPEG file holds besides its picture that no file is given: comments, gain maps.

    A gain map, or another picture, stands behind the first one; an index of them (CIPA DC-007) before it.
    """
    found: dict[str, None] = {}
    file.seek(2)
    for _ in range(_MOST_MARKERS):
        head = file.read(4)
        size = int.from_bytes(head[2:], "big") - 2
        if len(head) < 4 or head[0] != 0xFF or head[1] == _SCAN or size < 0:
            break
        if head[1] == _COMMENT:
            found["comment"] = None
        elif head[1] == _APP2 and size >= 4:
            size -= 4
            if file.read(4) == b"MPF\0":
                found["further pictures, such as a gain map"] = None
        file.seek(size, os.SEEK_CUR)
    return tuple(found)


def tiff_tags(file: BinaryIO) -> dict[int, Any]:
    """The first directory of a TIFF file, with those that EXIF's tags lead to as dictionaries in it.

    What cannot be understood is left out.
    """
    file.seek(0)
    head = file.read(8)
    if b"+" in head[2:4]:
        head += file.read(8)
    tags: dict[int, Any] = {}
    with _lenient():
        tags = _directory(file, head, ImageFileDirectory_v2(head).next)
    for of in _DIRECTORIES:
        if of in tags:
            tags[of] = _directory(file, head, tags[of], of)
    return tags


def _directory(file: BinaryIO, head: bytes, place: Any, group: int | None = None) -> dict[int, Any]:
    tags: dict[int, Any] = {}
    with _lenient():
        directory = ImageFileDirectory_v2(head, group=group)
        file.seek(place)
        directory.load(file)
        for tag in directory:
            with _lenient():
                tags[tag] = directory[tag]
    return tags


def exif_of_tiff(tags: Mapping[int, Any]) -> bytes | None:
    """The part of a TIFF's directory that other formats call EXIF."""
    exif = Image.Exif()
    for tag in (*DESCRIPTIVE, _ORIENTATION, *_DIRECTORIES):
        if tags.get(tag):
            exif[tag] = tags[tag]
    return _bytes(exif)


def texts_of(exif: bytes | None) -> dict[int, str]:
    """EXIF's texts by their tags, which are TIFF's too."""
    parsed = _parsed(exif)
    return {tag: parsed[tag] for tag in DESCRIPTIVE if isinstance(parsed.get(tag), str)}


def directories_of(exif: bytes | None) -> dict[int, dict[int, Any]]:
    """EXIF's two directories, by the tags that lead to them: the camera's, and the place's."""
    parsed = _parsed(exif)
    return {tag: parsed[tag] for tag in _DIRECTORIES if tag in parsed}


def _parsed(exif: bytes | None) -> dict[int, Any]:
    """EXIF's tags, and its directories as dictionaries; what cannot be understood is left out."""
    tags: dict[int, Any] = {}
    with _lenient():
        parsed = Image.Exif()
        parsed.load(exif or b"")
        for tag in parsed:
            with _lenient():
                tags[tag] = dict(parsed.get_ifd(tag)) if tag in _DIRECTORIES else parsed[tag]
    return tags


def _upright_exif(exif: bytes | None, shape: tuple[int, int]) -> bytes | None:
    """EXIF of an image that stands upright and has another size; None where nothing of it is understood."""
    made = Image.Exif()
    for tag, value in _parsed(exif).items():
        made[tag] = value
    made.pop(_ORIENTATION, None)
    directory = made.get(_EXIF_IFD, {})
    directory.update({tag: shape[place] for tag, place in _PIXELS.items() if tag in directory})
    return _bytes(made)


def _bytes(exif: Image.Exif) -> bytes | None:
    with _lenient():
        return exif.tobytes() if len(exif) else None
    return None


@contextmanager
def _lenient() -> Iterator[None]:
    """Suppresses the dozen kinds of errors that Pillow raises of odd metadata, and its warnings."""
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
