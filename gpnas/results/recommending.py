"""Architectures to begin with, where there is little time: from shipped trainings and a short timing run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gpnas.data import prepared_pairs
from gpnas.errors import SpaceError
from gpnas.records import Architecture
from gpnas.run.cores import one_core
from gpnas.run.pricing import priced
from gpnas.run.shipped import Trained, shipped_trainings
from gpnas.space import Family, IntegerAxis, SearchSpace
from gpnas.surrogate import Surrogate, fit
from gpnas_trainers.pairs import MINIMUM_NCC, PairSet, Rules
from gpnas_trainers.recipe import Recipe
from gpnas_trainers.train import train

RECIPE = Recipe(steps=300, batch_size=8, hr_patch=48, learning_rate=6e-3, evaluate_every=25)
"""How the networks of the tables were trained."""
IMAGES = 10
"""Validation images of those trainings, at most."""
TIMED = (RECIPE.evaluate_every, 2 * RECIPE.evaluate_every)
"""Optimiser steps of the two trainings whose difference is the time from one validation to the next."""


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
        A JSON document: `hours`, `scale`, `trainings` of the tables, `steps` of each, `speed` of this machine
        beside the tables', and `architectures`, the most promising first.

    Raises:
        SpaceError: there is no table of this scale, or not even the cheapest can be trained in the time.
        DataError: no pairs can be made of the data.
    """
    trainings = shipped_trainings(scale)
    space, surrogate, times = _learned(trainings, scale)
    pairs = prepared_pairs(data, scale, Rules(RECIPE.hr_patch, MINIMUM_NCC), report=say)
    with one_core():
        speed = _speed(trainings, pairs.training, pairs.validation.head(IMAGES), scale)
    mean, _ = surrogate.mean_and_variance(space.features)
    low, high = surrogate.interval(space.features)
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
            f"`--hours` must be enough for one training, but the shortest takes {float(needed.min()):.3g} "
            f"and got {hours:g}"
        )
    return {
        "hours": hours,
        "scale": scale,
        "trainings": len(trainings),
        "steps": RECIPE.steps,
        "speed": speed,
        "architectures": [asdict(each) | {"architecture": each.architecture.to_json()} for each in chosen],
    }


def _learned(trainings: list[Trained], scale: int) -> tuple[SearchSpace, Surrogate, Surrogate]:
    """The architectures of the tables, and surrogates of their PSNR and of the logarithm of their seconds."""
    names = trainings[0].architecture.axes
    axes = [
        IntegerAxis(name, tuple(sorted({int(each.architecture.axes[name]) for each in trainings})))
        for name in names
    ]
    space = priced(SearchSpace([Family(trainings[0].architecture.family, tuple(axes))]), scale)
    x = space.features[[space.index(each.architecture) for each in trainings]]
    psnr = torch.tensor([each.psnr for each in trainings], dtype=torch.float64)
    seconds = torch.tensor([each.seconds for each in trainings], dtype=torch.float64)
    return space, fit(x, psnr, space.columns), fit(x, seconds.log(), space.columns, members=1)


def _speed(trainings: list[Trained], pairs: PairSet, validation: PairSet, scale: int) -> float:
    """Seconds of a step here over those of the tables: the mean ratio of a cheap and a dear network."""
    from gpnas_trainers import build

    ordered = sorted(trainings, key=lambda each: each.seconds)
    ratios = []
    for each in (ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]):
        seconds = []
        for steps in (1, *TIMED):  # what is done once, such as reading the pairs, is done in the first
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = build(each.architecture.family, scale, **each.architecture.axes)
            begun = time.process_time()
            train(network, pairs, validation, replace(RECIPE, steps=steps, warmup_steps=1), seed=0)
            seconds.append(time.process_time() - begun)
        step = max(1e-6, seconds[2] - seconds[1]) / (TIMED[1] - TIMED[0])
        ratios.append(step / (each.seconds / each.steps))
    return math.prod(ratios) ** (1 / len(ratios))
