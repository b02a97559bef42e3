"""Image files: what is read, what is refused and in which words."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpnas_trainers.images import ImageError, NotRgb, read_header, read_levels, reading


def noise(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_by_hand(path: Path, width: int, height: int, depth: int) -> None:
    """A PNG with this header and the pixels of a 4×3 image of 16 bits, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(6)) * 4 for _ in range(3))
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".TIFF", ".bmp"])
def test_lossless_formats(tmp_path: Path, suffix: str) -> None:
    image = noise()
    Image.fromarray(image).save(tmp_path / f"image{suffix}", lossless=True)
    np.testing.assert_array_equal(read_levels(tmp_path / f"image{suffix}"), image)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("quality", [20, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_lossy_pixels_are_those_of_pillow(
    tmp_path: Path, suffix: str, quality: int, subsampling: int
) -> None:
    """The decoder is another; its pixels are the same to the last bit."""
    image = np.kron(noise(9, 11), np.ones((7, 5, 1), np.uint8)) // 2 + noise(63, 55, 1) // 8
    by_suffix: dict[str, dict[str, Any]] = {
        ".jpg": {"quality": quality, "subsampling": subsampling, "progressive": quality == 75},
        ".webp": {"quality": quality},
        ".tif": {"compression": "jpeg", "quality": quality},
    }
    options = by_suffix[suffix]
    Image.fromarray(image).save(tmp_path / f"image{suffix}", **options)
    with Image.open(tmp_path / f"image{suffix}") as other:
        np.testing.assert_array_equal(read_levels(tmp_path / f"image{suffix}"), np.asarray(other))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = noise(6, 10)
    # The EXIF standard's table: how the stored rows and columns must be turned to stand upright.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_levels(tmp_path / "image.png"), upright)
    header = read_header(tmp_path / "image.png")
    assert (header.height, header.width) == (6, 10)
    # a PNG's EXIF may follow its pixels
    content = (tmp_path / "image.png").read_bytes()
    begin = content.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(content[begin : begin + 4], "big")
    moved = content[:begin] + content[end:-12] + content[begin:end] + content[-12:]
    (tmp_path / "late.png").write_bytes(moved)
    np.testing.assert_array_equal(read_levels(tmp_path / "late.png"), upright)
    assert read_header(tmp_path / "late.png") == header


REFUSED = {
    "L": "grey",
    "LA": "grey with alpha",
    "1": "black and white",
    "P": "palette",
    "RGBA": "RGB with alpha",
    "I;16": "grey of 16 bits",
}


@pytest.mark.parametrize(("mode", "found"), REFUSED.items())
def test_other_modes_are_refused_unless_they_may_be_converted(tmp_path: Path, mode: str, found: str) -> None:
    path = tmp_path / "image.png"
    image = Image.fromarray(noise(8, 8)).convert("RGB" if mode == "I;16" else mode)
    if mode == "I;16":
        deep = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
        Image.fromarray(deep).save(path)
        expected = np.repeat(deep[..., None], 3, axis=2)
    else:
        image.save(path)
        expected = np.asarray(image.convert("RGB"))
    with pytest.raises(ImageError) as caught:
        read_levels(path)
    assert str(caught.value) == f"{path}: an image must be one RGB picture, but got {found}; convert it first"
    converted = read_levels(path, convert=True)
    assert converted.dtype == expected.dtype
    np.testing.assert_array_equal(converted, expected)
    with reading(path, convert=True) as rows:
        np.testing.assert_array_equal(rows.levels(0, 8), expected)
        assert rows.converted is not None
        assert rows.converted.startswith(f"{found}, converted to RGB")


def test_frames_cmyk_and_transparent_colour_are_refused(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise(8, 8, seed)) for seed in (0, 1))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    first.save(tmp_path / "moving.png", save_all=True, append_images=[second])
    first.save(tmp_path / "moving.webp", save_all=True, append_images=[second], lossless=True)
    first.convert("CMYK").save(tmp_path / "print.jpg")
    first.save(tmp_path / "keyed.png", transparency=(1, 2, 3))
    for name, mode in (("palette.tif", "P"), ("ycbcr.tif", "YCbCr")):
        first.convert(mode).save(tmp_path / name)
    Image.new("LAB", (8, 8)).save(tmp_path / "lab.tif")
    for name, found in (
        ("pages.tif", "2 frames"),
        ("moving.png", "2 frames"),
        ("moving.webp", "2 frames"),
        ("print.jpg", "CMYK"),
        ("keyed.png", "transparent"),
        ("palette.tif", "palette"),
        ("ycbcr.tif", "YCbCr"),
        ("lab.tif", "LAB"),
    ):
        with pytest.raises(NotRgb, match=found) as refused:
            read_levels(tmp_path / name)
        if refused.value.convertible:  # as is said to whoever could ask for it
            assert read_levels(tmp_path / name, convert=True).shape == (8, 8, 3)
        else:
            assert found in ("YCbCr", "LAB")
            with pytest.raises(NotRgb, match=found):
                read_levels(tmp_path / name, convert=True)
    np.testing.assert_array_equal(read_levels(tmp_path / "pages.tif", convert=True), np.asarray(first))


def test_transparent_pixels_are_put_on_white(tmp_path: Path) -> None:
    pixels = noise(8, 8)
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:4] = 255
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "image.png")
    expected = np.where(alpha[..., None] == 255, pixels, 255)
    np.testing.assert_array_equal(read_levels(tmp_path / "image.png", convert=True), expected)
    with reading(tmp_path / "image.png", convert=True) as rows:
        assert rows.converted == "RGB with alpha, converted to RGB; transparent pixels are put on white"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_truncated_files_are_one_line_errors(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError) as caught:
        read_levels(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file_folder_and_text(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    for name, words in (("none.png", "must exist"), ("text.png", "must be PNG"), ("", "is a folder")):
        with pytest.raises(ImageError, match=words):
            read_levels(tmp_path / name)


def test_pixel_limit_is_judged_before_decoding(tmp_path: Path) -> None:
    png_by_hand(tmp_path / "bomb.png", 20_000, 10_000, depth=8)
    Image.fromarray(noise(10, 11)).save(tmp_path / "image.png")
    for path, limit in ((tmp_path / "bomb.png", 178_956_970), (tmp_path / "image.png", 109)):
        with pytest.raises(ImageError, match=f"at most {limit} pixels"):
            read_levels(path, max_pixels=limit)
    read_levels(tmp_path / "image.png", max_pixels=110)


def png_with(path: Path, *chunks: tuple[bytes, bytes]) -> np.ndarray:
    """A PNG with chunks of these kinds and contents before its pixels."""
    image = noise()
    Image.fromarray(image).save(path)
    content = path.read_bytes()
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(content[:33] + made + content[33:])
    return image


ODD = {
    "a long text": (b"zTXt", b"x\0\0" + zlib.compress(bytes(3_000_000))),
    "a text that is none": (b"zTXt", b"x\0\0none"),
    "a large profile": (b"iCCP", b"x\0\0" + zlib.compress(np.random.default_rng(0).bytes(3_000_000))),
    "a profile that is none": (b"iCCP", b"x\0\0none"),
    "EXIF that is none": (b"eXIf", b"none"),
    "EXIF that ends early": (b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + bytes(30)),
    "short chromaticities": (b"cHRM", b"abc"),
    "short dimensions": (b"pHYs", b"abc"),
    "an unknown chunk": (b"abCd", b"abc"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_metadata_is_no_damage(tmp_path: Path, name: str) -> None:
    image = png_with(tmp_path / "image.png", ODD[name])
    np.testing.assert_array_equal(read_levels(tmp_path / "image.png"), image)
    with reading(tmp_path / "image.png") as rows:
        np.testing.assert_array_equal(rows.levels(0, len(image)), image)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow, to which it is compared
@pytest.mark.parametrize("exif", [b"Exif\0\0none", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(30)])
def test_odd_exif_is_no_damage(tmp_path: Path, suffix: str, exif: bytes) -> None:
    options: dict[str, Any] = {} if suffix == ".tif" else {"exif": exif}
    profile = np.random.default_rng(0).bytes(2_000_000)
    Image.fromarray(noise()).save(tmp_path / f"image{suffix}", icc_profile=profile, **options)
    with Image.open(tmp_path / f"image{suffix}") as other:
        np.testing.assert_array_equal(read_levels(tmp_path / f"image{suffix}"), np.asarray(other))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    Image.fromarray(noise()).save(tmp_path / "image.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "image.png")
    for name, words in (
        ("pipe.png", "a regular file, but is a pipe"),
        ("device.png", "a regular file, but is a device"),
        ("loop.png", "symbolic links"),
        ("broken.png", "there is none"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            read_levels(tmp_path / name)
        assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(read_levels(tmp_path / "link.png"), noise())


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"[red]two\nlines[page=1].png", "\u202eé.png".encode()])
def test_any_name_is_a_name(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    Image.fromarray(noise()).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(path)
    np.testing.assert_array_equal(read_levels(path), noise())
