"""What is kept of residuals: their products against float64, former versions' files, damaged ones."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gpnas.errors import TrialError
from gpnas.run.residuals import (
    BYTES,
    ERRORS_FILE,
    FORMER_FILE,
    error_correlations,
    errors_name,
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
def pairs(home: Path) -> PairSet:
    return open_pairs(prepare_photographs(home / "cache", 2), "validation").head(3)


@pytest.fixture(scope="module")
def networks() -> list[nn.Module]:
    """Three that add to the bicubic image what random weights make of it; the last adds hardly anything."""
    made = []
    for seed, (family, axes) in enumerate(
        [
            ("drn", {"features": 8, "blocks": 1, "stages": 2}),
            ("rcan", {"features": 16, "groups": 1, "blocks": 1, "image_skip": True}),
            ("drn", {"features": 8, "blocks": 2, "stages": 1}),
        ]
    ):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build(family, 2, **axes)
            with torch.no_grad():
                for weight in network.parameters():
                    weight.add_(torch.randn_like(weight), alpha=0.01 if seed < 2 else 0)
        made.append(network)
    return made


@pytest.fixture(scope="module")
def residuals(pairs: PairSet, networks: list[nn.Module]) -> list[Tensor]:
    """SR - HR of each image, (n, values) float64."""
    images = []
    for index in range(len(pairs)):
        lr, hr = (torch.from_numpy(image).float()[None] / 255 for image in pairs.image(index))
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


def files_of(run: Path, name: str = ERRORS_FILE) -> list[Path]:
    return [run / "candidates" / each / name for each in NAMES]


def products(residuals: list[Tensor]) -> Tensor:
    return torch.stack([each @ each.T / each.shape[1] for each in residuals])


def worst(found: Tensor, expected: Tensor) -> float:
    """The largest error of a product of two residuals, relative to how large the two are."""
    size = expected.diagonal(dim1=1, dim2=2).sqrt()
    return float(((found - expected) / (size[:, :, None] * size[:, None, :])).abs().max())


def test_products_are_those_of_the_residuals_and_closer_than_by_float16(
    written: Path, residuals: list[Tensor]
) -> None:
    expected = products(residuals)
    found = residual_products(files_of(written))
    halves = products([each.half().double() for each in residuals])
    assert worst(found, expected) <= worst(halves, expected) < 1e-5
    square = found.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(square, expected.diagonal(dim1=1, dim2=2), rtol=1e-7, atol=0)
    for weights in ([1 / 3] * 3, [0.5, 0.5, 0], [0.2, 0.3, 0.5]):
        w = torch.tensor(weights, dtype=torch.float64)
        error = torch.stack([(w @ each).square().mean() for each in residuals]).mean()
        assert float(w @ found.mean(dim=0) @ w) == pytest.approx(float(error), rel=2e-6)
    torch.testing.assert_close(residual_products(files_of(written), 2), found[:, :, 2:], rtol=0, atol=0)


def test_they_are_kept_in_less_than_half_of_what_float16_takes(
    written: Path, residuals: list[Tensor]
) -> None:
    values = sum(each.shape[1] for each in residuals)
    for file in files_of(written):
        assert file.stat().st_size < values


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


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 5, 7), (3, 33, 50)])
def test_an_orthonormal_transform_keeps_products(shape: tuple[int, int, int]) -> None:
    """And what was rounded off one has no product with it."""
    generator = torch.Generator().manual_seed(0)
    a, b = (0.1 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    count = 3 * -(-shape[1] // 16) * -(-shape[2] // 16) * 256
    x, y = (unpacked(*packed(each), count).double() for each in (a, b))
    assert float(x @ y) == pytest.approx(float((a * b).sum()), abs=1e-3 * float(a.norm()))
    assert float(x @ x) == pytest.approx(float(a.square().sum()), rel=1e-5)


def test_the_largest_differences_there_are_can_be_packed() -> None:
    ones = torch.ones(3, 32, 32, dtype=torch.float64)
    for extreme in (ones, -ones):
        coefficients = unpacked(*packed(extreme), 3072)
        assert float(coefficients.double().square().sum()) == pytest.approx(3072, rel=1e-6)
    data, step = packed(0 * ones)
    assert not unpacked(data, step, 3072).any()


def former(run: Path, pairs: PairSet, residuals: list[Tensor]) -> None:
    """Files as former versions wrote them, and none of today's."""
    for number, file in enumerate(files_of(run, FORMER_FILE)):
        shapes = [pairs.image(index)[1].shape for index in range(len(pairs))]
        images = {
            f"{index:04d}": each[number].reshape(shapes[index]).half() for index, each in enumerate(residuals)
        }
        file.parent.mkdir(parents=True)
        save_file(images, file)


def test_a_former_versions_run_goes_on_as_it_began(
    tmp_path: Path, pairs: PairSet, networks: list[nn.Module], residuals: list[Tensor]
) -> None:
    former(tmp_path, pairs, residuals)
    storage, added = Folder(tmp_path), "candidates/c0003"
    write_errors(storage, added, networks[0], pairs)
    assert errors_name(storage, added) == f"{added}/{FORMER_FILE}"
    found = residual_products([*files_of(tmp_path, FORMER_FILE), tmp_path / added / FORMER_FILE])
    assert worst(found[:, :3, :3], products(residuals)) < 1e-5
    torch.testing.assert_close(found[:, 3, :3], found[:, 0, :3], rtol=1e-5, atol=1e-9)
    assert error_correlations(storage, added)["c0000"] == pytest.approx(1, abs=1e-6)


def test_files_of_two_versions_are_not_multiplied(
    run: Path, pairs: PairSet, residuals: list[Tensor], tmp_path: Path
) -> None:
    former(tmp_path / "former", pairs, residuals)
    mixed = [*files_of(run)[:2], files_of(tmp_path / "former", FORMER_FILE)[0]]
    with pytest.raises(TrialError, match="some are of a former version, some are not"):
        residual_products(mixed)


def rewritten(file: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        images = json.loads(opened.metadata()["images"])
    change(tensors, images)
    save_file(tensors, file, {"images": json.dumps(images)})


def bomb(tensors: dict[str, Tensor], images: dict[str, Any]) -> None:
    """A strip that would unpack to a gigabyte."""
    deflate = zlib.compressobj()
    data = b"".join(deflate.compress(bytes(2**20)) for _ in range(2**10)) + deflate.flush()
    tensors["0000.00"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)


def flipped(tensors: dict[str, Tensor], images: dict[str, Any]) -> None:
    tensors["0000.00"][len(tensors["0000.00"]) // 2] ^= 1


def shortened(tensors: dict[str, Tensor], images: dict[str, Any]) -> None:
    data, _ = packed(torch.zeros(3, 16, 16, dtype=torch.float64))
    tensors["0000.00"] = data


DAMAGES: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, Any]], Any], str]] = {
    "a flipped bit": (flipped, "damaged|numbers"),
    "a bomb": (bomb, "packed residuals must be [0-9]+ numbers"),
    "too few numbers": (shortened, "packed residuals must be [0-9]+ numbers"),
    "no strip": (lambda tensors, images: tensors.pop("0001.00"), "0001.00"),
    "another type": (
        lambda tensors, images: tensors.update({"0000.00": tensors["0000.00"].float()}),
        "must be of uint8",
    ),
    "no image": (lambda tensors, images: images.pop("0001"), "not of the same images"),
    "another image": (
        lambda tensors, images: images["0001"].update(common=images["0001"]["common"] * 1.01),
        "not of the same images",
    ),
    "an endless image": (
        lambda tensors, images: images["0000"].update(shape=[3, 10**12, 10**12]),
        "not of the same images",
    ),
    "no number": (lambda tensors, images: images["0000"].update(with_common=float("nan")), "not finite"),
    "no list": (lambda tensors, images: images["0000"].update(steps=None), "subscriptable"),
    "too short a list": (lambda tensors, images: images["0000"].update(steps=[]), "out of range"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused_in_one_line(run: Path, damage: str) -> None:
    change, told = DAMAGES[damage]
    rewritten(files_of(run)[2], change)
    with pytest.raises(TrialError, match=told) as caught:
        residual_products(files_of(run))
    message = str(caught.value)
    assert message.startswith(
        f"{run / 'candidates'}: every trained network's residuals must be readable, but "
    )
    assert message.endswith("which makes it anew")
    assert len(message.splitlines()) == 1


def test_a_shape_that_all_files_claim_is_not_believed_beyond_its_strips(run: Path) -> None:
    def tall(tensors: dict[str, Tensor], images: dict[str, Any]) -> None:
        images["0000"].update(shape=[3, 10**12, 16])

    def wide(tensors: dict[str, Tensor], images: dict[str, Any]) -> None:
        images["0000"].update(shape=[3, 16, 10**6])

    for change, told in ((tall, "numbers"), (wide, "at most 65536 pixels wide")):
        for file in files_of(run):
            rewritten(file, change)
        with pytest.raises(TrialError, match=told):
            residual_products(files_of(run))


def test_never_more_is_unpacked_than_asked_for() -> None:
    data, step = packed(torch.zeros(3, 1600, 1600, dtype=torch.float64))
    assert len(data) * 100 < BYTES * 3 * 1600 * 1600
    with pytest.raises(ValueError, match="must be 768 numbers, but are more or less"):
        unpacked(data, step, 768)
