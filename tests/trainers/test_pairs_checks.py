"""What is measured of a pair: against formulas written out, known displacements and other libraries."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from skimage import data

from gpnas_trainers.pairs import Rules, check_folder, ncc, open_pairs, prepare_folder, shift
from gpnas_trainers.pairs.checks import SAME_PHOTOGRAPH, same_photographs, thumbnail
from gpnas_trainers.pairs.splitting import split_pairs


def planar(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def photographs() -> list[np.ndarray]:
    return [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]


def kernel_weights(scale: int, support: float, kernel) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(8, 8·scale): each LR pixel's weights of HR pixels, the kernel stretched by the scale, sums 1."""
    rows = np.zeros((8, 8 * scale))
    for i in range(8):
        centre = (i + 0.5) * scale
        for j in range(8 * scale):
            distance = abs(j + 0.5 - centre) / scale
            rows[i, j] = kernel(distance) if distance < support else 0.0
    return rows / rows.sum(axis=1, keepdims=True)


def keys(t: float) -> float:
    return 1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_ncc_is_the_best_of_three_correlations(scale: int) -> None:
    """Luma by BT.601; HR down by weight matrices written out; correlation by numpy."""
    generator = np.random.default_rng(scale)
    hr = generator.integers(0, 256, (3, 8 * scale, 8 * scale), dtype=np.uint8)
    coefficients = np.array([0.299, 0.587, 0.114])
    y = np.tensordot(coefficients, hr, axes=1)
    for noise in (0, 20, 90):
        for support, kernel in ((0.5, lambda t: 1.0), (2.0, keys), (1.0, lambda t: 1 - t)):
            rows = kernel_weights(scale, support, kernel)
            blurred = rows @ y @ rows.T
            lr = np.clip(blurred + noise * generator.standard_normal((3, 8, 8)), 0, 255).astype(np.uint8)
            expected = []
            for other, form in ((0.5, lambda t: 1.0), (2.0, keys), (1.0, lambda t: 1 - t)):
                down = kernel_weights(scale, other, form)
                pair = np.tensordot(coefficients, lr, axes=1).ravel(), (down @ y @ down.T).ravel()
                expected.append(np.corrcoef(*pair)[0, 1])
            assert ncc(lr, hr, scale) == pytest.approx(max(expected), abs=1e-5)


def test_ncc_sees_neither_brightness_nor_depth_but_shift() -> None:
    hr = planar(data.astronaut()[:200, :200])
    lr = np.rint(hr.reshape(3, 100, 2, 100, 2).mean(axis=(2, 4)))
    assert ncc(lr.astype(np.uint8), hr, 2) > 0.999
    assert ncc((0.5 * lr + 30).astype(np.uint8), hr, 2) > 0.999
    deep = (lr * 257).astype(np.uint16), hr.astype(np.uint16) * 257
    assert ncc(*deep, 2) == pytest.approx(ncc(lr.astype(np.uint8), hr, 2), abs=1e-6)
    assert ncc(np.roll(lr, 2, axis=2).astype(np.uint8), hr, 2) < 0.95
    assert ncc(np.full((3, 100, 100), 7, np.uint8), hr, 2) == 0
    assert ncc(255 - lr.astype(np.uint8), hr, 2) < -0.99


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.25, -0.5), (-1.5, 0.75), (3.0, 2.0)])
def test_shift_is_the_displacement_in_lr_pixels(scale: int, moved: tuple[float, float]) -> None:
    """HR is displaced by a spline of SciPy's, down and right, before it is averaged to LR."""
    for photograph in (data.astronaut()[:400, :400], data.coffee()[:400, :400]):
        hr = planar(photograph)
        far = [each * scale for each in moved]
        away = np.stack([ndimage.shift(channel.astype(float), far, order=3, mode="mirror") for channel in hr])
        lr = away.reshape(3, 400 // scale, scale, 400 // scale, scale).mean(axis=(2, 4))
        found = shift(np.clip(np.rint(lr), 0, 255).astype(np.uint8), hr, scale)
        np.testing.assert_allclose(found, moved, atol=0.1)


def test_shift_of_nothing_is_zero_and_large_images_are_cut() -> None:
    flat = np.full((3, 64, 64), 9, np.uint8)
    assert shift(flat[:, ::2, ::2], flat, 2) == (0.0, 0.0)
    hr = np.tile(planar(data.astronaut()), (1, 3, 3))
    lr = hr.reshape(3, 768, 2, 768, 2).mean(axis=(2, 4)).astype(np.uint8)
    assert np.hypot(*shift(np.roll(lr, (1, -2), axis=(1, 2)), hr, 2) - np.array([1, -2])) < 0.05


def copies(photograph: np.ndarray) -> dict[str, np.ndarray]:
    image = Image.fromarray(photograph)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    width, height = image.size
    return {
        "jpeg": np.asarray(Image.open(file)),
        "smaller": np.asarray(image.resize((width // 2, height // 2), Image.Resampling.BICUBIC)),
        "brighter": np.asarray(ImageEnhance.Brightness(image).enhance(1.15)),
        "cropped": np.asarray(image)[height // 200 :, width // 200 :],
    }


def test_copies_have_the_thumbnail_of_their_photograph() -> None:
    originals = [thumbnail(planar(photograph)) for photograph in photographs()]
    alike = []
    for photograph, original in zip(photographs(), originals, strict=True):
        for copy in copies(photograph).values():
            found = thumbnail(planar(copy))
            assert found is not None
            assert original is not None
            alike.append(np.corrcoef(found.astype(float), original.astype(float))[0, 1])
    assert min(alike) > SAME_PHOTOGRAPH
    rows = np.stack([original.astype(float) for original in originals if original is not None])
    assert np.corrcoef(rows)[np.triu_indices(4, 1)].max() < SAME_PHOTOGRAPH
    assert thumbnail(np.full((3, 50, 50), 200, np.uint8)) is None


@pytest.mark.parametrize("block", [7, 64])
def test_groups_are_the_connected_components(block: int) -> None:
    """Against SciPy's, of the graph of all correlations."""
    generator = np.random.default_rng(0)
    seeds = generator.integers(-100, 101, (12, 256))
    rows = seeds[generator.integers(12, size=60)] + generator.integers(-15, 16, (60, 256))
    rows[40:] = generator.integers(-127, 128, (20, 256))
    rows -= np.rint(rows.mean(axis=1, keepdims=True)).astype(rows.dtype)
    pictures = rows.clip(-127, 127).astype(np.int8)
    unit = pictures / np.linalg.norm(pictures.astype(float), axis=1, keepdims=True)
    count, label = connected_components(coo_matrix(unit @ unit.T >= SAME_PHOTOGRAPH))
    expected = [list(np.flatnonzero(label == each)) for each in range(count)]
    assert same_photographs(pictures, block) == sorted(group for group in expected if len(group) > 1)
    assert count < 60


def test_copies_and_crops_are_on_one_side(tmp_path: Path) -> None:
    """Whatever the seed: a photograph, its JPEG and its half-size copy; and pieces that are cut of one."""
    for side in ("HR", "LRx2"):
        (tmp_path / "pairs" / side).mkdir(parents=True)

    def add(name: str, image: np.ndarray) -> None:
        hr = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        lr = hr.reshape(hr.shape[0] // 2, 2, hr.shape[1] // 2, 2, 3).mean(axis=(1, 3))
        Image.fromarray(hr).save(tmp_path / "pairs" / "HR" / f"{name}.png")
        Image.fromarray(np.rint(lr).astype(np.uint8)).save(tmp_path / "pairs" / "LRx2" / f"{name}.png")

    for number, photograph in enumerate(photographs()):
        small = photograph[:240, :240]
        add(f"{number}", small)
        add(f"again{number}", copies(small)["jpeg"])
        add(f"half{number}", copies(small)["smaller"])
    for piece in range(3):
        add(f"gravel_s00{piece}", np.stack([np.roll(data.gravel(), 99 * piece)[:100, :100]] * 3, axis=2))
    whole = {frozenset((f"{n}", f"again{n}", f"half{n}")) for n in range(4)}
    whole.add(frozenset(f"gravel_s00{piece}" for piece in range(3)))
    checked = check_folder(tmp_path / "pairs", 2, Rules(minimum_ncc=0.9))
    assert checked.split is not None
    assert set(map(frozenset, checked.split.groups)) == whole
    sizes = set()
    for seed in range(6):
        folder = prepare_folder(tmp_path / "pairs", tmp_path / "cache", 2, Rules(seed=seed))
        train, validation = (set(open_pairs(folder, side).names) for side in ("train", "validation"))
        assert train
        assert validation
        assert all(group <= train or group <= validation for group in whole)
        sizes.add(len(validation))
    assert sizes == {3}  # a fifth of 15, and every photograph counts three


def test_split_by_hand() -> None:
    """Without groups: the lowest hashes of seed and pixels, as many as are due."""
    from hashlib import sha256

    names = [f"n{index}" for index in range(40)]
    pixels = [sha256(name.encode()).hexdigest() for name in names]
    split = split_pairs(names, pixels, [None] * 40, seed=3, fraction=0.2, limit=10)
    order = sorted(range(40), key=lambda index: sha256(f"3:{pixels[index]}".encode()).digest())
    assert set(split.validation) == {names[index] for index in order[:8]}
    assert set(split.train) == {names[index] for index in order[8:]}
    together = [f"scene_patch{index}" for index in range(5)]
    split = split_pairs(together, pixels[:5], [None] * 5, seed=0, fraction=0.2, limit=10)
    assert split.train == ()  # one photograph cannot be split
