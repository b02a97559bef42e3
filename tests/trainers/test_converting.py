"""ONNX files compute what PyTorch does, at any size, in two other implementations of the standard."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from gpnas_trainers import build
from gpnas_trainers.converting import Average, ConversionError, save_official, save_onnx


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(family: str, scale: int, **axes: Any) -> nn.Module:
    """A network with random weights of enough size to differ visibly from bicubic."""
    torch.manual_seed(0)
    made = build(family, scale, **axes).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return made


@pytest.mark.parametrize(
    ("family", "scale", "axes"),
    [
        ("drn", 2, {"features": 6, "blocks": 2, "stages": 2}),
        pytest.param(
            "rcan", 3, {"features": 6, "groups": 1, "blocks": 2, "image_skip": True}, marks=pytest.mark.slow
        ),
        pytest.param("dual_regression", 4, {"features": 4, "blocks": 1}, marks=pytest.mark.slow),
    ],
)
def test_onnxruntime_computes_what_pytorch_does(
    tmp_path: Path, family: str, scale: int, axes: dict[str, Any]
) -> None:
    made = network(family, scale, **axes)
    path = tmp_path / "network.onnx"
    assert save_onnx(made, path, {"scale": str(scale)}) < 1e-4
    assert [each.name for each in tmp_path.iterdir()] == ["network.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {each.key: each.value for each in model.metadata_props}["scale"] == str(scale)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in [(1, 3, 1, 1), (1, 3, 20, 24), (2, 3, 5, 33), (3, 3, 40, 7)]:
        lr = torch.rand(size)
        with torch.inference_mode():
            expected = made(lr).numpy()
        (found,) = session.run(["sr"], {"lr": lr.numpy()})
        assert found.shape == (size[0], 3, scale * size[2], scale * size[3])
        assert np.abs(found - expected).max() < 1e-4
    if family == "drn":  # the standard's own implementation, in numpy
        lr = torch.rand(1, 3, 6, 9)
        (found,) = ReferenceEvaluator(model).run(["sr"], {"lr": lr.numpy()})
        with torch.inference_mode():
            assert np.abs(found - made(lr).numpy()).max() < 1e-4


def test_an_average_is_one_file(tmp_path: Path) -> None:
    networks = [network("drn", 2, features=4, blocks=1, stages=number) for number in (1, 2)]
    save_onnx(Average(networks, [0.75, 0.25]), tmp_path / "average.onnx")
    lr = torch.rand(1, 3, 9, 14)
    with torch.inference_mode():
        first, second = (each(lr).clamp(0, 1).numpy() for each in networks)
    session = onnxruntime.InferenceSession(tmp_path / "average.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["sr"], {"lr": lr.numpy()})
    assert np.abs(found - (0.75 * first + 0.25 * second)).max() < 1e-5


class Noisy(nn.Module):
    """Never the same twice."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Branching(nn.Module):
    """What it does hangs on pixels, which no graph can say."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.mean()) > 0.5 else 2 * x


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Noisy(), "onnxruntime must agree with PyTorch within 0.0001, but differs by"),
        (Branching(), "a network must have an ONNX form, but"),
    ],
)
def test_what_does_not_agree_is_not_written(tmp_path: Path, made: nn.Module, says: str) -> None:
    (tmp_path / "kept.onnx").write_bytes(b"an earlier file")
    with pytest.raises(ConversionError) as error:
        save_onnx(made, tmp_path / "kept.onnx")
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert (tmp_path / "kept.onnx").read_bytes() == b"an earlier file"
    assert [each.name for each in tmp_path.iterdir()] == ["kept.onnx"]


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    with pytest.raises(ConversionError, match=r"onnx, onnxscript and onnxruntime.*install gpnas\[onnx\]"):
        save_onnx(network("drn", 2, features=4, blocks=1, stages=1), tmp_path / "network.onnx")


@pytest.mark.parametrize(
    ("made", "name", "says"),
    [
        (("drn", {"features": 4, "blocks": 1, "stages": 1}), "a.pt", "have official code, but this is DRN"),
        (
            ("rcan", {"features": 4, "groups": 1, "blocks": 1, "image_skip": True}),
            "a.pt",
            "official code computes what `image_skip: false` does, but this network has `image_skip: true`",
        ),
        (("rcan", {"features": 4, "groups": 1, "blocks": 1}), "a.bin", "must end in .safetensors, .pt, .pth"),
    ],
)
def test_what_has_no_official_form_is_refused(
    tmp_path: Path, made: tuple[str, dict[str, Any]], name: str, says: str
) -> None:
    family, axes = made
    with pytest.raises(ConversionError) as error:
        save_official(network(family, 2, **axes), tmp_path / name)
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == []
