"""What is kept besides the pixels, as other programs read it, and what is told to be lost."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from gpnas_trainers.images import Metadata, for_format, format_of, read_levels, reading, writing

SUFFIXES = [".png", ".jpg", ".webp", ".tif", ".bmp"]
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
SHAPE = (24, 40)
COLOURS = {
    b"cICP": bytes([9, 16, 0, 1]),
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
}


def exif(orientation: int = 1) -> Image.Exif:
    made = Image.Exif()
    made[0x010F] = "A camera"
    made[0x0112] = orientation
    made[0x8769] = {0x829A: IFDRational(1, 125), 0x9003: "2026:01:02 03:04:05", 0xA002: 20, 0xA003: 12}
    made[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return made


def pixels(height: int = 12, width: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def upscaled(source: Path, target: Path, bits: int = 8) -> tuple[str, ...]:
    """Writes it twice as large, row by row, as `gpnas upscale` does; what is told to be lost."""
    with reading(source) as image:
        kept, lost = for_format(image.metadata, format_of(target), (2 * image.height, 2 * image.width))
        rows = image.rows(0, image.height)
        if bits == 16:
            rows = (257 * rows.int()).to(torch.uint16)
        large = rows.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        with writing(target, 2 * image.height, 2 * image.width, bits, kept) as write:
            for part in large.split(7, dim=1):
                write(part)
    return lost


@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
def test_profile_exif_and_dpi_from_each_format_to_each(
    tmp_path: Path, source: str, target: str, bits: int
) -> None:
    if bits == 16 and target not in (".png", ".tif"):
        return
    options: dict[str, Any] = {} if source == ".webp" else {"dpi": (300, 300)}
    Image.fromarray(pixels()).save(
        tmp_path / f"lr{source}", icc_profile=PROFILE, exif=exif(6).tobytes(), **options
    )
    lost = upscaled(tmp_path / f"lr{source}", tmp_path / f"sr{target}", bits)
    with Image.open(tmp_path / f"sr{target}") as image:
        assert image.size == (SHAPE[0], SHAPE[1])  # it was turned, and stands upright
        found = image.getexif()
        assert found.get(0x0112, 1) == 1
        if target == ".bmp":
            assert {"ICC profile", "EXIF"} <= set(lost)
        else:
            assert image.info["icc_profile"] == PROFILE
            assert found[0x010F] == "A camera"
            camera = found.get_ifd(0x8769)
            assert camera[0x9003] == "2026:01:02 03:04:05"
            assert float(camera[0x829A]) == pytest.approx(1 / 125)
            assert (camera[0xA002], camera[0xA003]) == SHAPE
            assert [float(part) for part in found.get_ifd(0x8825)[2]] == [1.0, 2.0, 3.0]
        if source != ".webp" and target != ".webp":
            assert [round(float(inch)) for inch in image.info["dpi"]] == [300, 300]
        assert ("dpi" in lost) == (source != ".webp" and target == ".webp")
        if target != ".bmp":
            assert not {"ICC profile", "EXIF"} & set(lost)


@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("target", SUFFIXES)
def test_xmp_from_each_format_to_each(tmp_path: Path, source: str, target: str) -> None:
    options: dict[str, Any] = {"xmp": XMP}
    if source == ".png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"pnginfo": info}
    elif source == ".tif":
        options = {"tiffinfo": {700: XMP}}
    Image.fromarray(pixels()).save(tmp_path / f"lr{source}", **options)
    lost = upscaled(tmp_path / f"lr{source}", tmp_path / f"sr{target}")
    assert lost == (("XMP",) if target == ".bmp" else ())
    content = (tmp_path / f"sr{target}").read_bytes()
    upright = XMP.replace(b'"6"', b'"1"')
    assert content.count(upright) == (target != ".bmp")
    assert XMP not in content


def test_colours_and_texts_of_a_png(tmp_path: Path) -> None:
    image = tmp_path / "lr.png"
    Image.fromarray(pixels()).save(image)
    content = image.read_bytes()
    chunks = {**COLOURS, b"tEXt": b"Title\0A house", b"pHYs": struct.pack(">IIB", 11811, 11811, 1)}
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    )
    image.write_bytes(content[:33] + made + content[33:])
    assert upscaled(image, tmp_path / "sr.png") == ()
    written = (tmp_path / "sr.png").read_bytes()
    for kind, body in chunks.items():
        assert written.count(kind + body) == 1
        assert written.index(kind) < written.index(b"IDAT")
    with Image.open(tmp_path / "sr.png") as other:
        assert other.info["gamma"] == 0.45455
        assert other.info["Title"] == "A house"
    assert upscaled(image, tmp_path / "sr.jpg") == ("cICP", "gAMA", "cHRM", "tEXt")
    again = tmp_path / "again.png"
    assert upscaled(tmp_path / "sr.png", again) == ()  # what gpnas writes, it reads
    assert again.read_bytes().count(b"cICP") == 1


def test_what_is_too_large_for_a_jpeg_or_odd_is_told(tmp_path: Path) -> None:
    large = Metadata(xmp=b"x" * 70_000, exif=exif().tobytes() + bytes(70_000))
    kept, lost = for_format(large, "JPEG", SHAPE)
    assert "XMP" in lost
    assert kept.xmp is None
    odd = Metadata(profile=b"none", exif=b"Exif\0\0none")
    for format in ("PNG", "JPEG", "TIFF", "WebP", "BMP"):
        kept, lost = for_format(odd, format, SHAPE)
        assert (kept.profile, kept.exif) == (None, None)
        assert set(lost) == {"ICC profile", "EXIF"}


def test_colours_that_no_format_keeps_are_told(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "lr.tif", tiffinfo={318: (0.3127, 0.329)})
    assert upscaled(tmp_path / "lr.tif", tmp_path / "sr.png") == ("WhitePoint",)
    image = pixels(4, 4)
    head = struct.pack("<IiiHHIIiiII", 108, 4, 4, 1, 24, 0, 48, 0, 0, 0, 0) + bytes(16)
    for space, lost in ((b"BGRs", ()), (bytes(4), ("colour space",))):
        body = head + space + bytes(48)
        start = 14 + len(body)
        content = (
            b"BM" + struct.pack("<IHHI", start + 48, 0, 0, start) + body + image[::-1, :, ::-1].tobytes()
        )
        (tmp_path / "lr.bmp").write_bytes(content)
        np.testing.assert_array_equal(read_levels(tmp_path / "lr.bmp"), image)
        assert set(upscaled(tmp_path / "lr.bmp", tmp_path / "sr.png")) == set(lost)


def test_a_tiff_of_64_bit_offsets_keeps_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpnas_trainers.images import encoding

    monkeypatch.setattr(encoding, "_BIG", 0)
    Image.fromarray(pixels()).save(
        tmp_path / "lr.jpg", exif=exif().tobytes(), icc_profile=PROFILE, dpi=(300, 300)
    )
    assert upscaled(tmp_path / "lr.jpg", tmp_path / "sr.tif") == ()
    with tifffile.TiffFile(tmp_path / "sr.tif") as file:
        assert file.is_bigtiff
        tags = file.pages.first.tags
        assert tags["Make"].value == "A camera"
        assert tags["ExifTag"].value["DateTimeOriginal"] == "2026:01:02 03:04:05"
        assert tags["InterColorProfile"].value == PROFILE
    assert upscaled(tmp_path / "sr.tif", tmp_path / "again.jpg") == ()
    with Image.open(tmp_path / "again.jpg") as image:
        assert image.getexif()[0x010F] == "A camera"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"


def test_what_stands_beside_a_picture_is_told(tmp_path: Path) -> None:
    """Written byte by byte: JPEG's comments and index of pictures, PNG's chunks of no use to another size."""
    Image.fromarray(pixels()).save(tmp_path / "plain.jpg")
    plain = (tmp_path / "plain.jpg").read_bytes()
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 5) + b"hello"
    index = b"\xff\xe2" + struct.pack(">H", 2 + 12) + b"MPF\0" + bytes(8)
    for added, lost in (
        (b"", ()),
        (comment, ("comment",)),
        (index + comment + comment, ("further pictures, such as a gain map", "comment")),
    ):
        (tmp_path / "some.jpg").write_bytes(plain[:2] + added + plain[2:])
        assert upscaled(tmp_path / "some.jpg", tmp_path / "large.jpg") == lost
        np.testing.assert_array_equal(read_levels(tmp_path / "some.jpg"), read_levels(tmp_path / "plain.jpg"))
    Image.fromarray(pixels()).save(tmp_path / "plain.png")
    content = (tmp_path / "plain.png").read_bytes()
    chunks = {b"tIME": bytes([7, 234, 1, 2, 3, 4, 5]), b"bKGD": bytes(6), b"sBIT": bytes([8, 8, 8])}
    added = b"".join(
        struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
        for kind, text in chunks.items()
    )
    (tmp_path / "some.png").write_bytes(content[:33] + added + content[33:])
    assert upscaled(tmp_path / "some.png", tmp_path / "large.png") == ("tIME", "bKGD", "sBIT")
