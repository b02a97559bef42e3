"""Image files: what is read, what is refused and in which words, what is written."""

from __future__ import annotations

import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gpnas_trainers.images import ImageError, read_rgb, read_size, to_pixels, to_tensor, write_rgb


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
def test_lossless_round_trip(tmp_path: Path, suffix: str) -> None:
    image = noise()
    path = tmp_path / f"image{suffix}"
    write_rgb(path, image)
    np.testing.assert_array_equal(read_rgb(path), image)
    with Image.open(path) as other:  # and as Pillow alone sees it
        np.testing.assert_array_equal(np.asarray(other), image)
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_jpeg_is_close(tmp_path: Path) -> None:
    image = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 48, 3)).copy()
    write_rgb(tmp_path / "image.jpg", image)
    assert np.abs(read_rgb(tmp_path / "image.jpg").astype(int) - image).max() <= 4


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
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.png"), upright)
    assert read_size(tmp_path / "image.png") == (6, 10)
    # a PNG's EXIF may follow its pixels
    content = (tmp_path / "image.png").read_bytes()
    begin = content.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(content[begin : begin + 4], "big")
    moved = content[:begin] + content[end:-12] + content[begin:end] + content[-12:]
    (tmp_path / "late.png").write_bytes(moved)
    np.testing.assert_array_equal(read_rgb(tmp_path / "late.png"), upright)
    assert read_size(tmp_path / "late.png") == (6, 10)


REFUSED = {
    "L": "grey",
    "LA": "grey with alpha",
    "1": "black and white",
    "P": "palette",
    "RGBA": "RGB with alpha",
    "I;16": "16 bits per channel",
}


@pytest.mark.parametrize(("mode", "found"), REFUSED.items())
def test_other_modes_are_refused(tmp_path: Path, mode: str, found: str) -> None:
    path = tmp_path / "image.png"
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)
    else:
        Image.fromarray(noise(8, 8)).convert(mode).save(path)
    with pytest.raises(ImageError) as caught:
        read_rgb(path)
    expected = f"{path}: an image must be one 8-bit RGB picture, but got {found}; convert it first"
    assert str(caught.value) == expected


def test_16_bit_rgb_is_refused(tmp_path: Path) -> None:
    png_by_hand(tmp_path / "deep.png", 4, 3, depth=16)
    with Image.open(tmp_path / "deep.png") as image:
        assert image.mode == "RGB"  # Pillow alone would not say
    with pytest.raises(ImageError, match="but got 16 bits per channel"):
        read_rgb(tmp_path / "deep.png")
    high_bytes = read_rgb(tmp_path / "deep.png", convert=True)[0, 0]
    assert high_bytes.tolist() == [0, 2, 4]


def test_frames_cmyk_and_transparent_colour_are_refused(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise(8, 8, seed)) for seed in (0, 1))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    first.convert("CMYK").save(tmp_path / "print.jpg")
    first.save(tmp_path / "keyed.png", transparency=(1, 2, 3))
    for name, found in (("pages.tif", "2 frames"), ("print.jpg", "CMYK"), ("keyed.png", "transparent")):
        with pytest.raises(ImageError, match=found):
            read_rgb(tmp_path / name)


def test_conversion_on_demand(tmp_path: Path) -> None:
    image = Image.fromarray(noise(8, 8))
    grey = np.asarray(image.convert("L"))
    image.convert("L").save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    image.convert("RGBA").save(tmp_path / "opaque.png")
    see_through = image.convert("RGBA")
    see_through.putalpha(Image.fromarray(grey))
    see_through.save(tmp_path / "see_through.png")
    for name in ("grey.png", "grey16.png"):
        found = read_rgb(tmp_path / name, convert=True)
        np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_rgb(tmp_path / "opaque.png", convert=True), np.asarray(image))
    with pytest.raises(ImageError, match="RGB with alpha"):
        read_rgb(tmp_path / "see_through.png", convert=True)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_truncated_files_are_one_line_errors(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"image{suffix}"
    write_rgb(path, noise(64, 64))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError) as caught:
        read_rgb(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file_folder_and_text(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    for name, words in (("none.png", "must exist"), ("text.png", "must be PNG"), ("", "must")):
        with pytest.raises(ImageError, match=words):
            read_rgb(tmp_path / name)


def test_pixel_limit_is_judged_before_decoding(tmp_path: Path) -> None:
    png_by_hand(tmp_path / "bomb.png", 20_000, 10_000, depth=8)
    write_rgb(tmp_path / "image.png", noise(10, 11))
    for path, limit in ((tmp_path / "bomb.png", 178_956_970), (tmp_path / "image.png", 109)):
        with pytest.raises(ImageError, match=f"at most {limit} pixels"):
            read_rgb(path, max_pixels=limit)
    read_rgb(tmp_path / "image.png", max_pixels=110)


def test_writing_refuses_what_cannot_be_written(tmp_path: Path) -> None:
    for array in (noise().astype(np.float32), noise()[..., :1], noise()[0]):
        with pytest.raises(ImageError, match="of uint8, but got"):
            write_rgb(tmp_path / "image.png", array)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="must end in one of"):
        write_rgb(tmp_path / "image.gif", noise())
    with pytest.raises(ImageError, match="No such file or directory"):
        write_rgb(tmp_path / "none" / "image.png", noise())
    with pytest.raises(ImageError, match="could not be written"):
        write_rgb(tmp_path / "image.webp", np.zeros((4, 20_000, 3), np.uint8))  # WebP ends at 16383
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    old = noise(8, 8)
    write_rgb(path, old)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ImageError, match="File too large"):
            write_rgb(path, noise(300, 300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    np.testing.assert_array_equal(read_rgb(path), old)
    assert [left.name for left in tmp_path.iterdir()] == ["image.png"]


def test_tensors_and_pixels() -> None:
    image = noise()
    tensor = to_tensor(image)
    assert tensor.shape == (3, 40, 56)
    assert float(tensor[1, 5, 7]) == pytest.approx(image[5, 7, 1] / 255)
    np.testing.assert_array_equal(to_pixels(tensor), image)
    levels = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 2.0])
    assert to_pixels(levels[None, None].expand(3, 1, 5))[0, :, 0].tolist() == [0, 0, 1, 254, 255]
