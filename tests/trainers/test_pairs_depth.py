"""16-bit images: read to the last bit, kept to the last bit, scaled in patches."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from gpnas_trainers.images import ImageError, read_header, read_levels
from gpnas_trainers.pairs import Camera, open_pairs, prepare_folder


def deep(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, (height, width, 3), dtype=np.uint16)


def write_png16(path: Path, image: np.ndarray, *, colour: int = 2) -> None:
    """A PNG of 16 bits by the standard's text, its rows filtered by all five filters in turn."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width, channels = image.shape
    step = 2 * channels
    raw = image.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    rows = b""
    above = np.zeros(raw.shape[1] + step, int)
    for number, line in enumerate(raw):
        here = np.concatenate([np.zeros(step, int), line])
        left, up, corner = here[:-step], above[step:], above[:-step]
        guess = left + up - corner
        distances = np.stack([abs(guess - left), abs(guess - up), abs(guess - corner)])
        paeth = np.choose(distances.argmin(axis=0), [left, up, corner])
        predicted = [np.zeros_like(line), left, up, (left + up) // 2, paeth][number % 5]
        rows += bytes([number % 5]) + ((line - predicted) % 256).astype(np.uint8).tobytes()
        above = here
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_png_of_16_bits(tmp_path: Path) -> None:
    image = deep(23, 17, 0)
    write_png16(tmp_path / "deep.png", image)
    found = read_levels(tmp_path / "deep.png")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, image)
    header = read_header(tmp_path / "deep.png")
    assert (header.height, header.width, header.bits) == (23, 17, 16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"byteorder": "<"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "byteorder": ">"},
        {"tile": (16, 16)},
        {"rowsperstrip": 5},
        {"planarconfig": "separate"},
    ],
    ids=str,
)
def test_tiff_of_16_bits(tmp_path: Path, options: dict[str, object]) -> None:
    """Written, and read for comparison, by tifffile."""
    image = deep(37, 53, 1)
    stored = image.transpose(2, 0, 1).copy() if "planarconfig" in options else image
    tifffile.imwrite(tmp_path / "deep.tif", stored, photometric="rgb", **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "deep.tif"), stored)
    np.testing.assert_array_equal(read_levels(tmp_path / "deep.tif"), image)


def test_8_bits_stay_8(tmp_path: Path) -> None:
    image = (deep(9, 11, 2) >> 8).astype(np.uint8)
    for name in ("a.png", "a.tif", "a.webp"):
        Image.fromarray(image).save(tmp_path / name, lossless=True)
        found = read_levels(tmp_path / name)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, image)


def test_what_is_refused_of_16_bits(tmp_path: Path) -> None:
    image = deep(16, 16, 3)
    write_png16(tmp_path / "grey.png", image[..., :1], colour=0)
    write_png16(tmp_path / "alpha.png", np.concatenate([image, image[..., :1]], axis=2), colour=6)
    tifffile.imwrite(tmp_path / "floats.tif", image.astype(np.float32), photometric="rgb")
    for name, words in (
        ("grey.png", "16 bits"),
        ("alpha.png", "16 bits"),
        ("floats.tif", "32 bits per channel"),
    ):
        with pytest.raises(ImageError, match=words):
            read_levels(tmp_path / name)
    write_png16(tmp_path / "whole.png", image)
    (tmp_path / "whole.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    with pytest.raises(ImageError, match="must decode in full"):
        read_levels(tmp_path / "whole.png")


def make_folder(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of all depths: LR and HR of 16 bits, one of each, and both of 8; scale 2."""
    stored = {}
    for folder in ("HR", "LR"):
        (root / folder).mkdir(parents=True)
    for number, depths in enumerate(((16, 16), (8, 16), (16, 8), (8, 8), (16, 16))):
        images = []
        for side, bits, folder in zip((25, 50), depths, ("LR", "HR"), strict=True):
            image = deep(side, side + 2 * (side // 25), 10 * number + bits)
            if bits == 8:
                image = (image >> 8).astype(np.uint8)
                Image.fromarray(image).save(root / folder / f"{number}.png")
            elif number % 2:
                tifffile.imwrite(root / folder / f"{number}.tif", image, photometric="rgb")
            else:
                write_png16(root / folder / f"{number}.png", image)
            images.append(image)
        stored[f"{number}"] = (images[0], images[1])
    return stored


def test_pairs_of_mixed_depths(tmp_path: Path) -> None:
    truth = make_folder(tmp_path / "pairs")
    folder = prepare_folder(tmp_path / "pairs", tmp_path / "cache", 2)
    train, validation = (open_pairs(folder, side, verify=True) for side in ("train", "validation"))
    assert sorted(train.names + validation.names) == list("01234")
    units: dict[str, list[np.ndarray]] = {}
    for pairs in (train, validation):
        for index, name in enumerate(pairs.names):
            for kept, given, seen in zip(pairs.stored(index), truth[name], pairs.image(index), strict=True):
                assert kept.dtype == given.dtype
                np.testing.assert_array_equal(kept.transpose(1, 2, 0), given)
                # what evaluation divides by 255 is the share of full scale
                unit = given.astype(np.float64) / np.iinfo(given.dtype).max
                share = (torch.from_numpy(seen).float() / 255).numpy().transpose(1, 2, 0)
                np.testing.assert_allclose(share, unit, atol=1e-6)
                units.setdefault(name, []).append(unit.transpose(2, 0, 1))
    lr, hr = train.patches(100, 50, np.random.default_rng(0))
    assert lr.dtype == hr.dtype == torch.float32
    found = set()
    for row in range(100):
        for name in train.names:
            small, large = units[name]
            for start, turns, mirrored in itertools.product(range(3), range(4), (False, True)):
                cut = small[:, :, start : start + 25], large[:, :, 2 * start : 2 * start + 50]
                ways = [np.rot90(each, turns, axes=(1, 2)) for each in cut]
                ways = [each[:, :, ::-1] if mirrored else each for each in ways]
                if abs(lr[row].numpy() - ways[0]).max() < 1e-6:
                    assert abs(hr[row].numpy() - ways[1]).max() < 1e-6
                    found.add((row, name))
    assert len(found) == 100
    assert {name for _, name in found} == set(train.names)


def test_synthetic_pairs_of_hr_alone(tmp_path: Path) -> None:
    """A camera without blur and noise gives the mean of each cell, at the depth of each photograph."""
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    images = {f"trip/{index}": deep(61, 50 + index, index) for index in range(3)}
    images["day"] = (deep(64, 48, 9) >> 8).astype(np.uint8)
    for name, image in images.items():
        if image.dtype == np.uint8:
            Image.fromarray(image).save(tmp_path / "photos" / f"{name}.png")
        else:
            write_png16(tmp_path / "photos" / f"{name}.png", image)
    quiet = Camera((0.0, 0.0), (0.0, 0.0))
    folder = prepare_folder(tmp_path / "photos", tmp_path / "cache", 3, camera=quiet)
    names: list[str] = []
    for side in ("train", "validation"):
        pairs = open_pairs(folder, side, verify=True)
        names += pairs.names
        for index, name in enumerate(pairs.names):
            lr, hr = pairs.stored(index)
            height, width = (side // 3 for side in images[name].shape[:2])
            whole = images[name][: 3 * height, : 3 * width]
            np.testing.assert_array_equal(hr.transpose(1, 2, 0), whole)
            expected = whole.reshape(height, 3, width, 3, 3).mean(axis=(1, 3))
            assert lr.dtype == whole.dtype
            np.testing.assert_array_equal(lr.transpose(1, 2, 0), np.rint(expected))
    assert sorted(names) == sorted(images)
    noisy = Camera((0.0, 0.0), (5.0, 5.0))
    other = prepare_folder(tmp_path / "photos", tmp_path / "cache", 3, camera=noisy)
    assert other != folder
    lr, hr = open_pairs(other, "train").stored(0)
    means = hr.reshape(3, lr.shape[1], 3, lr.shape[2], 3).mean(axis=(2, 4))
    inside = (means > 0.1 * np.iinfo(hr.dtype).max) & (means < 0.9 * np.iinfo(hr.dtype).max)
    levels = np.iinfo(hr.dtype).max / 255
    assert (lr - means)[inside].std() / levels == pytest.approx(5, rel=0.15)
