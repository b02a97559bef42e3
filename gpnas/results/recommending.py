"""Architectures to begin with, where there is little time: from shipped trainings and a short timing run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gpnas.config import find_space, read_space_file
from gpnas.data import Prepared, prepared_pairs
from gpnas.errors import SpaceError
from gpnas.records import Architecture
from gpnas.run.cores import one_core
from gpnas.run.pricing import priced
from gpnas.run.shipped import SPACE, Trained, shipped_trainings
from gpnas.space import SearchSpace
from gpnas.surrogate import Surrogate, fit
from gpnas_trainers import build
from gpnas_trainers.pairs import MINIMUM_NCC, Rules
from gpnas_trainers.recipe import Recipe
from gpnas_trainers.train import train

IMAGES = 10
"""Validation images of those trainings, at most."""
TIMED, FEW = 10, 2
"""Optimiser steps and validation images that are timed of each family."""


@dataclass(frozen=True)
class Recommended:
    """An architecture to train."""

    architecture: Architecture
    mean: float
    """Expected PSNR after the table's steps on the photographs of the table, in dB."""
    low: float
    high: float
    """Bounds that hold one training with a probability of 90 %."""
    hours: float
    """Hours of one core of this machine."""


def recommend(
    data: Path | None, hours: float, scale: int, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The architectures that promise most among those that can be trained within some hours.

    Args:
        data: a folder of pairs, on which steps are timed; None is the shipped photographs.
        hours: of one core, for all trainings together.
        scale: of the networks.
        say: called with lines about the pairs.

    Returns:
        A JSON document: `hours`, `scale`, `trainings` of the table, `steps` of each, `speeds` by family (what
        a training takes here over what it took where the table was made), and `architectures`, the most
        promising first.

    Raises:
        SpaceError: there is no table of this scale, or not even the cheapest can be trained in the time.
        DataError: no pairs can be made of the data.
    """
    trainings = shipped_trainings(scale)
    recipes = shipped_recipes()
    space, surrogate, times = _learned(trainings, scale)
    rules = Rules(max(recipe.hr_patch for recipe in recipes.values()), MINIMUM_NCC)
    pairs = prepared_pairs(data, scale, rules, report=say)
    middle = {family: _middle(trainings, family) for family in recipes}
    with one_core():
        # what is done once, such as reading the pairs, is not timed
        cheapest = min(recipes, key=lambda family: middle[family].seconds)
        _seconds(1, middle[cheapest].architecture, recipes[cheapest], pairs, scale)
        speeds = {family: _speed(middle[family], recipe, pairs, scale) for family, recipe in recipes.items()}
    mean, _ = surrogate.mean_and_variance(space.features)
    low, high = surrogate.interval(space.features)
    speed = torch.tensor([speeds[each.family] for each in space], dtype=torch.float64)
    needed = times.mean_and_variance(space.features)[0].exp() * speed / 3600
    chosen, spent = [], 0.0
    for index in mean.argsort(descending=True, stable=True).tolist():
        own = float(needed[index])
        if spent + own <= hours:
            spent += own
            expected, least, most = (float(each[index]) for each in (mean, low, high))
            chosen.append(Recommended(space[index], expected, least, most, own))
    if not chosen:
        raise SpaceError(
            f"`--hours` must be enough for one training, but the shortest takes {float(needed.min()):.2g} "
            f"hours and got {hours:g}; give more"
        )
    return {
        "hours": hours,
        "scale": scale,
        "trainings": len(trainings),
        "steps": next(iter(recipes.values())).steps,
        "speeds": speeds,
        "architectures": [asdict(each) | {"architecture": each.architecture.to_json()} for each in chosen],
    }


def shipped_recipes() -> dict[str, Recipe]:
    """How the networks of each family of the table were trained."""
    path = find_space(SPACE)
    file = read_space_file(path)
    common, own = file.common_recipe.to_json(), file.families.recipes
    return {
        family.name: Recipe(**{**common, **own.get(family.name, {})})
        for family in file.search_space().families
    }


def _learned(trainings: list[Trained], scale: int) -> tuple[SearchSpace, Surrogate, Surrogate]:
    """The space of the table, and surrogates of the PSNR of its architectures and the logarithm of their
    seconds."""
    file = read_space_file(find_space(SPACE))
    space = priced(file.search_space(), scale, file.limits.given())
    x = space.features[[space.index(each.architecture) for each in trainings]]
    psnr = torch.tensor([each.psnr for each in trainings], dtype=torch.float64)
    seconds = torch.tensor([each.seconds for each in trainings], dtype=torch.float64)
    return space, fit(x, psnr, space.columns), fit(x, seconds.log(), space.columns, members=1)


def _middle(trainings: list[Trained], family: str) -> Trained:
    """The training of a family that as many took less time than as took more."""
    own = sorted(
        (each for each in trainings if each.architecture.family == family), key=lambda each: each.seconds
    )
    return own[len(own) // 2]


def _speed(trained: Trained, recipe: Recipe, pairs: Prepared, scale: int) -> float:
    """What a training would take here over what it took where the table was made.

    A training of one step is what a validation takes, but for that step.
    """
    one, more = (_seconds(steps, trained.architecture, recipe, pairs, scale) for steps in (1, 1 + TIMED))
    step = max(1e-6, more - one) / TIMED
    images, few = (len(pairs.validation.head(count)) for count in (IMAGES, FEW))
    validating = max(0.0, one - step) * images / few
    validations = -(-recipe.steps // recipe.evaluate_every)
    return (recipe.steps * step + validations * validating) / trained.seconds


def _seconds(steps: int, architecture: Architecture, recipe: Recipe, pairs: Prepared, scale: int) -> float:
    """What so many steps and a validation on few images take."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(architecture.family, scale, **architecture.axes)
    short = replace(recipe, steps=steps, warmup_steps=1, evaluate_every=steps)
    begun = time.process_time()
    train(network, pairs.training, pairs.validation.head(FEW), short, seed=0)
    return time.process_time() - begun
