"""The objective of a training: LR and HR patches in, the loss of the recipe out, in its precision."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gpnas_trainers.losses import dual_regression_loss, mixed_loss
from gpnas_trainers.recipe import Recipe

MODES = {"default": "default", "max-autotune": "max-autotune-no-cudagraphs"}
"""Modes of torch.compile, by the recipe's names. CUDA graphs would write each micro-batch over the last."""


def precision_on(device: torch.device | str, precision: str) -> str:
    """`float32`, `bfloat16` or `float16`: what a recipe's precision is on a device."""
    if precision != "auto":
        return precision
    on_gpu = torch.device(device).type == "cuda"
    return "bfloat16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


@runtime_checkable
class ClosedLoop(Protocol):
    """A network that offers dual networks, which map its images back to the next smaller size."""

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Images at all sizes, LR first, each twice the one before; the last is the SR image."""

    def duals(self) -> nn.ModuleList:
        """Fresh dual networks: the first maps the second image to the size of the first, and so on."""


class Objective(nn.Module):
    """(lr, hr) -> loss, a mean over patches, of a network and what is trained beside it.

    Args:
        network: what is trained.
        recipe: weights of the loss, and the precision.
        seed: of fresh dual networks, where the recipe asks for them and the network has some.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, seed: int) -> None:
        super().__init__()
        self.network, self._recipe = network, recipe
        # in a tuple, since a module that is an attribute would be a second copy among the parameters
        mode = MODES.get(recipe.compile)
        self._run = (network if mode is None else torch.compile(network, mode=mode),)
        self.duals: nn.ModuleList | None = None
        if recipe.dual_weight and isinstance(network, ClosedLoop):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.duals = network.duals()

    def forward(self, lr: Tensor, hr: Tensor, pixels: str = "l1") -> Tensor:
        """The loss, a scalar.

        Args:
            lr, hr: (B, 3, h, w) and (B, 3, s·h, s·w), in [0, 1].
            pixels: the pixel loss of this step, as `losses.pixel_loss` names it; of a closed loop it is L1.
        """
        recipe = self._recipe
        precision = precision_on(lr.device, recipe.precision)
        lowered = precision != "float32"
        with torch.autocast(lr.device.type, getattr(torch, precision) if lowered else None, enabled=lowered):
            if self.duals is None:
                images, returned = [self._run[0](lr)], []
            else:
                images = self.network.pyramid(lr)  # type: ignore[operator]
                returned = [dual(image).float() for dual, image in zip(self.duals, images[1:], strict=True)]
        images = [image.float() for image in images]
        if self.duals is None:
            weights = {"l1_weight": recipe.l1_weight, "ms_ssim_weight": recipe.ms_ssim_weight}
            return mixed_loss(images[0], hr, **weights, pixels=pixels)
        loss = recipe.l1_weight * dual_regression_loss(
            images, targets(lr, hr, images), returned, dual_weight=recipe.dual_weight
        )
        if recipe.ms_ssim_weight:
            loss = loss + mixed_loss(images[-1], hr, l1_weight=0.0, ms_ssim_weight=recipe.ms_ssim_weight)
        return loss


def targets(lr: Tensor, hr: Tensor, images: list[Tensor]) -> list[Tensor]:
    """The true images of all sizes: LR as it is, HR as it is, and HR bicubically downsampled between."""
    between = [
        interpolate(hr, size=image.shape[-2:], mode="bicubic", align_corners=False, antialias=True)
        for image in images[1:-1]
    ]
    assert all(b.shape[-1] == 2 * a.shape[-1] for a, b in pairwise(images))
    return [lr, *between, hr]
