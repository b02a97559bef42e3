"""A recipe's rules, its schedules, and its JSON."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from gpnas_trainers.recipe import Recipe, rules


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ema_decay", 1.0, "`0 <= ema_decay < 1` must hold, but got ema_decay=1.0"),
        ("schedule", "linear", "`schedule` must be one of cosine, step, but got 'linear'"),
        ("precision", "int8", "`precision` must be one of auto, float32, bfloat16, float16, but got 'int8'"),
        ("micro_batch", -1, "`micro_batch >= 0` must hold, but got micro_batch=-1"),
        ("halve_every", -1, "`halve_every >= 0` must hold"),
        ("dual_weight", float("inf"), "`dual_weight >= 0` must hold"),
        ("learning_rate", float("nan"), "`learning_rate > 0` must hold, but got learning_rate=nan"),
        ("learning_rate", 0, "`learning_rate > 0` must hold"),
        ("steps", 2.5, "`steps` must be an integer, but got 2.5"),
        ("steps", True, "`steps` must be an integer, but got True"),
        ("clip_norm", "1", "`clip_norm` must be a number, but got '1'"),
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


def test_json_is_the_whole_recipe_in_any_order() -> None:
    recipe = Recipe(steps=7, schedule="step", precision="bfloat16", ema_decay=0.9, dual_weight=0.1)
    document = recipe.to_json()
    assert set(document) == {field.name for field in dataclasses.fields(Recipe)}
    assert Recipe(**dict(sorted(document.items(), reverse=True))) == recipe  # type: ignore[arg-type]


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    recipe = Recipe(steps=np.int64(7), learning_rate=np.float32(0.5), weight_decay=0)  # type: ignore[arg-type]
    assert json.loads(json.dumps(recipe.to_json())) == Recipe(steps=7, learning_rate=0.5).to_json()


def test_each_setting_says_what_it_means_and_may_be() -> None:
    for name, rule in rules().items():
        assert rule.text, name
        assert (rule.kind is str) == bool(rule.allowed), name
        assert rule.kind is str or (rule.least is None) != (rule.above is None), name
