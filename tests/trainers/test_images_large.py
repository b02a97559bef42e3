"""Large images: read and written by rows, as Pillow and tifffile read and write them at once."""

from __future__ import annotations

import itertools
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
import torch
from PIL import Image, ImageCms

from gpnas_trainers.images import (
    ImageError,
    Metadata,
    bits_of,
    check_target,
    decoding,
    encoding,
    jpeg,
    read_header,
    read_levels,
    reading,
    tiff,
    writing,
)
from gpnas_trainers.images.header import MAX_PIXELS

HEIGHT, WIDTH = 83, 57


def noise(bits: int = 8, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    kind = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(bits).integers(0, 2**bits, (height, width, 3), dtype=kind)


def interlaced(path: Path, image: np.ndarray) -> None:
    pyvips.Image.new_from_array(image).copy(interpretation="srgb").pngsave(str(path), interlace=True)


def saved(path: Path, image: np.ndarray, **options: Any) -> None:
    Image.fromarray(image).save(path, **options)


FILES: dict[str, Callable[[Path], object]] = {
    "plain.png": lambda path: saved(path, noise()),
    "interlaced.png": lambda path: interlaced(path, noise()),
    "plain.jpg": lambda path: saved(path, noise(), quality=95),
    "progressive.jpg": lambda path: saved(path, noise(), progressive=True),
    "strips.tif": lambda path: saved(path, noise(), compression="tiff_deflate"),
    "one_strip.tif": lambda path: tifffile.imwrite(path, noise(), photometric="rgb"),
    "big.tif": lambda path: tifffile.imwrite(path, noise(), photometric="rgb", bigtiff=True),
    "tiles.tif": lambda path: tifffile.imwrite(
        path, noise(), photometric="rgb", tile=(32, 16), compression="zlib"
    ),
    "lossless.webp": lambda path: saved(path, noise(), lossless=True),
    "lossy.webp": lambda path: saved(path, noise()),
    "plain.bmp": lambda path: saved(path, noise()),
    "deep.tif": lambda path: tifffile.imwrite(path, noise(16), photometric="rgb", compression="zlib"),
    "deep_other_order.tif": lambda path: tifffile.imwrite(
        path, noise(16), photometric="rgb", byteorder=">", tile=(16, 16)
    ),
    "deep.png": lambda path: pyvips.Image.new_from_array(noise(16)).pngsave(str(path)),
}


def by_rows(path: Path, step: int = 7) -> np.ndarray:
    with reading(path) as image:
        edges = [*range(0, image.height, step), image.height]
        return np.concatenate([image.levels(start, stop) for start, stop in itertools.pairwise(edges)])


def refused(path: Path) -> str:
    """The words of a refusal."""
    with pytest.raises(ImageError) as error, reading(path):
        raise AssertionError("refused before anything is read")
    return str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_rows_are_those_of_the_whole_image(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    found, expected = by_rows(tmp_path / name), read_levels(tmp_path / name)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    with reading(tmp_path / name) as image:  # of which the rest is not wanted
        assert (image.height, image.width, image.bits) == (HEIGHT, WIDTH, 8 * expected.itemsize)
        np.testing.assert_array_equal(image.rows(0, 11).numpy(), expected[:11].transpose(2, 0, 1))
    assert all(thread.name != "decoder" for thread in threading.enumerate())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    saved(tmp_path / f"turned{suffix}", noise(), exif=exif)
    found = by_rows(tmp_path / f"turned{suffix}")
    np.testing.assert_array_equal(found, read_levels(tmp_path / f"turned{suffix}"))
    header = read_header(tmp_path / f"turned{suffix}")
    assert found.shape[:2] == (header.height, header.width)


@pytest.mark.parametrize("name", [name for name in FILES if name != "plain.bmp"])
def test_truncated_files_are_one_line_errors(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for share in (0.3, 0.9):
        (tmp_path / name).write_bytes(content[: int(share * len(content))])
        told = refused(tmp_path / name)
        assert told.startswith(f"{tmp_path / name}: an image must ")
        assert "\n" not in told


@pytest.mark.parametrize("name", ["plain.png", "interlaced.png", "strips.tif", "tiles.tif", "deep.png"])
def test_a_wrong_byte_of_compressed_pixels_is_found(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / name).write_bytes(content)
    assert "an image must decode in full, but it is damaged or truncated" in refused(tmp_path / name)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "image.png", noise(8, 900, 700))
    sound = decoding._sound

    def cut_short(path: Path, header: Any, file: Any) -> Any:
        image = sound(path, header, file)
        path.write_bytes(path.read_bytes()[:900_000])
        return image

    monkeypatch.setattr(decoding, "_sound", cut_short)
    with pytest.raises(ImageError, match=r"is damaged or truncated \(it ends early\); copy it again"):
        by_rows(tmp_path / "image.png")


def test_only_rgb_is_read(tmp_path: Path) -> None:
    for mode, found in (("L", "grey"), ("RGBA", "RGB with alpha"), ("P", "palette")):
        Image.new(mode, (8, 8)).save(tmp_path / "image.png")
        assert f"must be one RGB picture, but got {found}; convert it first" in refused(
            tmp_path / "image.png"
        )
    Image.new("CMYK", (8, 8)).save(tmp_path / "image.jpg")
    assert "but got CMYK" in refused(tmp_path / "image.jpg")
    pages = [Image.new("RGB", (8, 8)) for _ in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert "but got 2 frames or pages" in refused(tmp_path / "pages.tif")


def test_more_pixels_than_pillow_reads(tmp_path: Path) -> None:
    shape = (10_000, 20_000, 3)
    assert shape[0] * shape[1] > MAX_PIXELS
    pixels = tifffile.memmap(tmp_path / "large.tif", shape=shape, dtype=np.uint8, photometric="rgb")
    pixels[1] = expected = noise(8, 1, shape[1])[0]
    pixels.flush()
    with reading(tmp_path / "large.tif") as image:
        assert (image.height, image.width) == shape[:2]
        np.testing.assert_array_equal(image.levels(0, 3), np.stack([0 * expected, expected, 0 * expected]))
    with pytest.raises(ImageError, match="must have at most 178956970 pixels, but got 20000×10000"):
        check_target(tmp_path / "image.bmp", *shape[:2], 8)


def test_what_is_held_whole_must_fit_the_memory(tmp_path: Path) -> None:
    """Told from the header, before anything is decoded."""
    path = tmp_path / "image.png"
    interlaced(path, noise())
    content = bytearray(path.read_bytes())
    content[16:24] = (10**6).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    told = refused(path)
    assert told.startswith(
        f"{path}: the memory must have room for 1000000×1000000 pixels, 2861022 MiB, since an interlaced PNG "
        "is held whole, but "
    )
    assert told.endswith(" MiB are free; take a PNG that is not interlaced, or a TIFF")


def blocks(image: np.ndarray, sizes: tuple[int, ...] = (1, 30, 52)) -> Iterator[torch.Tensor]:
    yield from torch.from_numpy(image).permute(2, 0, 1).split(sizes, dim=1)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF", ".webp", ".bmp"])
def test_what_is_written_is_read_by_others(tmp_path: Path, suffix: str, bits: int) -> None:
    path = tmp_path / f"image{suffix}"
    if bits_of(path, bits) < bits:
        return
    image = noise(bits)
    with writing(path, HEIGHT, WIDTH, bits) as write:
        for rows in blocks(image):
            write(rows)
    found = tifffile.imread(path) if suffix.lower().startswith(".tif") else read_levels(path)
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, image)
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_jpeg_is_close_in_every_channel(tmp_path: Path) -> None:
    ramp = np.arange(64, dtype=np.uint8)
    image = np.stack(np.broadcast_arrays(3 * ramp[:, None], 3 * ramp, 255 - 3 * ramp), axis=-1)
    with writing(tmp_path / "image.jpg", 64, 64, 8) as write:
        write(torch.from_numpy(image).permute(2, 0, 1))
    with Image.open(tmp_path / "image.jpg") as found:
        assert np.abs(np.asarray(found).astype(int) - image).max() <= 4
        assert [layer[1:3] for layer in found.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("rows", [1, 7, 30, HEIGHT])
def test_strips_of_a_tiff_are_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, bits: int
) -> None:
    """Rows may come in both orders: many for a strip, and many strips for some rows."""
    monkeypatch.setattr(tiff, "STRIP_BYTES", rows * WIDTH * 3 * bits // 8 + 1)
    path, image = tmp_path / "image.tif", noise(bits)
    for big in (False, True):
        monkeypatch.setattr(encoding, "_BIG", 0 if big else 1 << 32)
        with writing(path, HEIGHT, WIDTH, bits) as write:
            for part in blocks(image):
                write(part)
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            assert file.is_bigtiff == big
            assert page.rowsperstrip == rows
            assert len(page.dataoffsets) == -(-HEIGHT // rows)
            assert all(place % 2 == 0 for place in page.dataoffsets)
            np.testing.assert_array_equal(page.asarray(), image)
        np.testing.assert_array_equal(read_levels(path), image)
        np.testing.assert_array_equal(by_rows(path), image)


@pytest.mark.parametrize("rows", [1, 8, 31, 500])
def test_strips_of_a_jpeg_are_what_pillow_makes_of_the_image_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Eight strips and more, so that restart markers begin anew, with a last one that is cut."""
    monkeypatch.setattr(jpeg, "STRIP_BYTES", rows * WIDTH * 3)
    image = noise()
    with writing(tmp_path / "image.jpg", HEIGHT, WIDTH, 8) as write:
        for part in blocks(image):
            write(part)
    saved(tmp_path / "whole.jpg", image, quality=95, subsampling=0)
    expected = read_levels(tmp_path / "whole.jpg")
    np.testing.assert_array_equal(read_levels(tmp_path / "image.jpg"), expected)
    np.testing.assert_array_equal(by_rows(tmp_path / "image.jpg"), expected)
    content = (tmp_path / "image.jpg").read_bytes()
    markers = re.findall(rb"\xff([\xd0-\xd7])", content[content.index(b"\xff\xda") :])
    strips = -(-HEIGHT // (8 * max(1, rows // 8)))
    assert markers == [bytes([0xD0 + place % 8]) for place in range(strips - 1)]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_the_colour_profile_is_kept(tmp_path: Path, suffix: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    saved(tmp_path / f"lr{suffix}", noise(), icc_profile=profile)
    with reading(tmp_path / f"lr{suffix}") as image:
        assert image.metadata.profile == profile
        rows = image.rows(0, HEIGHT)
    with writing(tmp_path / f"sr{suffix}", HEIGHT, WIDTH, 8, Metadata(profile)) as write:
        write(rows)
    with Image.open(tmp_path / f"sr{suffix}") as written:
        assert written.info["icc_profile"] == profile
    with writing(tmp_path / f"none{suffix}", HEIGHT, WIDTH, 8) as write:
        write(rows)
    with Image.open(tmp_path / f"none{suffix}") as written:
        assert "icc_profile" not in written.info


def test_large_tiffs_have_64_bit_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for big in (False, True):
        monkeypatch.setattr(encoding, "_BIG", HEIGHT * WIDTH * 3 - big)
        with writing(tmp_path / "image.tif", HEIGHT, WIDTH, 8) as write:
            write(next(blocks(noise(), (HEIGHT,))))
        with tifffile.TiffFile(tmp_path / "image.tif") as file:
            assert file.is_bigtiff == big
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "image.tif"), noise())


@pytest.mark.parametrize(
    ("name", "height", "width", "words"),
    [
        ("a.jpg", 3, 65_501, "a JPEG file's sides must be at most 65500 pixels, but got 65501×3; write PNG"),
        ("a.webp", 16_384, 3, "a WebP file's sides must be at most 16383 pixels, .*; write PNG or TIFF inst"),
        ("a.png", 3, 1_000_001, "a PNG file's sides must be at most 1000000 pixels, .*; cut the image into"),
        ("a.tif", 10**6, 10**6, r"must have room for 1000000×1000000 pixels, some \d+ MiB before they are"),
        (
            "a.gif",
            3,
            3,
            "must end in one of .png, .jpg, .jpeg, .jfif, .webp, .*, but got '.gif'",
        ),
    ],
)
def test_what_a_format_or_the_disk_cannot_hold(
    tmp_path: Path, name: str, height: int, width: int, words: str
) -> None:
    with pytest.raises(ImageError, match=words), writing(tmp_path / name, height, width, 8):
        raise AssertionError("refused before anything is made")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError, ImageError])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".bmp"])
def test_what_ends_the_loop_comes_out_as_itself(
    tmp_path: Path, suffix: str, kind: type[BaseException]
) -> None:
    (tmp_path / f"image{suffix}").write_bytes(b"old")
    raised = kind("the loop ends here")

    def fill() -> None:
        with writing(tmp_path / f"image{suffix}", HEIGHT, WIDTH, 8) as write:
            write(torch.zeros(3, 40, WIDTH, dtype=torch.uint8))
            raise raised

    with pytest.raises(kind, match="the loop ends here") as caught:
        fill()
    assert caught.value is raised
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    assert not any(thread.name.startswith("encoder") for thread in threading.enumerate())


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with (
        pytest.raises(ImageError, match=r"could not be written \(No such file or directory\)"),
        writing(tmp_path / "none" / "a.png", 9, 9, 8) as write,
    ):
        write(torch.zeros(3, 9, 9, dtype=torch.uint8))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".bmp"])
def test_a_full_disk_is_one_line_and_leaves_no_file(small_disk: Path, suffix: str) -> None:
    values = next(blocks(noise(8, 1000, 1000), (1000,)))
    path = small_disk / f"image{suffix}"

    def fill() -> None:
        with writing(path, 1000, 1000, 8) as write:
            for rows in values.split(100, dim=1):
                write(rows)

    with pytest.raises(ImageError) as error:
        fill()
    assert str(error.value) == (
        f"{path}: the image could not be written, since the disk is full; free some space or choose another "
        "folder"
    )
    assert not list(small_disk.iterdir())


def filtered(kind: int, row: list[int], above: list[int], step: int) -> list[int]:
    """The standard's text, byte by byte (Sec. 9.2)."""
    found = []
    for place, x in enumerate(row):
        a = row[place - step] if place >= step else 0
        b = above[place]
        c = above[place - step] if place >= step else 0
        p = a + b - c
        paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        found.append((x - [0, a, b, (a + b) // 2, paeth][kind]) % 256)
    return found


@pytest.mark.parametrize("bits", [8, 16])
def test_rows_of_a_png_are_filtered_as_its_standard_advises(tmp_path: Path, bits: int) -> None:
    generator = np.random.default_rng(0)
    far = generator.integers(0, 2**bits, (60, 3))
    smooth = np.cumsum(generator.integers(0, 3, (60, 3)), axis=0)
    image = np.stack([far, smooth, far, far + 1, smooth + far, smooth + far + 9, 0 * far, smooth]) % 2**bits
    image = image.astype(np.uint8 if bits == 8 else np.uint16)
    with writing(tmp_path / "image.png", len(image), 60, bits) as write:
        write(next(blocks(image, (len(image),))))
    content = (tmp_path / "image.png").read_bytes()
    packed, place = b"", 8
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] == b"IDAT":
            packed += content[place + 8 : place + 8 + size]
        place += 12 + size
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(len(image), -1).tolist()
    raw = image.astype(f">u{bits // 8}").view(np.uint8).reshape(len(image), -1).tolist()
    for line, row, above in zip(lines, raw, [[0] * len(raw[0]), *raw[:-1]], strict=True):
        each = [filtered(kind, row, above, 3 * bits // 8) for kind in range(5)]
        sums = [sum(min(value, 256 - value) for value in found) for found in each]
        assert line[0] == sums.index(min(sums))
        assert line[1:] == each[line[0]]
    assert {line[0] for line in lines} >= {0, 1, 2, 4}
