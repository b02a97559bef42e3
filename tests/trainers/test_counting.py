"""Costs that are counted on a network against those that follow from its family's layers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gpnas_trainers import FAMILIES, NetworkFamily, cost
from tests.trainers.test_families import SMALL

DRN_AND_RCAN: list[tuple[str, dict[str, Any]]] = [
    ("drn", {"features": 6, "blocks": 2, "stages": 3}),
    ("drn", {"features": 5, "blocks": 1, "stages": 2, "upsampler": "nearest", "fuse": 3}),
    ("rcan", {"features": 6, "groups": 2, "blocks": 2}),
    ("rcan", {"features": 4, "groups": 1, "blocks": 1, "reduction": 2, "image_skip": True}),
    ("dual_regression", {"features": 8, "blocks": 1}),
]


def counted(family: str, scale: int, axes: dict[str, Any]) -> tuple[NetworkFamily, dict[str, Any]]:
    """The family without its layers, and all axes."""
    built_in = FAMILIES[family]
    return replace(built_in, layers=None), built_in.complete(scale, axes)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("family", "axes"), [*SMALL, *DRN_AND_RCAN])
def test_parameters_and_gmacs_are_those_of_the_layers(family: str, scale: int, axes: dict[str, Any]) -> None:
    own, complete = counted(family, scale, axes)
    assert cost.parameters(own, scale, **complete) == cost.parameters(family, scale, **axes)
    found = cost.gmacs(own, scale, 19, 26, **complete)
    assert found == pytest.approx(cost.gmacs(family, scale, 19, 26, **axes), rel=1e-6)


@pytest.mark.parametrize(("family", "axes"), [*SMALL, *DRN_AND_RCAN])
def test_training_memory_is_that_of_the_layers(family: str, axes: dict[str, Any]) -> None:
    own, complete = counted(family, 2, axes)
    found = cost.training_memory(own, 2, batch_size=3, hr_patch=96, **complete)
    told = cost.training_memory(family, 2, batch_size=3, hr_patch=96, **axes)
    assert found == pytest.approx(told, rel=0.05)


class Needy(nn.Module):
    """A network whose pass needs numbers, which tensors on the meta device have not."""

    def __init__(self, scale: int, width: int) -> None:
        super().__init__()
        self.scale = scale
        self.layers = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3 * scale**2, 1)
        self.first, self.last = self.layers

    def forward(self, x: Tensor) -> Tensor:
        bright = float(x.mean())
        return nn.functional.pixel_shuffle(self.last(self.first(x) + bright), self.scale)


def test_a_network_that_needs_numbers_is_counted_on_the_cpu() -> None:
    family = NetworkFamily("needy", Needy, axes=())
    before = torch.get_rng_state()
    assert cost.parameters(family, 2, width=4) == 3 * 4 * 9 + 4 + 4 * 12 + 12
    assert cost.gmacs(family, 2, 10, 11, width=4) == (3 * 4 * 9 + 4 * 12) * 110 / 1e9
    # the images of the two convolutions, beside what training holds of any network
    held = 16 * cost.parameters(family, 2, width=4) + 4 * 24**2 * 3 * cost.KEPT_BY_L1
    memory = cost.training_memory(family, 2, batch_size=1, hr_patch=24, ms_ssim=False, width=4)
    assert memory - held == 4 * 12**2 * (3 + 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_known_costs_are_taken_as_they_are() -> None:
    def never(**axes: Any) -> nn.Module:
        raise AssertionError("it must not be built")

    family = NetworkFamily("known", never, axes=(), known={"width=4,kind=a": (17, 0.25)})
    assert cost.parameters(family, 2, width=4, kind="a") == 17
    assert cost.gmacs(family, 2, 120, 120, width=4, kind="a") == 0.25
