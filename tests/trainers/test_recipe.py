"""A recipe's rules, its schedules, and its JSON."""

import dataclasses

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from gpnas_trainers.recipe import FIRST_FIELDS, Recipe


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ema_decay", 1.0, "`0 <= ema_decay < 1` must hold, but got ema_decay=1.0"),
        ("schedule", "linear", "`schedule` must be one of cosine, step, but got 'linear'"),
        ("precision", "int8", "`precision` must be one of float32, bfloat16, float16, but got 'int8'"),
        ("micro_batch", -1, "`micro_batch >= 0` must hold, but got micro_batch=-1"),
        ("halve_every", -1, "`halve_every >= 0` must hold"),
        ("dual_weight", float("inf"), "`dual_weight >= 0` must hold"),
    ],
)
def test_a_recipe_checks_itself(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("halve_every", [0, 7])
def test_the_schedules_are_pytorchs(halve_every: int) -> None:
    """Without warm-up, after which PyTorch's would begin anew."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    step = Recipe(steps=50, warmup_steps=0, learning_rate=0.4, schedule="step", halve_every=halve_every)
    expected = StepLR(optimizer, halve_every or 10, gamma=0.5)
    cosine = Recipe(steps=50, warmup_steps=0, learning_rate=0.4)
    other = SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    annealed = CosineAnnealingLR(other, 50, eta_min=0.004)
    for number in range(50):
        assert step.learning_rate_at(number) == pytest.approx(expected.get_last_lr()[0], rel=1e-12)
        assert cosine.learning_rate_at(number) == pytest.approx(annealed.get_last_lr()[0], rel=1e-9)
        for each in (optimizer, other):
            each.step()
        expected.step()
        annealed.step()


def test_json_is_the_whole_recipe_and_that_of_before_where_nothing_is_new() -> None:
    first = [field.name for field in dataclasses.fields(Recipe)][:FIRST_FIELDS]
    assert first[-1] == "evaluate_every"
    assert list(Recipe().to_json()) == first
    recipe = Recipe(steps=7, schedule="step", precision="bfloat16", ema_decay=0.9, dual_weight=0.1)
    assert Recipe(**recipe.to_json()) == recipe  # type: ignore[arg-type]
    assert "micro_batch" not in recipe.to_json()
