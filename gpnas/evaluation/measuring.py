"""The measurement: every network, every pair, all, with and without each level of the ensemble."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpnas.bundle import Bundle
from gpnas.data import data_errors, prepared_pairs
from gpnas.ensemble import Average, default_device, load_fusion, load_networks, weights_of
from gpnas.errors import DataError
from gpnas.evaluation.results import DROP_OUTLIER, FUSED, Evaluation
from gpnas.evaluation.tabulating import LevelNames, Subset, tabulate
from gpnas_trainers import infer
from gpnas_trainers.fusion import Fusion
from gpnas_trainers.infer import upscale
from gpnas_trainers.metrics import Channels, psnr, ssim
from gpnas_trainers.pairs import MINIMUM_NCC, Camera, PairSet, Rules, bicubic_upscale

COMBINATIONS: tuple[LevelNames, ...] = ((), ("tiles",), ("self_ensemble",), ("tiles", "self_ensemble"))
"""Every combination of the ensemble's levels, besides the average of networks."""
MOST_PSNR = 100.0
"""dB; what is closer to HR counts as this, since one flawless image would make a mean infinite."""


def evaluation_pairs(bundle: Bundle, source: Path | None, say: Callable[[str], None]) -> list[PairSet]:
    """The pairs to judge a bundle by: never any that it was trained on.

    Args:
        bundle: tells what it was trained on.
        source: folder of LR/HR pairs. Where it is what the bundle was trained on, its validation
            images serve, else all of it but pictures that the bundle was trained on, whatever its pairs'
            alignment. None takes the validation photographs.
        say: gets a line for each image that is left out.

    Raises:
        DataError: the folder cannot be used, or the bundle was trained on all of it.
    """
    data: dict[str, Any] = bundle.manifest.data
    recipe: dict[str, Any] = bundle.manifest.recipe
    with data_errors():
        camera, side = Camera(**(data.get("camera") or {})), recipe.get("hr_patch", 48)
    with suppress(DataError):  # too few may be left when prepared as for a search
        lines: list[str] = []
        rules = Rules(minimum_side=side, minimum_ncc=MINIMUM_NCC)
        searched = prepared_pairs(source, bundle.scale, rules, camera=camera, report=lines.append)
        if source is None or searched.validation.fingerprint == data.get("validation"):
            for line in lines:
                say(line)
            return [searched.validation]
    every = prepared_pairs(source, bundle.scale, Rules(minimum_side=side), camera=camera, report=say)
    sets = [every.training, every.validation]
    judged = [each.without(frozenset(data.get("pictures", ()))) for each in sets]
    seen = sum(map(len, sets)) - sum(map(len, judged))
    if seen and not any(map(len, judged)):
        raise DataError(
            f"{source}: a bundle must be judged by pictures that it was not trained on, but all {seen} are; "
            "name others with --data"
        )
    if seen:
        say(f"{seen} of {sum(map(len, sets))} pictures are left out: the bundle was trained on them")
    return judged


def evaluate(
    bundle: Bundle,
    pairs: Sequence[PairSet],
    levels: infer.Levels | None = None,
    *,
    tiles: bool = True,
    average: Average = "fused",
    channels: Channels = "rgb",
    border: int = 0,
    progress: Callable[[float, int], None] | None = None,
) -> Evaluation:
    """The paper's Table 1 for a bundle: every network alone, every pair, all, beside bicubic.

    No other subsets: three or more networks make k·(k + 1)/2 + 1 rows of each combination of levels, two
    make 3 and one makes 1. Each network passes over an image once per combination, and all rows are averages
    of these outputs: beside the images of one pair, memory holds k outputs.

    Args:
        bundle: with its weights; of a pair's networks, their weights share out the whole.
        pairs: of the bundle's scale.
        levels: of the ensemble; rows with and without self-ensemble are made where they have it, and rows of
            all networks without the outlier at each pixel where they drop that. None is `Levels()`.
        tiles: whether rows with tiles are wanted; an image no larger than a tile is one tile.
        average: `fused`: beside the bundle's weights, a row of all networks with weights for each pixel,
            for which they pass once more, where the bundle has some; `weights`: the bundle's alone; or
            `plain`: all equal.
        channels: `rgb`, or `y` of BT.601 as papers on Set5 and the like report.
        border: HR pixels dropped on each side first.
        progress: called with images done, in fractions too, and all.

    Raises:
        DataError: there is no image, one is too small for the border and SSIM's window, or levels break
            a rule.
        BundleError: the bundle's weights do not fit its architectures.
    """
    images = [(each, index) for each in pairs for index in range(len(each))]
    if not images:
        raise DataError("there must be at least one pair to evaluate on, but there is none")
    levels = levels or infer.Levels()
    weights = weights_of(bundle, average, levels.drop_outlier)
    networks = load_networks(bundle, default_device())
    fusion = load_fusion(bundle, average, default_device())
    average = "weights" if fusion is None and average == "fused" else average
    besides = [name for name, given in ((DROP_OUTLIER, levels.drop_outlier), (FUSED, fusion)) if given]
    averages = _averages(len(networks), besides)
    wanted = [
        names
        for names in COMBINATIONS
        if (tiles or "tiles" not in names) and (levels.self_ensemble or "self_ensemble" not in names)
    ]
    # the first column is bicubic's; then come the averages, once per combination of levels
    scores = np.empty((len(images), 1 + len(wanted) * len(averages), 2))
    for row, (each, index) in enumerate(images):
        lr, hr = each.tensors(index)

        def watch(share: float, done: int = row) -> None:
            if progress is not None:
                progress(done + share, len(images))

        def score(sr: Tensor, hr: Tensor = hr) -> tuple[float, float]:
            similarity = ssim(sr, hr, border=border, channels=channels)
            return min(psnr(sr, hr, border=border, channels=channels), MOST_PSNR), similarity

        try:
            columns = [[score(bicubic_upscale(lr, bundle.scale))]]
            for outputs in _outputs(networks, fusion, lr, wanted, levels, watch, bundle.scale):
                # where one tile holds the image, the same as without tiles
                columns.append(columns[-1] if outputs is None else _scores(outputs, averages, weights, score))
        except ValueError as error:
            raise DataError(f"{each.names[index]}: {error}; leave this image out") from None
        scores[row] = list(itertools.chain.from_iterable(columns))
    return tabulate(
        bundle,
        tuple(each.names[index] for each, index in images),
        [(names + dropped, subset) for names in wanted for dropped, subset in averages],
        scores,
        weights,
        {"channels": channels, "border": border, "average": average, "precision": levels.precision}
        | (_tiling(levels) if tiles else {}),
    )


def _averages(count: int, besides: Sequence[str]) -> list[tuple[LevelNames, Subset]]:
    """Which of so many networks are averaged, and what else is done to all of them."""
    every = tuple(range(count))
    sizes = sorted({1, 2, count})
    plain: list[tuple[LevelNames, Subset]] = [
        ((), subset) for size in sizes for subset in itertools.combinations(every, size)
    ]
    return [*plain, *(((each,), every) for each in besides)]


def _scores(
    outputs: Sequence[Tensor],
    averages: Sequence[tuple[LevelNames, Subset]],
    weights: Sequence[float],
    score: Callable[[Tensor], tuple[float, float]],
) -> list[tuple[float, float]]:
    def averaged(levels: LevelNames, subset: Subset) -> Tensor:
        match levels:
            case ("fused",):
                return outputs[-1]  # they passed together once more
            case ("drop_outlier",):
                used = [place for place, weight in enumerate(weights) if weight > 0]
                kept = torch.stack([outputs[place] for place in used])
                return infer.without_outlier(kept, [weights[place] for place in used])
        return _average(outputs, weights, subset)

    return [score(averaged(*each)) for each in averages]


def _outputs(
    networks: Sequence[nn.Module],
    fusion: Fusion | None,
    lr: Tensor,
    wanted: Sequence[LevelNames],
    levels: infer.Levels,
    watch: Callable[[float], None],
    scale: int,
) -> Iterator[list[Tensor] | None]:
    """What each network makes of an image, and all of them fused at the end, for each combination of levels.

    None where the combination before it, which has no tiles, gives the same.
    """
    one_tile = max(lr.shape[1:]) <= min(levels.sides)
    # tiles with half overlap are about four times the image
    costs = [
        (8 if "self_ensemble" in names else 1) * ((0 if one_tile else 4) if "tiles" in names else 1)
        for names in wanted
    ]
    parts: list[tuple[list[nn.Module], Fusion | None]] = [([network], None) for network in networks]
    parts += [] if fusion is None else [([*networks], fusion)]
    spent, every = 0.0, sum(costs) * sum(len(together) for together, _ in parts)
    for names, cost in zip(wanted, costs, strict=True):
        if not cost:
            yield None
            continue
        whole = levels if "tiles" in names else replace(levels, tile=0, overlap=None)
        used = replace(whole, self_ensemble="self_ensemble" in names, drop_outlier=False)
        outputs = []
        for together, fused_by in parts:
            share = cost * len(together)

            def passed(done: int, of: int, spent: float = spent, share: int = share) -> None:
                watch((spent + share * done / of) / every)

            outputs.append(upscale(together, lr, scale, used, fusion=fused_by, progress=passed).cpu())
            spent += share
        yield outputs


def _tiling(levels: infer.Levels) -> dict[str, Any]:
    overlaps = [levels.overlap_of(side) for side in levels.sides]
    several = len(overlaps) > 1
    return {
        "tile": list(levels.sides) if several else levels.sides[0],
        "overlap": overlaps if several else overlaps[0],
        "blend": levels.blend,
    }


def _average(outputs: Sequence[Tensor], weights: Sequence[float], subset: Subset) -> Tensor:
    """Weighed as in the bundle; members without weight among themselves count equally."""
    given = torch.tensor([weights[index] for index in subset])
    parts = given / given.sum() if given.sum() > 0 else torch.full_like(given, 1 / len(subset))
    average = torch.zeros_like(outputs[0])
    for index, part in zip(subset, parts.tolist(), strict=True):
        average.add_(outputs[index], alpha=part)
    return average
