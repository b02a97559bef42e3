"""Negative correlation learning: its gradients in closed form, and what it does to errors."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gpnas_trainers import build
from gpnas_trainers.negative_correlation import fine_tune, negative_correlation_loss
from gpnas_trainers.pairs import PairSet, open_pairs, prepare_photographs
from gpnas_trainers.recipe import Recipe


@pytest.fixture(scope="module")
def pairs(cache: Path) -> PairSet:
    return open_pairs(prepare_photographs(cache, 2), "train")


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_gradients_are_those_of_the_paper(strength: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(2, 3, 4, 5, generator=generator)
    outputs = [torch.rand(hr.shape, generator=generator).requires_grad_() for _ in range(3)]
    negative_correlation_loss(outputs, hr, strength).backward()
    mean = torch.stack([output.detach() for output in outputs]).mean(dim=0)
    for output in outputs:
        assert output.grad is not None
        own = output.detach()
        expected = ((own - hr) - strength * (own - mean)) / hr.numel()
        torch.testing.assert_close(output.grad, expected)


def networks() -> list[nn.Module]:
    made = []
    for seed in range(3):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made.append(build("edsr", 2, features=8, blocks=1, image_skip=True))
    return made


def test_without_strength_each_learns_as_if_it_were_alone(pairs: PairSet) -> None:
    recipe = Recipe(steps=4, batch_size=2, hr_patch=48, warmup_steps=0, clip_norm=0.5)
    together = networks()
    alone = copy.deepcopy(together[0])
    others = copy.deepcopy(together[1:])
    fine_tune(together, pairs, recipe, strength=0.0, seed=3)
    fine_tune([alone, others[0]], pairs, recipe, strength=0.0, seed=3)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(value, together[0].state_dict()[name], rtol=1e-5, atol=1e-6)


def test_strength_sets_errors_apart(pairs: PairSet) -> None:
    """The correlation of errors falls, at equal steps."""
    recipe = Recipe(steps=12, batch_size=1, hr_patch=48, warmup_steps=0, learning_rate=2e-3)
    lr, hr = pairs.tensors(0)
    lr, hr = lr[None, :, :64, :64], hr[None, :, :128, :128]

    def correlation(strength: float) -> float:
        given = networks()
        fine_tune(given, pairs, recipe, strength=strength, seed=3)
        with torch.inference_mode():
            errors: list[Tensor] = [(network(lr) - hr).flatten() for network in given]
        matrix = torch.corrcoef(torch.stack(errors))
        return float(matrix.sum() - 3) / 6

    assert correlation(0.9) < correlation(0.0) - 1e-4


def test_what_cannot_be_is_one_line(pairs: PairSet) -> None:
    for given, strength in ((networks()[:1], 0.5), (networks(), 1.5)):
        with pytest.raises(ValueError, match="at least 2 networks and `0 <= strength <= 1` must be given"):
            fine_tune(given, pairs, Recipe(), strength=strength, seed=0)
