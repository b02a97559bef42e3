"""Networks fine-tuned together, so that their errors correlate less.

Y. Liu, X. Yao, "Ensemble learning via negative correlation", Neural Networks 12(10), 1999: network i of K
has the error ½(F_i - d)² - ½λ(F_i - F̄)², where F̄, the plain average, counts as given. With λ = 0 each
learns alone; with λ = 1 the gradient of each is that of the average's error, so that the average learns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gpnas_trainers.batches import Batches
from gpnas_trainers.guard import LossGuard, looked_every
from gpnas_trainers.optimizer import AdamW
from gpnas_trainers.pairs import PairSet
from gpnas_trainers.recipe import Recipe


def negative_correlation_loss(outputs: Sequence[Tensor], hr: Tensor, strength: float) -> Tensor:
    """The networks' errors, a scalar: means over pixels, added over networks.

    Args:
        outputs: K of (B, 3, H, W).
        hr: (B, 3, H, W).
        strength: λ, 0 … 1.
    """
    mean = torch.stack([output.detach() for output in outputs]).mean(dim=0)
    errors = [(output - hr).square() - strength * (output - mean).square() for output in outputs]
    return torch.stack(errors).mean(dim=(1, 2, 3, 4)).sum() / 2


def fine_tune(
    networks: Sequence[nn.Module],
    pairs: PairSet,
    recipe: Recipe,
    *,
    strength: float,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Trains networks together, in place, on the device where they are.

    Of the recipe count the steps, the batches, the rate with its schedule and the clipping; the loss is the
    squared error of `negative_correlation_loss`. Each step costs as much as one of each network.

    Args:
        networks: at least two, trained before.
        pairs: to draw patches from.
        recipe: how.
        strength: λ, 0 … 1.
        seed: of the patches.
        progress: called with steps done and all.

    Raises:
        ValueError: fewer than two networks, or a strength that is not between 0 and 1.
        TrainingError: they diverged.
    """
    if len(networks) < 2 or not 0 <= strength <= 1:
        raise ValueError(
            "at least 2 networks and `0 <= strength <= 1` must be given, but got "
            f"{len(networks)} and {strength}"
        )
    device = next(networks[0].parameters()).device
    batches = Batches(pairs, recipe, seed, slice(None), device)
    parameters = [[*network.parameters()] for network in networks]
    optimizer = AdamW(
        [{"params": each} for each in parameters],
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    guard = LossGuard(recipe.warmup_steps, looked_every(device))
    for network in networks:
        network.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        lr, hr = batches.at(step)
        optimizer.zero_grad(set_to_none=True)
        outputs = [network(lr) for network in networks]
        negative_correlation_loss(outputs, hr, strength).backward()
        with torch.no_grad():
            # what is fitted may be negative; what must not explode is the networks' own error
            guard.note(torch.stack([(output - hr).square().mean() for output in outputs]).sum(), step)
        if recipe.clip_norm:
            for each in parameters:  # each network as if it were alone
                nn.utils.clip_grad_norm_(each, recipe.clip_norm)
        optimizer.step()
        progress(step + 1, recipe.steps)
    guard.look()
    for network in networks:
        network.eval()
