"""The scores of images become the rows of a table: means, intervals, ranks, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnas.bundle import Bundle
from gpnas.evaluation.results import DIGITS, OF_NETWORKS, Difference, Evaluation, Interval, Row
from gpnas.evaluation.statistics import CONFIDENCE, RESAMPLES, SEED, bootstrap_intervals, ranks

LevelNames = tuple[str, ...]
Subset = tuple[int, ...]
Method = tuple[LevelNames, Subset]
"""LevelNames of the ensemble besides the average of networks, and which networks, from 0."""


def tabulate(
    bundle: Bundle,
    names: tuple[str, ...],
    methods: Sequence[Method],
    scores: NDArray[np.float64],  # (images, 1 + methods, 2)
    weights: Sequence[float],
    settings: Mapping[str, Any],
) -> Evaluation:
    """The table of a bundle.

    Args:
        bundle: whose networks were measured.
        names: of the images.
        methods: what was measured besides bicubic.
        scores: PSNR in dB and SSIM; bicubic's in column 0, each method's in the next.
        weights: of the networks in their average.
        settings: how they were measured, as JSON.
    """
    means = scores.mean(axis=0)
    psnr_intervals, ssim_intervals = _intervals(scores[..., 0]), _intervals(scores[..., 1])
    over_best = _differences(scores[..., 0] - scores[:, _best_single(methods, means), 0])
    over_bicubic = _differences(scores[..., 0] - scores[:, :1, 0])
    places = _places(methods, means)

    def row(column: int, levels: LevelNames, subset: Subset) -> Row:
        psnr_rank, ssim_rank = places.get(column, (None, None))
        return Row(
            networks=tuple(index + 1 for index in subset),
            members=tuple(bundle.members[index].architecture for index in subset),
            levels=(("networks",) if len(subset) > 1 else ()) + levels,
            psnr=float(means[column, 0]),
            ssim=float(means[column, 1]),
            psnr_interval=psnr_intervals[column],
            ssim_interval=ssim_intervals[column],
            per_image=tuple((float(psnr), float(ssim)) for psnr, ssim in scores[:, column]),
            psnr_rank=psnr_rank,
            ssim_rank=ssim_rank,
            over_best=over_best[column] if len(subset) > 1 else None,
            over_bicubic=over_bicubic[column] if subset else None,
        )

    return Evaluation(
        scale=bundle.scale,
        names=names,
        architectures=tuple(member.architecture for member in bundle.members),
        weights=tuple(weights),
        bicubic=row(0, (), ()),
        rows=tuple(row(column, *method) for column, method in enumerate(methods, start=1)),
        settings={
            **settings,
            "ssim": "gaussian window 11x11, sigma 1.5, inside the image",
            "bootstrap": "percentile",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "seed": SEED,
        },
    )


def _intervals(scores: NDArray[np.float64]) -> list[Interval | None]:  # (images, columns)
    if len(scores) == 1:
        return [None] * scores.shape[1]
    return [(float(low), float(high)) for low, high in bootstrap_intervals(scores)]


def _differences(over: NDArray[np.float64]) -> list[Difference]:  # (images, columns)
    means = over.mean(axis=0)
    return [Difference(float(mean), between) for mean, between in zip(means, _intervals(over), strict=True)]


def _best_single(methods: Sequence[Method], means: NDArray[np.float64]) -> list[int]:
    """Rows, one for each column, of the network that is best alone with the same levels, by PSNR."""
    best: dict[LevelNames, int] = {}
    for column, (levels, subset) in enumerate(methods, start=1):
        if len(subset) == 1 and (levels not in best or means[column, 0] > means[best[levels], 0]):
            best[levels] = column
    return [0, *(best[tuple(each for each in levels if each not in OF_NETWORKS)] for levels, _ in methods)]


def _places(methods: Sequence[Method], means: NDArray[np.float64]) -> dict[int, tuple[int, int]]:
    """Ranks by PSNR and by SSIM of each column that has others of as many networks and the same levels."""
    categories: dict[tuple[LevelNames, int], list[int]] = {}
    for column, (levels, subset) in enumerate(methods, start=1):
        categories.setdefault((levels, len(subset)), []).append(column)
    places: dict[int, tuple[int, int]] = {}
    for columns in categories.values():
        if len(columns) > 1:
            psnr, ssim = (
                ranks(means[columns, kind].tolist(), digits) for kind, digits in enumerate(DIGITS.values())
            )
            places |= dict(zip(columns, zip(psnr, ssim, strict=True), strict=True))
    return places
