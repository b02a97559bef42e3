"""Every family against what counts it, its publications, its authors' code and other tools."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gpnas_trainers import FAMILIES, build, cost
from gpnas_trainers.converting import TOLERANCE, save_official, save_onnx
from gpnas_trainers.networks.plksr import PartialLargeKernel
from gpnas_trainers.pairs import open_pairs, prepare_photographs
from gpnas_trainers.train import Recipe, evaluate, train
from gpnas_trainers.weights import WeightsError, from_state, load_published
from tests.trainers.test_networks import count, kept_for_backward

Axes = dict[str, Any]
SMALL: list[tuple[str, Axes]] = [
    ("edsr", {"features": 8, "blocks": 2}),
    ("edsr", {"features": 6, "blocks": 1, "damped": True, "image_skip": True}),
    ("rrdb", {"features": 8, "blocks": 1, "growth": 4}),
    ("rrdb", {"features": 6, "blocks": 2, "growth": 3, "unshuffle": 2, "image_skip": True}),
    ("span", {"features": 8, "blocks": 2}),
    ("span", {"features": 6, "blocks": 1, "image_skip": True}),
    ("plksr", {"features": 8, "blocks": 2, "kernel": 5}),
    ("plksr", {"features": 6, "blocks": 1, "kernel": 7, "split": 2, "attention": False}),
    ("safmn", {"features": 8, "blocks": 2}),
    ("safmn", {"features": 12, "blocks": 1, "expansion": 3, "image_skip": True}),
    ("nafnet", {"width": 8, "blocks": 2}),
    ("compact", {"features": 8, "convolutions": 2}),
    ("swinir", {"features": 12, "groups": 2, "blocks": 2, "heads": 3}),
    ("swinir", {"features": 8, "groups": 1, "blocks": 3, "heads": 2, "window": 4, "upsampler": "shuffle"}),
    ("swinir", {"features": 8, "groups": 1, "blocks": 2, "heads": 1, "image_skip": True}),
]


def fresh(family: str, scale: int, axes: Axes) -> nn.Module:
    """A network none of whose parameters is zero, so that all of them matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(family, scale, **axes)
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return network


def published() -> list[dict[str, str]]:
    with open(Path(__file__).with_name("published_sizes.csv"), encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", published(), ids=lambda row: f"{row['family']} x{row['scale']} {row['axes']}")
def test_sizes_are_those_of_the_publications(row: dict[str, str]) -> None:
    """To the last digit that a publication gives, with what the published network has besides."""
    axes: Axes = {}
    for each in row["axes"].split():
        name, _, value = each.partition("=")
        axes[name] = value == "true" if value in ("true", "false") else int(value)
    number = cost.parameters(row["family"], int(row["scale"]), **axes) + int(row["besides"])
    digits = len(row["parameters"].partition(".")[2])
    assert f"{number / int(row['unit']):.{digits}f}" == row["parameters"]


@pytest.mark.parametrize(
    ("features", "scale", "expected"), [(48, 2, 411), (48, 4, 426), (52, 2, 481), (52, 4, 498)]
)
def test_span_for_inference_has_the_published_size(features: int, scale: int, expected: int) -> None:
    """Wan et al., CVPR workshops 2024, Table 1: SPAN-S and SPAN, in thousands."""
    with torch.device("meta"):
        network = build("span", scale, features=features, blocks=6)
    plain = sum(
        each.numel()
        for name, each in network.named_parameters()
        if ".sk." not in name and ".conv." not in name
    )
    merged = sum(each.numel() for name, each in network.named_buffers() if name != "mean")
    assert (plain + merged) / 1000 == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("family", "axes"), SMALL)
def test_costs_equal_what_is_counted(family: str, axes: Axes, scale: int) -> None:
    """PyTorch's own counters, on the device that has shapes alone, at a size that no factor divides."""
    with torch.device("meta"):
        network = build(family, scale, **axes).eval()
        image = torch.empty(1, 3, 19, 26)
    assert cost.parameters(family, scale, **axes) == count(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(image).shape == (1, 3, 19 * scale, 26 * scale)
    assert 2e9 * cost.gmacs(family, scale, 19, 26, **axes) == pytest.approx(counter.get_total_flops())


@pytest.mark.parametrize(("family", "axes"), SMALL)
@pytest.mark.parametrize(("batch_size", "hr_patch"), [(1, 64), (3, 96)])
def test_training_memory_is_what_autograd_keeps(
    family: str, axes: Axes, batch_size: int, hr_patch: int
) -> None:
    network = build(family, 2, **axes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    activations = kept_for_backward(network, 2, batch_size, hr_patch, True)
    told = cost.training_memory(family, 2, batch_size=batch_size, hr_patch=hr_patch, **axes)
    assert told == pytest.approx(4 * 4 * count(network) + activations, rel=0.05)


@pytest.mark.parametrize(("family", "axes"), SMALL)
def test_every_parameter_learns(family: str, axes: Axes) -> None:
    network = fresh(family, 2, axes)
    network(torch.rand(2, 3, 16, 24)).square().mean().backward()
    for name, parameter in network.named_parameters():
        if "_mean." not in name or not axes.get("image_skip"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


TRAINED: list[tuple[str, Axes]] = [
    ("edsr", {"features": 24, "blocks": 3, "image_skip": True}),
    ("rrdb", {"features": 16, "blocks": 1, "growth": 8, "image_skip": True}),
    ("span", {"features": 16, "blocks": 2, "image_skip": True}),
    ("plksr", {"features": 16, "blocks": 3, "kernel": 9}),
    ("safmn", {"features": 24, "blocks": 4, "image_skip": True}),
    ("nafnet", {"width": 24, "blocks": 5}),
    ("compact", {"features": 24, "convolutions": 7}),
    ("swinir", {"features": 24, "groups": 1, "blocks": 3, "heads": 3, "image_skip": True}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "axes"), TRAINED)
def test_a_short_training_gains_over_where_it_begins(family: str, axes: Axes, tmp_path: Path) -> None:
    """Deep rows of plain layers too: their signal must not vanish with fresh weights."""
    folder = prepare_photographs(tmp_path, 2)
    pairs, validation = open_pairs(folder, "train"), open_pairs(folder, "validation").head(1)
    torch.manual_seed(0)
    network = build(family, 2, **axes)
    before, _ = evaluate(network, validation)
    rate = 1e-3 if family in ("safmn", "swinir") else 2e-3
    recipe = Recipe(steps=100, batch_size=4, learning_rate=rate, evaluate_every=100)
    after = train(network, pairs, validation, recipe, seed=0).psnr
    assert after is not None
    assert after > before + 0.2


DEEP: list[tuple[str, Axes, str]] = [
    ("drn", {"features": 24, "blocks": 12, "stages": 3}, "tail"),
    ("rrdb", {"features": 16, "blocks": 4, "growth": 8}, "conv_last"),
    ("plksr", {"features": 24, "blocks": 12, "kernel": 9}, "feats.13"),
    ("compact", {"features": 24, "convolutions": 12}, "body.26"),
]
"""Names of the last convolutions."""


@pytest.mark.parametrize(("family", "axes", "last"), DEEP)
def test_fresh_weights_keep_the_signal(family: str, axes: Axes, last: str) -> None:
    """What reaches the last convolution of a deep network varies as much as the image, up to a factor of 4
    (K. He et al., ICCV 2015, section 2.2)."""
    torch.manual_seed(0)
    image, reached = torch.randn(2, 3, 32, 32), []
    network = build(family, 2, **axes)
    network.get_submodule(last).register_forward_pre_hook(lambda _, given: reached.append(given[0]))
    with torch.no_grad():
        network(image)
    assert 0.25 < float(reached[0].std()) < 4


@pytest.mark.parametrize("kernel", [13, 15, 17, 31])
def test_a_large_kernel_is_trained_as_the_whole_convolution(kernel: int) -> None:
    torch.manual_seed(0)
    layer = PartialLargeKernel(3, kernel).double()
    x = torch.randn(2, 5, 12, 20, dtype=torch.float64)
    whole = torch.cat((layer.conv(x[:, :3]), x[:, 3:]), dim=1)
    parameters = list(layer.conv.parameters())
    expected = torch.autograd.grad(whole.square().sum(), parameters)
    found = layer.train()(x)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), parameters), expected)
    torch.testing.assert_close(layer.eval()(x), whole)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 7), (17, 30)])
@pytest.mark.parametrize(("family", "axes"), SMALL)
def test_any_size_will_do(family: str, axes: Axes, size: tuple[int, int]) -> None:
    sr = fresh(family, 3, axes).eval()(torch.rand(1, 3, *size))
    assert sr.shape == (1, 3, 3 * size[0], 3 * size[1])
    assert sr.isfinite().all()


@pytest.mark.parametrize(("family", "axes"), SMALL)
def test_an_image_skip_is_where_training_begins(family: str, axes: Axes) -> None:
    own = {"plksr": "nearest", "compact": "nearest", "nafnet": "bilinear"}
    mode = own.get(family, "bicubic")
    if family not in own and not axes.get("image_skip"):
        pytest.skip("it has none")
    torch.manual_seed(0)
    image = torch.rand(1, 3, 16, 24)
    expected = torch.nn.functional.interpolate(image, scale_factor=2, mode=mode)
    assert (build(family, 2, **axes)(image) - expected).abs().max() < 0.02


@pytest.mark.parametrize(("family", "axes"), SMALL)
def test_compiled_whole_and_channels_last_compute_the_same(family: str, axes: Axes) -> None:
    network, image = fresh(family, 2, axes), torch.rand(2, 3, 16, 24)
    expected = network(image)
    # `fullgraph` raises where the network is not one graph
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image), expected)
    torch.compiler.reset()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sr = network(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(sr, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "axes"), SMALL)
def test_onnx_computes_the_same_at_any_size(family: str, axes: Axes, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    network = fresh(family, 2, axes).eval()
    assert save_onnx(network, tmp_path / "network.onnx") <= TOLERANCE
    session = runtime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for size in ((1, 2), (8, 8), (15, 9), (33, 70), (64, 41)):
        lr = torch.rand(1, 3, *size)
        with torch.inference_mode():
            expected = network(lr)
        (found,) = session.run(["sr"], {"lr": lr.numpy()})
        assert (torch.from_numpy(found) - expected).abs().max() <= TOLERANCE * max(1, expected.abs().max())


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(
    ("family", "axes"),
    [
        *SMALL,
        ("rcan", {"features": 8, "groups": 2, "blocks": 1, "reduction": 4}),
        ("dual_regression", {"features": 4, "blocks": 2}),
    ],
)
def test_what_is_written_is_recognised(family: str, axes: Axes, scale: int, tmp_path: Path) -> None:
    if axes.get("image_skip"):
        pytest.skip("official code has none")
    network, image = fresh(family, scale, axes).eval(), torch.rand(1, 3, 16, 24)
    save_official(network, tmp_path / "network.safetensors")
    name, (again, found, own) = load_published(tmp_path / "network.safetensors")
    complete = FAMILIES[family].complete(scale, axes)
    if family == "edsr":
        complete["damped"] = False  # leaves no trace in a file of small networks
    assert (name, found) == (family, scale)
    assert FAMILIES[family].complete(scale, own) == complete
    if not axes.get("damped"):
        assert torch.equal(again.eval()(image), network(image))


def of_basicsr(name: str) -> str:
    """EDSR's names in BasicSR, which fixes the mean colour in its code."""
    name = re.sub(r"^body\.2\.", "conv_after_body.", name)
    name = re.sub(r"^body\.(\d)\.body\.0\.", r"body.\1.conv1.", name)
    name = re.sub(r"^body\.(\d)\.body\.2\.", r"body.\1.conv2.", name)
    name = name.replace("head.0.", "conv_first.").replace("tail.0.", "upsample.")
    return name.replace("tail.1.", "conv_last.")


def of_esrgan(name: str) -> str:
    """RRDB's names in the second code of its authors."""
    name = re.sub(r"^body\.(\d)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2.", name)
    name = name.replace("conv_body.", "trunk_conv.").replace("conv_hr.", "HRconv.")
    return re.sub(r"^conv_up(\d)\.", r"upconv\1.", name)


def of_first_esrgan(name: str) -> str:
    """RRDB's names in their first code, for ×4 and one block: layers are counted."""
    name = re.sub(r"^body\.(\d)\.rdb(\d)\.conv(\d)\.", r"model.1.sub.\1.RDB\2.conv\3.0.", name)
    places = {"conv_first": 0, "conv_up1": 3, "conv_up2": 6, "conv_hr": 8, "conv_last": 10}
    for own, place in places.items():
        name = name.replace(f"{own}.", f"model.{place}.")
    return name.replace("conv_body.", "model.1.sub.1.")


@pytest.mark.parametrize(
    ("family", "axes", "renamed"),
    [
        ("edsr", {"features": 8, "blocks": 2}, of_basicsr),
        ("rrdb", {"features": 8, "blocks": 1, "growth": 4}, of_esrgan),
        ("rrdb", {"features": 8, "blocks": 1, "growth": 4}, of_first_esrgan),
    ],
)
def test_other_names_of_the_same_layers(family: str, axes: Axes, renamed: Callable[[str], str]) -> None:
    network, image = build(family, 4, **axes), torch.rand(1, 3, 6, 7)
    state = {renamed(name): value for name, value in network.state_dict().items() if "_mean." not in name}
    assert not state.keys() >= network.state_dict().keys()
    name, (again, scale, own) = from_state(state)
    assert (name, scale) == (family, 4)
    assert {key: own[key] for key in axes} == axes
    torch.testing.assert_close(again(image), network(image))


def test_weights_of_no_family_are_refused(tmp_path: Path) -> None:
    drn = build("drn", 2, features=4, blocks=1, stages=1)
    torch.save(drn.state_dict(), tmp_path / "drn.pt")
    with pytest.raises(WeightsError, match=r"must be those of rcan \(yulunzhang/RCAN\), .*got head.weight"):
        load_published(tmp_path / "drn.pt")
