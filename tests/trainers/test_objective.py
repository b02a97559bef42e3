"""The loss of a step: by hand, in each precision, and closed loops' images against Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gpnas_trainers import build
from gpnas_trainers.losses import dual_regression_loss, mixed_loss
from gpnas_trainers.networks.dual_regression import DualRegression
from gpnas_trainers.objective import Objective, precision_on, targets
from gpnas_trainers.recipe import Recipe


def batch(scale: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = 48 // scale
    return torch.rand(2, 3, side, side, generator=generator), torch.rand(2, 3, 48, 48, generator=generator)


def network(family: str = "dual_regression", scale: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "drn":
            return build("drn", scale, features=8, blocks=1, stages=1)
        return build(family, scale, features=4, blocks=1)


def test_the_images_between_are_pillows_bicubic_ones() -> None:
    lr, hr = batch(4)
    images = [torch.empty(2, 3, side, side) for side in (12, 24, 48)]
    first, between, last = targets(lr, hr, images)
    assert first is lr
    assert last is hr
    for channel in range(3):
        expected = Image.fromarray(hr[0, channel].numpy()).resize((24, 24), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(between[0, channel].numpy(), np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize("ms_ssim_weight", [0.0, 0.2])
def test_a_closed_loop_is_its_loss_and_ms_ssim_of_the_largest(ms_ssim_weight: float) -> None:
    lr, hr = batch(4)
    built = network()
    assert isinstance(built, DualRegression)
    objective = Objective(built, Recipe(ms_ssim_weight=ms_ssim_weight, dual_weight=0.3), seed=1)
    assert objective.duals is not None
    images = built.pyramid(lr)
    back = [dual(image) for dual, image in zip(objective.duals, images[1:], strict=True)]
    expected = dual_regression_loss(images, targets(lr, hr, images), back, dual_weight=0.3)
    if ms_ssim_weight:
        both = mixed_loss(images[-1], hr, l1_weight=1.0, ms_ssim_weight=ms_ssim_weight)
        expected = expected + both - mixed_loss(images[-1], hr, l1_weight=1.0, ms_ssim_weight=0.0)
    torch.testing.assert_close(objective(lr, hr), expected)
    objective(lr, hr).backward()
    # all of it learns: each image's tail, and each dual network
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_pixel_losses_by_hand() -> None:
    lr, hr = batch(2)
    built = network("drn", 2)
    sr = built(lr).detach()
    difference = (sr - hr).double().numpy()
    expected = {
        "l1": np.abs(difference).mean(),
        "l2": (difference**2).mean(),
        "charbonnier": np.sqrt(difference**2 + 1e-6).mean(),
    }
    for kind, value in expected.items():
        found = Objective(built, Recipe(ms_ssim_weight=0.0, l1_weight=0.5), seed=1)(lr, hr, kind)
        assert found.item() == pytest.approx(0.5 * value, rel=1e-5)
        found.backward()
    recipe = Recipe(steps=8, pixel_loss="l2_after_l1")
    assert [recipe.pixel_loss_at(step) for step in range(8)] == ["l1"] * 6 + ["l2"] * 2
    assert {Recipe(steps=8, pixel_loss="charbonnier").pixel_loss_at(step) for step in range(8)} == {
        "charbonnier"
    }


def test_auto_is_float32_on_a_cpu() -> None:
    assert precision_on("cpu", "auto") == "float32"
    assert precision_on("cpu", "bfloat16") == "bfloat16"


def test_dual_networks_serve_where_they_are_asked_for_and_exist() -> None:
    lr, hr = batch(2)
    for family, weight in (("drn", 0.1), ("dual_regression", 0.0)):
        built = network(family, 2)
        objective = Objective(built, Recipe(dual_weight=weight), seed=1)
        assert objective.duals is None
        expected = mixed_loss(built(lr), hr, l1_weight=1.0, ms_ssim_weight=0.1)
        assert torch.equal(objective(lr, hr), expected)


@pytest.mark.parametrize("family", ["drn", "dual_regression"])
def test_bfloat16_is_that_of_the_network_alone(family: str) -> None:
    lr, hr = batch(2)
    built = network(family, 2)
    whole = Objective(built, Recipe(dual_weight=0.1), seed=1)
    half = Objective(built, Recipe(dual_weight=0.1, precision="bfloat16"), seed=1)
    seen: list[torch.dtype] = []
    hooks = [
        module.register_forward_hook(lambda _module, _input, output: seen.append(output.dtype))
        for module in built.modules()
        if isinstance(module, nn.Conv2d)
    ]
    found = half(lr, hr)
    for hook in hooks:
        hook.remove()
    assert set(seen) == {torch.bfloat16}
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(whole(lr, hr).item(), rel=2**-7)
    found.backward()
    assert {parameter.grad.dtype for parameter in built.parameters() if parameter.grad is not None} == {
        torch.float32
    }
