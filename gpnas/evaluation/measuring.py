"""The measurement: every network, every pair, all, with and without each level of the ensemble."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpnas.bundle import Bundle
from gpnas.data import data_errors, prepared_pairs
from gpnas.ensemble import Average, default_device, load_networks, weights_of
from gpnas.errors import DataError
from gpnas.evaluation.results import DROP_OUTLIER, Evaluation
from gpnas.evaluation.tabulating import Levels, Subset, tabulate
from gpnas_trainers import infer
from gpnas_trainers.infer import Blend, Precision, upscale
from gpnas_trainers.infer.levels import shares
from gpnas_trainers.metrics import Channels, psnr, ssim
from gpnas_trainers.pairs import MINIMUM_NCC, Camera, PairSet, Rules, bicubic_upscale

LEVELS: tuple[Levels, ...] = ((), ("tiles",), ("self_ensemble",), ("tiles", "self_ensemble"))
"""Every combination of the ensemble's levels, besides the average of networks."""
MOST_PSNR = 100.0
"""dB; what is closer to HR counts as this, since one flawless image would make a mean infinite."""


def evaluation_pairs(bundle: Bundle, source: Path | None, say: Callable[[str], None]) -> list[PairSet]:
    """The pairs to judge a bundle by: never any that it was trained on.

    Args:
        bundle: tells what it was trained on.
        source: folder of LR/HR pairs. Where it is what the bundle was trained on, its validation
            images serve, else all of it, whatever its pairs' alignment. None takes the validation
            photographs.
        say: gets a line for each image that is left out.

    Raises:
        DataError: the folder cannot be used.
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
    return [every.training, every.validation]


def evaluate(
    bundle: Bundle,
    pairs: Sequence[PairSet],
    *,
    tile: int | tuple[int, ...] = 120,
    overlap: int | None = None,
    blend: Blend = "distance",
    tiles: bool = True,
    self_ensemble: bool = True,
    drop_outlier: bool = False,
    precision: Precision = "float32",
    average: Average = "weights",
    channels: Channels = "rgb",
    border: int = 0,
    progress: Callable[[float, int], None] | None = None,
) -> Evaluation:
    """The paper's Table 1 for a bundle: every network alone, every pair, all, beside bicubic.

    No other subsets: three or more networks make k·(k + 1)/2 + 1 rows of each combination of levels, two
    make 3 and one makes 1. Each network
    passes over an image once per combination, and all rows are averages of these outputs: beside the
    images of one pair, memory holds k outputs.

    Args:
        bundle: with its weights; of a pair's networks, their weights share out the whole.
        pairs: of the bundle's scale.
        tile, overlap, blend, precision: as the fields of `gpnas_trainers.infer.Levels`.
        tiles: whether rows with tiles are wanted; an image no larger than a tile is one tile.
        self_ensemble: whether rows with self-ensemble are wanted.
        drop_outlier: whether rows of all networks without the outlier at each pixel are wanted.
        average: `weights`, the bundle's, or `plain`, all equal.
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
    weights = weights_of(bundle, average)
    try:
        how = (
            infer.Levels(tile, overlap, blend, precision=precision)
            if tiles
            else infer.Levels(0, precision=precision)
        )
        shares(len(weights), weights, drop_outlier)
    except ValueError as error:
        raise DataError(str(error)) from None
    networks = load_networks(bundle, default_device())
    every = tuple(range(len(networks)))
    # what is averaged, and the level that does it
    averages: list[tuple[Levels, Subset]] = [
        ((), subset)
        for size in sorted({1, 2, len(networks)})
        for subset in itertools.combinations(every, size)
    ]
    if drop_outlier:
        averages.append(((DROP_OUTLIER,), every))
    wanted = [
        levels
        for levels in LEVELS
        if (tiles or "tiles" not in levels) and (self_ensemble or "self_ensemble" not in levels)
    ]
    # the first column is bicubic's; then come the averages, once per combination of levels
    scores = np.empty((len(images), 1 + len(wanted) * len(averages), 2))
    for row, (each, index) in enumerate(images):
        lr, hr = each.tensors(index)

        def told(share: float, done: int = row) -> None:
            if progress is not None:
                progress(done + share, len(images))

        def score(sr: Tensor, hr: Tensor = hr) -> tuple[float, float]:
            similarity = ssim(sr, hr, border=border, channels=channels)
            return min(psnr(sr, hr, border=border, channels=channels), MOST_PSNR), similarity

        try:
            scores[row, 0] = score(bicubic_upscale(lr, bundle.scale))
            column = 1
            for outputs in _outputs(networks, lr, bundle.scale, wanted, how, told):
                if outputs is None:  # one tile holds the image: as the same without tiles
                    scores[row, column : column + len(averages)] = scores[
                        row, column - len(averages) : column
                    ]
                    column += len(averages)
                    continue
                for dropped, subset in averages:
                    sr = _without_outlier(outputs, weights) if dropped else _average(outputs, weights, subset)
                    scores[row, column] = score(sr)
                    column += 1
        except ValueError as error:
            raise DataError(f"{each.names[index]}: {error}; leave this image out") from None
    return tabulate(
        bundle,
        tuple(each.names[index] for each, index in images),
        [(levels + dropped, subset) for levels in wanted for dropped, subset in averages],
        scores,
        weights,
        {"channels": channels, "border": border, "average": average, "precision": precision}
        | (_tiling(how) if tiles else {}),
    )


def _outputs(
    networks: Sequence[nn.Module],
    lr: Tensor,
    scale: int,
    wanted: Sequence[Levels],
    how: infer.Levels,
    told: Callable[[float], None],
) -> Iterator[list[Tensor] | None]:
    """What each network makes of an image, for each combination of levels.

    None where the combination before it, which has no tiles, gives the same.
    """
    one_tile = max(lr.shape[1:]) <= min(how.sides)
    # tiles with half overlap are about four times the image
    costs = [
        (8 if "self_ensemble" in levels else 1) * ((0 if one_tile else 4) if "tiles" in levels else 1)
        for levels in wanted
    ]
    spent, every = 0.0, sum(costs) * len(networks)
    for levels, cost in zip(wanted, costs, strict=True):
        if not cost:
            yield None
            continue
        outputs = []
        for network in networks:
            made = upscale(
                [network],
                lr,
                scale,
                tile=how.sides if "tiles" in levels else 0,
                overlap=how.overlap if "tiles" in levels else None,
                blend=how.blend,
                precision=how.precision,
                self_ensemble="self_ensemble" in levels,
                progress=lambda done, of, spent=spent, cost=cost: told((spent + cost * done / of) / every),  # type: ignore[misc]
            )
            outputs.append(made.cpu())
            spent += cost
        yield outputs


def _tiling(how: infer.Levels) -> dict[str, Any]:
    overlaps = [how.overlap_of(side) for side in how.sides]
    several = len(overlaps) > 1
    return {
        "tile": list(how.sides) if several else how.sides[0],
        "overlap": overlaps if several else overlaps[0],
        "blend": how.blend,
    }


def _without_outlier(outputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    used = [place for place, weight in enumerate(weights) if weight > 0]
    return infer.without_outlier(
        torch.stack([outputs[place] for place in used]), [weights[place] for place in used]
    )


def _average(outputs: Sequence[Tensor], weights: Sequence[float], subset: Subset) -> Tensor:
    """Weighed as in the bundle; members without weight among themselves count equally."""
    given = torch.tensor([weights[index] for index in subset])
    parts = given / given.sum() if given.sum() > 0 else torch.full_like(given, 1 / len(subset))
    average = torch.zeros_like(outputs[0])
    for index, part in zip(subset, parts.tolist(), strict=True):
        average.add_(outputs[index], alpha=part)
    return average
