"""What an image file says of its picture before the pixels are decoded; opened with care, read by libvips.

Metadata never decides whether an image is sound, so that no file is damaged for one command and whole for
another. BMP, which libvips does not know, is read by Pillow.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import pyvips
from PIL import Image

from gpnas_trainers.files import descriptor_of
from gpnas_trainers.images.errors import ImageError, NotRgb
from gpnas_trainers.images.metadata import (
    COLOUR,
    TEXT,
    Metadata,
    beside_a_jpeg,
    exif_of_tiff,
    orientation,
    tiff_tags,
)
from gpnas_trainers.images.png import read_chunks

MAX_PIXELS = 178_956_970
"""Default limit on an image's pixels: what Pillow itself refuses, 512 MiB as RGB."""

_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
}
_BMP_MODES = {"1": "black and white", "L": "grey", "P": "palette", "RGBA": "RGB with alpha"}
_ANIMATION, _KEY, _PHYSICAL, _EXIF, _PROFILE = b"acTL", b"tRNS", b"pHYs", b"eXIf", b"iCCP"
_LOST = (b"tIME", b"bKGD", b"sBIT")
"""PNG's chunks that are not kept, since they are about the picture that was read."""
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _RESOLUTION_UNIT = 258, 259, 262, 277, 296
_COLOUR_TAGS = {301: "TransferFunction", 318: "WhitePoint", 319: "PrimaryChromaticities"}
_PALETTE, _YCBCR, _LABS = 3, 6, (8, 9, 10)
_JPEGS = (6, 7)
"""TIFF's compressions whose decoder makes RGB of YCbCr."""
_INCH = 25.4
"""Millimetres."""

# nothing is asked for twice, and what is cached would keep its file open
pyvips.cache_set_max(0)
# each thread of its own holds rows; compression, which takes longest, is done by one whatever this says
pyvips.concurrency_set(1)


@dataclass(frozen=True)
class Header:
    """What an image file says before its pixels are decoded."""

    height: int
    """The height of the upright image, in pixels; `width` likewise."""
    width: int
    bits: int
    """Per channel: 8 or 16."""
    format: str
    """`PNG`, `JPEG`, `WebP`, `TIFF` or `BMP`."""
    orientation: int
    """EXIF's, 1 … 8: how the stored image is turned."""
    metadata: Metadata
    whole: str | None
    """What makes its decoder hold all of it, if anything does."""
    instead: str | None
    """What the picture is instead of one in RGB, to be converted; None where it is RGB."""


def read_header(path: str | Path, *, max_pixels: int = MAX_PIXELS, convert: bool = False) -> Header:
    """The header of a file that holds one RGB picture of 8 or 16 bits per channel.

    Args:
        path: a PNG, JPEG, WebP, TIFF or BMP file, or a link to one.
        max_pixels: an image with more pixels is refused.
        convert: whether pictures of other kinds are taken too.

    Raises:
        ImageError: the file is missing, not a regular file, not an image, or too large.
        NotRgb: it is a picture of another kind.
    """
    path = Path(path)
    with opened_image(path) as file:
        return header_of(path, file, max_pixels, convert)


def header_of(path: Path, file: BinaryIO, max_pixels: int, convert: bool) -> Header:
    """The header of an open file; arguments and errors are those of `read_header`."""
    format = _format(path, file)
    header = _header_of_bmp(path, file) if format == "BMP" else _header(path, file, format)
    if header.height * header.width > max_pixels:
        raise ImageError(
            f"{path}: an image must have at most {max_pixels} pixels, but got "
            f"{header.width}×{header.height}; cut it into parts"
        )
    if header.instead is not None and not convert:
        raise _not_rgb(path, header.instead)
    return header


@contextmanager
def opened_image(path: Path) -> Iterator[BinaryIO]:
    """The file, which may be a link but must lead to a regular file; raises `ImageError`."""
    try:
        descriptor = descriptor_of(path, follow=True)
    except FileNotFoundError:
        raise ImageError(f"{path}: an image file must exist, but there is none; check the name") from None
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        raise ImageError(f"{path}: an image file must be readable, but got: {reason_of(error)}") from None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        yield file


def loaded(file: BinaryIO, format: str, access: str = "sequential") -> Any:
    """The picture as libvips takes it from an open file, undecoded and as it is stored.

    Raises:
        pyvips.Error: it is damaged.
    """
    file.seek(0)
    if format == "JPEG":  # which libvips maps to memory as a whole where it can
        source = pyvips.SourceCustom()
        source.on_read(file.read)
        source.on_seek(file.seek)
    else:  # not by its name, in which libvips would look for options
        source = pyvips.Source.new_from_descriptor(file.fileno())
    options = {"unlimited": True} if format == "PNG" else {}  # else many texts make a PNG damaged
    return pyvips.Image.new_from_source(source, "", access=access, fail_on="error", **options)


@contextmanager
def bmp(path: Path, file: BinaryIO) -> Iterator[Image.Image]:
    """The picture of a BMP file; whatever Pillow raises inside the block becomes an `ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which are judged by their header
            file.seek(0)
            with Image.open(file, formats=["BMP"]) as image:
                yield image
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ImageError(
            f"{path}: a BMP file must have at most {MAX_PIXELS} pixels, but got more; cut it into parts"
        ) from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds on damaged files
        raise damaged(path, reason_of(error)) from None


def damaged(path: Path, reason: str) -> ImageError:
    """The error of pixels that cannot be decoded."""
    return ImageError(
        f"{path}: an image must decode in full, but it is damaged or truncated ({reason}); copy it again"
    )


def reason_of(error: Exception) -> str:
    """What an error says, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, pyvips.Error):  # whose first line names the operation
        text = next((line for line in text.splitlines()[1:] if line.strip()), "the decoder gave up")
    return " ".join(text.split()) or type(error).__name__


def _not_rgb(path: Path, instead: str, *, convertible: bool = True) -> NotRgb:
    text = f"{path}: an image must be one RGB picture, but got {instead}; convert it first"
    return NotRgb(text, convertible=convertible)


def _format(path: Path, file: BinaryIO) -> str:
    beginning = file.read(12)
    for begins, format in _BEGINNINGS.items():
        if beginning.startswith(begins):
            return format
    if beginning[:4] == b"RIFF" and beginning[8:] == b"WEBP":
        return "WebP"
    raise ImageError(
        f"{path}: an image must be PNG, JPEG, WebP, TIFF or BMP, but this file is not or is damaged"
    )


def _header_of_bmp(path: Path, file: BinaryIO) -> Header:
    head = os.pread(file.fileno(), 74, 0)
    # a header of version 4 or 5 may describe its colours, which Pillow passes over
    described = len(head) == 74 and head[14] >= 108 and head[70:] not in (b"BGRs", b" niW")
    with bmp(path, file) as image:
        instead = None if image.mode == "RGB" else _BMP_MODES.get(image.mode, image.mode)
        others = ("colour space",) if described else ()
        metadata = Metadata(density=image.info.get("dpi"), others=others)
        return Header(image.height, image.width, 8, "BMP", 1, metadata, "BMP", instead)


def _header(path: Path, file: BinaryIO, format: str) -> Header:
    tags = tiff_tags(file) if format == "TIFF" else {}
    odd = _odd_tiff(tags)
    if odd is not None:
        raise _not_rgb(path, odd, convertible=False)
    try:
        image = loaded(file, format)
    except pyvips.Error as error:
        raise damaged(path, reason_of(error)) from None
    fields = set(image.get_fields())
    bits = {"uchar": 8, "ushort": 16}.get(image.format)
    if bits is None or image.bands > 4:
        raise _not_rgb(path, f"{image.bands} channels of {image.format}", convertible=False)
    chunks: dict[bytes, bytes] = {}
    texts: list[tuple[bytes, bytes]] = []
    if format == "PNG":
        wanted = {_ANIMATION, _KEY, _PHYSICAL, _EXIF, _PROFILE, *COLOUR, *_LOST}
        for kind, content in read_chunks(file, {*wanted, *TEXT}):
            if kind in wanted:
                chunks.setdefault(kind, content)
            else:
                texts.append((kind, content))
    metadata = Metadata(
        profile=_blob(image, fields, "icc-profile-data"),
        exif=exif_of_tiff(tags) or chunks.get(_EXIF) or _blob(image, fields, "exif-data"),
        xmp=_blob(image, fields, "xmp-data"),
        density=_density(image, format, tags, chunks),
        chunks=(*((kind, chunks[kind]) for kind in COLOUR if kind in chunks), *texts),
        others=(
            *(name.upper() for name in ("iptc", "photoshop") if f"{name}-data" in fields),
            *(name for tag, name in _COLOUR_TAGS.items() if tag in tags),
            *(kind.decode() for kind in _LOST if kind in chunks),
            *(beside_a_jpeg(file) if format == "JPEG" else ()),
        ),
    )
    if _PROFILE in chunks and metadata.profile is None:  # it is no profile to libvips
        metadata = replace(metadata, others=("ICC profile", *metadata.others))
    turned = orientation(metadata)
    height, width = (image.width, image.height) if turned >= 5 else (image.height, image.width)
    instead = _instead(image, fields, tags, chunks)
    return Header(height, width, bits, format, turned, metadata, _whole(format, fields), instead)


def _odd_tiff(tags: Mapping[int, Any]) -> str | None:
    """What a TIFF holds that libvips would misread, or would call damaged."""
    depths = tags.get(_BITS, 1)
    bits = max(depths) if isinstance(depths, tuple) and depths else depths
    several = tags.get(_SAMPLES, 1) not in (1, 2)
    if isinstance(bits, int) and (bits not in (1, 2, 4, 8, 16) or (several and bits < 8 and _BITS in tags)):
        return f"{bits} bits per channel"
    photometric = tags.get(_PHOTOMETRIC)
    if photometric == _YCBCR and tags.get(_COMPRESSION) not in _JPEGS:
        return "YCbCr"
    return "LAB" if photometric in _LABS else None


def _instead(image: Any, fields: set[str], tags: Mapping[int, Any], chunks: dict[bytes, bytes]) -> str | None:
    """What the picture is instead of one in RGB, in words."""
    frames = image.get("n-pages") if "n-pages" in fields else 1
    if len(chunks.get(_ANIMATION, b"")) == 8:
        frames = int.from_bytes(chunks[_ANIMATION][:4], "big")
    if frames > 1:
        return f"{frames} frames or pages"
    alpha = " with alpha" if image.hasalpha() else ""
    depth = " of 16 bits" if image.format == "ushort" else ""
    if "palette" in fields or tags.get(_PHOTOMETRIC) == _PALETTE:
        return f"palette{alpha}"
    if image.interpretation == "cmyk":
        return f"CMYK{alpha}{depth}"
    if image.bands < 3:
        one = "bits-per-sample" in fields and image.get("bits-per-sample") == 1
        return "black and white" if one else f"grey{alpha}{depth}"
    if image.bands == 4:
        return f"RGB with a transparent colour{depth}" if _KEY in chunks else f"RGB with alpha{depth}"
    return None


def _whole(format: str, fields: set[str]) -> str | None:
    if "interlaced" in fields:
        return "an interlaced PNG" if format == "PNG" else "a progressive JPEG"
    return "WebP" if format == "WebP" else None


def _blob(image: Any, fields: set[str], name: str) -> bytes | None:
    return bytes(image.get(name)) if name in fields else None


def _density(
    image: Any, format: str, tags: Mapping[int, Any], chunks: dict[bytes, bytes]
) -> tuple[float, float] | None:
    """Pixels per inch, if the file says so: libvips gives a value for every image."""
    physical = chunks.get(_PHYSICAL, b"")
    is_said = {
        "PNG": len(physical) == 9 and physical[8] == 1,
        "TIFF": tags.get(_RESOLUTION_UNIT) in (2, 3),
        "JPEG": "resolution-unit" in image.get_fields(),
    }
    if not is_said.get(format, False):
        return None
    across, down = image.xres * _INCH, image.yres * _INCH
    return (across, down) if 0 < across < 65_536 and 0 < down < 65_536 else None
