"""Image files: strictly RGB in, of 8 bits or on demand of 16; atomically out.

Nothing is converted unasked: an image that is grey, transparent or indexed is refused, since a training
would learn the conversion along with the camera. Colour profiles are not applied.
"""

from __future__ import annotations

import errno
import os
import sys
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""Names of image files that are read, in lower case."""
MAX_PIXELS = 178_956_970
"""Default limit on an image's pixels: what Pillow itself refuses, 512 MiB as RGB."""

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
    ".bmp": ("BMP", {}),
}
_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "La": "grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGBA": "RGB with alpha",
    "RGBa": "RGB with alpha",
    "I": "grey of 32 bits",
    "F": "grey of floating point",
    "CMYK": "CMYK",
    "LAB": "LAB",
    "YCbCr": "YCbCr",
}
_ORIENTATION = 0x0112
_SIZE = (0x0100, 0x0101)
_BITS_PER_SAMPLE = 0x0102
_PLANES = 0x011C
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B"}


class ImageError(ValueError):
    """An image that cannot be read or written: one line with the file, the rule, the value, what to do."""


class NotRgb(ImageError):
    """A whole image, but not one RGB picture."""


@dataclass(frozen=True)
class Header:
    """What an image's header tells."""

    height: int
    """Of the upright image, as its width."""
    width: int
    bits: int
    """Per channel: 8 or 16."""
    format: str
    """As Pillow names it."""
    orientation: int
    """EXIF's, 1 … 8: how the stored image is turned."""
    profile: bytes | None
    """The ICC profile of its colours."""
    whole: str | None
    """What makes its decoder hold all of it, if anything does."""


def read_rgb(path: str | Path, *, convert: bool = False, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The image as (H, W, 3) uint8, upright (EXIF orientation applied).

    Args:
        path: a PNG, JPEG, WebP, TIFF or BMP file.
        convert: make RGB of grey, palette and CMYK images, and 8 of 16 bits, for an image that is only
            to be looked at; one with transparent pixels is refused all the same.
        max_pixels: an image with more pixels is refused before it is decoded; at most `MAX_PIXELS`.

    Raises:
        ImageError: the file is missing, not an image, truncated, or not 8-bit RGB.
    """
    path = Path(path)
    with _opened(path, max_pixels) as image:
        found = _not_rgb(path, image)
        if found is None:
            # A copy, since what Pillow lends is read-only.
            return np.array(ImageOps.exif_transpose(image), dtype=np.uint8)
        converted = _converted(image) if convert else None
        if converted is None:
            raise ImageError(
                f"{path}: an image must be one 8-bit RGB picture, but got {found}; convert it first"
            )
        return np.array(ImageOps.exif_transpose(converted), dtype=np.uint8)


def read_header(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Header:
    """What is told of an RGB image of 8 or 16 bits, without decoding it; raises as `read_levels`.

    Only here, where nothing is decoded, may `max_pixels` be above `MAX_PIXELS`.
    """
    path = Path(path)
    with _opened(path, max_pixels) as image:
        bits = _rgb_bits(path, image)
        height, width = _upright_size(path, image)
        orientation = _exif(path, image).get(_ORIENTATION, 1)
        profile, whole = image.info.get("icc_profile"), _whole(image)
        return Header(height, width, bits, str(image.format), orientation, profile, whole)


def read_levels(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """The image as it is stored, upright: (H, W, 3), uint8 of 8 bits per channel or uint16 of 16.

    PNG and TIFF may have 16 bits; the other formats have 8.

    Raises:
        ImageError: the file is missing, not an image, truncated, or not RGB of 8 or 16 bits.
    """
    path = Path(path)
    with _opened(path, max_pixels) as image:
        bits = _rgb_bits(path, image)
        if bits == 8:
            return np.array(ImageOps.exif_transpose(image), dtype=np.uint8)
        high = np.array(ImageOps.exif_transpose(image), dtype=np.uint16)
    # Pillow keeps one byte of each 16-bit channel, the high one, by the byte order that it is told.
    # Told the other order, it keeps the low one.
    with _opened(path, max_pixels) as image:
        image.tile = [tile._replace(args=_low_bytes(path, tile.args)) for tile in image.tile]  # type: ignore[attr-defined]
        low = np.array(ImageOps.exif_transpose(image), dtype=np.uint16)
    return high << 8 | low


def _whole(image: Image.Image) -> str | None:
    if image.format == "PNG" and image.info.get("interlace"):
        return "an interlaced PNG"
    if image.format == "JPEG" and image.info.get("progressive"):
        return "a progressive JPEG"
    return {"WEBP": "WebP", "BMP": "BMP"}.get(str(image.format))


def _upright_size(path: Path, image: Image.Image) -> tuple[int, int]:
    """(height, width) of an image that is not decoded yet."""
    width, height = image.size
    if image.format == "TIFF":  # of which some Pillows tell the upright size already
        width, height = (image.tag_v2[tag] for tag in _SIZE)  # type: ignore[attr-defined]
    turned = _exif(path, image).get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def _exif(path: Path, image: Image.Image) -> Image.Exif:
    """Of an image that is not decoded yet: Pillow would decode a PNG, as its EXIF may follow its pixels."""
    if image.format == "PNG":
        late = None if "exif" in image.info else _chunk_of_png(path, b"eXIf")
        if late is not None:
            image.info["exif"] = b"Exif\0\0" + late
        return Image.Image.getexif(image)
    return image.getexif()


def _chunk_of_png(path: Path, kind: bytes) -> bytes | None:
    """What the first such chunk holds."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[:4], "big")
            if head[4:] == kind:
                return file.read(size)
            file.seek(size + 4, os.SEEK_CUR)
    return None


def _rgb_bits(path: Path, image: Image.Image) -> int:
    """8 or 16, of an RGB picture; raises `ImageError` if it is none."""
    found = _not_rgb(path, image)
    if found is None:
        return 8
    if found == "16 bits per channel" and image.mode == "RGB" and "transparency" not in image.info:
        if image.format == "PNG" or image.tag_v2.get(_PLANES, 1) == 1:  # type: ignore[attr-defined]
            return 16
        found = "16 bits per channel in separate planes"
    raise NotRgb(f"{path}: an image must be one RGB picture, but got {found}; convert it first")


def _low_bytes(path: Path, args: Any) -> Any:
    """Arguments of Pillow's decoder that make it keep the low bytes of 16-bit channels."""
    raw, *others = args if isinstance(args, tuple) else (args,)
    # libtiff hands out the machine's own byte order
    raw = {"RGB;16N": f"RGB;16{'L' if sys.byteorder == 'little' else 'B'}"}.get(raw, raw)
    if raw not in _LOW_BYTES:
        raise NotRgb(f"{path}: 16-bit RGB must be stored by pixel, but got the layout {raw}; convert it")
    low = _LOW_BYTES[raw]
    return (low, *others) if isinstance(args, tuple) else low


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) float32 in [0, 1]."""
    import torch  # two seconds and 200 MiB, which the processes that prepare pairs need not pay

    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(torch.float32).div_(255)


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) floats to (H, W, 3) uint8, clamped to [0, 1] and rounded to the nearest level."""
    import torch

    levels = image.detach().clamp(0, 1).mul(255).round_().to("cpu", torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


def read_size(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of the upright image, from its header alone; raises as `read_rgb` does."""
    path = Path(path)
    with _opened(path, max_pixels) as image:
        return _upright_size(path, image)


def write_rgb(path: str | Path, array: NDArray[np.uint8]) -> None:
    """Writes (H, W, 3) uint8 in the format that the suffix names; whole or not at all.

    PNG, WebP, TIFF and BMP are lossless; JPEG has quality 95 without chroma subsampling.

    Raises:
        ImageError: the array is not (H, W, 3) uint8, the suffix is unknown, or the file cannot be
            written (no such folder, disk full, image too large for the format).
    """
    path = Path(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"{path}: an image to write must be (H, W, 3) of uint8, but got {array.shape} of {array.dtype}"
        )
    if path.suffix.lower() not in _WRITERS:
        raise ImageError(
            f"{path}: an image's name must end in one of {', '.join(SUFFIXES)}, but got {path.suffix!r}"
        )
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            encode_rgb(file, path.suffix, array)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, ValueError) as error:
        raise unwritten(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def encode_rgb(file: BinaryIO, suffix: str, array: NDArray[np.uint8], profile: bytes | None = None) -> None:
    """Writes (H, W, 3) uint8 in the format of a suffix that `write_rgb` knows, with an ICC profile.

    Raises:
        OSError, ValueError: whatever Pillow raises.
    """
    format, options = _WRITERS[suffix.lower()]
    Image.fromarray(np.ascontiguousarray(array)).save(file, format, icc_profile=profile, **options)


def unwritten(path: Path, error: Exception) -> ImageError:
    """What is told of an image that could not be written."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ImageError(
            f"{path}: the image could not be written, since the disk is full; free some space or choose "
            "another folder"
        )
    return ImageError(f"{path}: the image could not be written ({_reason(error)})")


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The image, undecoded; whatever Pillow raises inside the block becomes a `ImageError`."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images, which are judged below, and of odd metadata.
            warnings.simplefilter("ignore")
            with _limited(max_pixels), Image.open(path, formats=_FORMATS) as image:
                pixels = image.width * image.height
                if pixels > max_pixels:
                    raise ImageError(_too_large(path, max_pixels, f"{image.width}×{image.height}"))
                yield image
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: an image file must exist, but there is none; check the name") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{path}: an image must be PNG, JPEG, WebP, TIFF or BMP, but this file is not or is damaged"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large(path, MAX_PIXELS, "more")) from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds on damaged files
        raise ImageError(
            f"{path}: an image must decode in full, but it is damaged or truncated "
            f"({_reason(error)}); copy it again"
        ) from None


@contextmanager
def _limited(max_pixels: int) -> Iterator[None]:
    """Lifts Pillow's own limit, one of the process, where more is allowed; ours is checked all the same."""
    own = Image.MAX_IMAGE_PIXELS
    if max_pixels > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = own


def _not_rgb(path: Path, image: Image.Image) -> str | None:
    """What the image is instead of one 8-bit RGB picture; None when it is one."""
    if _frames(image) > 1:
        return f"{_frames(image)} frames or pages"
    bits = 16 if image.mode.startswith("I;16") else _bits(path, image)
    if bits > 8 or (bits < 8 and image.mode == "RGB"):
        return f"{bits} bits per channel"
    if image.mode != "RGB":
        return _MODES.get(image.mode, image.mode)
    return "RGB with a transparent colour" if "transparency" in image.info else None


def _converted(image: Image.Image) -> Image.Image | None:
    """The image as 8-bit RGB; None where that would lose what is to be seen."""
    if _frames(image) > 1 or image.mode in ("I", "F"):
        return None
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        converted = Image.fromarray(grey).convert("RGB")
        orientation = image.getexif().get(_ORIENTATION)
        if orientation:
            converted.getexif()[_ORIENTATION] = orientation
        return converted
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        return None
    return image.convert("RGB")


def _frames(image: Image.Image) -> int:
    # An MPO is one JPEG with its previews.
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _bits(path: Path, image: Image.Image) -> int:
    """Bits per channel in the file: Pillow reduces 16-bit RGB to 8 and does not say so."""
    if image.format == "PNG" and image.mode != "P":
        with path.open("rb") as file:  # a PNG begins with its header, which has the depth in byte 24
            return file.read(25)[24]
    if image.format == "TIFF":
        depths = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return max(depths) if isinstance(depths, tuple) else int(depths)
    return 8


def _too_large(path: Path, limit: int, value: str) -> str:
    return f"{path}: an image must have at most {limit} pixels, but got {value}; cut it into parts"


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
