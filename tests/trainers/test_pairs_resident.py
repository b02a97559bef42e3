"""Patches read from a device's flat memory are those that are cut from the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gpnas_trainers.pairs import PairSet, Rules, open_pairs, prepare_folder
from gpnas_trainers.pairs.prepared import dihedral
from gpnas_trainers.pairs.resident import ResidentPairs, resident, strided
from tests.trainers.test_pairs_depth import write_png16


def test_strides_read_each_turned_crop() -> None:
    """Against NumPy's own slicing, flips and transposes."""
    image = np.arange(3 * 11 * 7).reshape(3, 11, 7)
    for transform in range(8):
        start, strides = strided(np.array([[11, 7]]), np.array([[4, 2]]), np.array([transform]), 5)
        places = start[0] + sum(
            stride * axis for stride, axis in zip(strides[0], np.ogrid[:3, :5, :5], strict=True)
        )
        expected = dihedral(image[:, 4:9, 2:7], transform)
        np.testing.assert_array_equal(image.reshape(-1)[places], expected)


def folder_of(tmp_path: Path, deep: bool) -> PairSet:
    generator = np.random.default_rng(0)
    for name in ("HR", "LRx3"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
    for number, (height, width) in enumerate([(20, 17), (16, 30), (25, 25)]):
        for name, scale in (("HR", 3), ("LRx3", 1)):
            path = tmp_path / "pairs" / name / f"{number}.png"
            shape = (scale * height, scale * width, 3)
            if deep and number != 1:  # one image of 8 bits among those of 16
                write_png16(path, generator.integers(0, 65536, shape, dtype=np.uint16))
            else:
                Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(path)
    folder = prepare_folder(tmp_path / "pairs", tmp_path / "cache", 3, Rules(validation_fraction=0.34))
    return open_pairs(folder, "train")


@pytest.mark.parametrize("deep", [False, True])
def test_a_resident_set_gives_the_same_patches(tmp_path: Path, deep: bool) -> None:
    pairs = folder_of(tmp_path, deep)
    there = ResidentPairs(pairs, "cpu")
    for seed, rows in [(0, slice(None)), (1, slice(3, 9))]:
        drawn = [each.patches(16, 45, np.random.default_rng(seed), rows=rows) for each in (pairs, there)]
        for own, resident_own in zip(*drawn, strict=True):
            torch.testing.assert_close(resident_own, own, rtol=0, atol=0)


def test_on_a_cpu_pairs_stay_in_their_files(tmp_path: Path) -> None:
    pairs = folder_of(tmp_path, False)
    assert resident(pairs, "cpu") is pairs


@pytest.mark.gpu
def test_on_a_gpu_pairs_that_fit_are_resident(tmp_path: Path) -> None:
    pairs = folder_of(tmp_path, True)
    there = resident(pairs, "cuda")
    assert isinstance(there, ResidentPairs)
    for on_gpu, own in zip(
        there.patches(8, 45, np.random.default_rng(0)),
        pairs.patches(8, 45, np.random.default_rng(0)),
        strict=True,
    ):
        assert on_gpu.is_cuda
        torch.testing.assert_close(on_gpu.cpu(), own, rtol=1e-6, atol=1e-6)
