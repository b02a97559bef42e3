"""What is kept of residuals: their products against float64, former versions' files, damaged ones."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gpnas.run.products import _read, _write
from gpnas.run.residuals import (
    ERRORS_FILE,
    ResidualError,
    error_correlations,
    packed,
    residual_products,
    unpacked,
    write_errors,
)
from gpnas.run.storage import Folder
from gpnas_trainers import build
from gpnas_trainers.pairs import PairSet, open_pairs, prepare_photographs

NAMES = ("c0000", "c0001", "c0002")


@pytest.fixture(scope="module")
def pairs(cache: Path) -> PairSet:
    return open_pairs(prepare_photographs(cache, 2), "validation").head(3)


@pytest.fixture(scope="module")
def networks() -> list[nn.Module]:
    """Three that add to the bicubic image what random weights make of it; the last adds hardly anything."""
    made = []
    for seed, (family, axes, noise) in enumerate(
        [
            ("drn", {"features": 8, "blocks": 1, "stages": 2}, 0.005),
            ("rcan", {"features": 16, "groups": 1, "blocks": 1, "image_skip": True}, 0.01),
            ("drn", {"features": 8, "blocks": 2, "stages": 1}, 0.0005),
        ]
    ):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build(family, 2, **axes)
            with torch.no_grad():
                for weight in network.parameters():
                    weight.add_(torch.randn_like(weight), alpha=noise)
        made.append(network)
    return made


@pytest.fixture(scope="module")
def residuals(pairs: PairSet, networks: list[nn.Module]) -> list[Tensor]:
    """SR - HR of each image, (n, values) float64."""
    images = []
    for index in range(len(pairs)):
        lr, hr = (each[None] for each in pairs.tensors(index))
        with torch.no_grad():
            outputs = [network.eval()(lr).clamp(0, 1) for network in networks]
        images.append(torch.stack([(sr.double() - hr.double()).flatten() for sr in outputs]))
    return images


@pytest.fixture(scope="module")
def written(home: Path, pairs: PairSet, networks: list[nn.Module]) -> Path:
    storage = Folder(home / "run")
    for name, network in zip(NAMES, networks, strict=True):
        write_errors(storage, f"candidates/{name}", network, pairs)
    return home / "run"


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "run"))


def files_of(run: Path) -> list[Path]:
    return [run / "candidates" / each / ERRORS_FILE for each in NAMES]


def products(residuals: list[Tensor]) -> Tensor:
    return torch.stack([each @ each.T / each.shape[1] for each in residuals])


def worst(found: Tensor, expected: Tensor) -> float:
    """The largest error of a product of two residuals, relative to how large the two are."""
    size = expected.diagonal(dim1=1, dim2=2).sqrt()
    return float(((found - expected) / (size[:, :, None] * size[:, None, :])).abs().max())


def test_products_are_those_of_the_residuals_as_closely_as_by_float16(
    written: Path, residuals: list[Tensor]
) -> None:
    expected = products(residuals)
    found = torch.from_numpy(residual_products(files_of(written)))
    halves = products([each.half().double() for each in residuals])
    assert worst(found, expected) < 1e-5
    assert worst(halves, expected) < 1e-5
    square = found.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(square, expected.diagonal(dim1=1, dim2=2), rtol=1e-7, atol=0)
    for weights in ([1 / 3] * 3, [0.5, 0.5, 0], [0.2, 0.3, 0.5]):
        w = torch.tensor(weights, dtype=torch.float64)
        error = torch.stack([(w @ each).square().mean() for each in residuals]).mean()
        assert float(w @ found.mean(dim=0) @ w) == pytest.approx(float(error), rel=2e-6)
    np.testing.assert_allclose(residual_products(files_of(written), 2), found[:, :, 2:], rtol=1e-12)


def test_they_are_kept_in_less_than_what_float16_takes(written: Path, residuals: list[Tensor]) -> None:
    values = sum(each.shape[1] for each in residuals)
    for file in files_of(written):
        assert file.stat().st_size < 1.4 * values  # of 2 bytes each


def test_correlations_are_those_of_the_residuals(run: Path, residuals: list[Tensor]) -> None:
    mean = products(residuals).mean(dim=0)
    expected = {
        NAMES[other]: pytest.approx(
            float(mean[1, other] / (mean[1, 1] * mean[other, other]).sqrt()), rel=1e-5
        )
        for other in (0, 2)
    }
    storage = Folder(run)
    assert error_correlations(storage, "candidates/c0001") == expected
    (run / "candidates/c0000" / ERRORS_FILE).write_bytes(b"torn")
    assert error_correlations(storage, "candidates/c0001") == {"c0002": expected["c0002"]}


def test_the_largest_differences_there_are_can_be_packed() -> None:
    for extreme in (1.0, -1.0, 0.0):
        np.testing.assert_allclose(unpacked(packed(np.full(500, extreme)), 500), extreme, atol=1e-9)
    values = np.random.default_rng(0).uniform(-1, 1, 5000)
    assert np.abs(unpacked(packed(values), 5000) - values).max() <= 1 / 255 / 32 / 2 + 1e-12


def rewritten(file: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        images = json.loads(opened.metadata()["images"])
    change(tensors, images)
    save_file(tensors, file, {"images": json.dumps(images)})


def bomb(tensors: dict[str, Tensor], images: dict[str, Any]) -> None:
    """A part that would unpack to a gigabyte."""
    deflate = zlib.compressobj()
    data = b"".join(deflate.compress(bytes(2**20)) for _ in range(2**10)) + deflate.flush()
    tensors["0000.0000"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)


def flipped(tensors: dict[str, Tensor], images: dict[str, Any]) -> None:
    tensors["0000.0000"][len(tensors["0000.0000"]) // 2] ^= 1


def shortened(tensors: dict[str, Tensor], images: dict[str, Any]) -> None:
    tensors["0000.0000"] = torch.frombuffer(bytearray(packed(np.zeros(768))), dtype=torch.uint8)


DAMAGES: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, Any]], Any], str]] = {
    "a flipped bit": (flipped, "numbers"),
    "a bomb": (bomb, "packed numbers are not [0-9]+"),
    "too few numbers": (shortened, "packed numbers are not [0-9]+"),
    "no part": (lambda tensors, images: tensors.pop("0001.0000"), "0001.0000"),
    "another type": (
        lambda tensors, images: tensors.update({"0000.0000": tensors["0000.0000"].float()}),
        "are of float32",
    ),
    "no image": (lambda tensors, images: images.pop("0001"), "of other images than those in"),
    "another image": (
        lambda tensors, images: images["0001"].update(common=images["0001"]["common"] * 1.01),
        "of other images than those in",
    ),
    "an endless image": (
        lambda tensors, images: images["0000"].update(count=10**12),
        "not those of an image",
    ),
    "another count": (lambda tensors, images: images["0000"].update(count=7), "of other images"),
    "no number": (
        lambda tensors, images: images["0000"].update(with_common=float("nan")),
        "not those of an image",
    ),
    "text": (lambda tensors, images: images["0000"].update(square="much"), "could not convert"),
    "no image's record": (lambda tensors, images: images.update({"0000": None}), "subscriptable"),
    "a list": (lambda tensors, images: images.update({"0000": []}), "indices"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused_in_one_line(run: Path, damage: str) -> None:
    change, told = DAMAGES[damage]
    rewritten(files_of(run)[2], change)
    with pytest.raises(ResidualError, match=told) as caught:
        residual_products(files_of(run))
    message = str(caught.value)
    assert message.startswith(f"{files_of(run)[2]}: a trained network's residuals must be as they were")
    assert message.endswith("which makes it anew")
    assert len(message.splitlines()) == 1


def test_a_count_that_all_files_claim_is_not_believed_beyond_its_parts(run: Path) -> None:
    for file in files_of(run):
        rewritten(file, lambda tensors, images: images["0000"].update(count=2**32))
    with pytest.raises(ResidualError, match="packed numbers are not"):
        residual_products(files_of(run))


def test_what_is_no_regular_file_is_named_at_once(run: Path) -> None:
    pipe, link, _ = files_of(run)
    outside = link.rename(run / "outside")
    link.symlink_to(outside)
    with pytest.raises(ResidualError, match=f"{link}: .* is a link"):
        residual_products(files_of(run))
    pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(ResidualError, match=f"{pipe}: .* is a pipe"):
        residual_products(files_of(run))


def test_never_more_is_unpacked_than_asked_for() -> None:
    data = packed(np.zeros(3 * 1600 * 1600))
    assert len(data) * 100 < 3 * 1600 * 1600
    with pytest.raises(ValueError, match="packed numbers are not 768"):
        unpacked(data, 768)


def test_products_on_a_full_disk_are_left_out_and_nothing_is_left(small_disk: Path) -> None:
    """They are a cache: whoever reads a run on a full disk is not disturbed."""
    names = [f"c{number:04d}" for number in range(200)]
    _write(small_disk / "products.safetensors", names, np.ones((10, 200, 200)))  # 3.2 MB
    assert list(small_disk.iterdir()) == []
    _write(small_disk / "products.safetensors", names[:2], np.ones((1, 2, 2)))
    kept, products = _read(small_disk / "products.safetensors")
    assert kept == names[:2]
    assert (products == 1).all()
