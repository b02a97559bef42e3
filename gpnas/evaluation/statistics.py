"""What a mean over images can tell: bootstrap intervals, and ranks as in the paper's Table 1.

Shapes: n images, m columns of scores, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0

CHUNK = 2**22
"""Numbers that are held at once, at most."""

Floats = NDArray[np.floating[Any]]


def bootstrap_intervals(
    scores: Floats,  # (n, m)
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> Floats:
    """Percentile intervals of each column's mean over images, (m, 2): low and high.

    B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993, chapter 13. Images are drawn with
    replacement, the same ones for all columns and all calls with one seed and n, so that differences of
    columns are paired. Drawn and cut as `scipy.stats.bootstrap(method="percentile")` does. With few
    images, say below ten, the intervals are too narrow; those of one image have no width.

    Args:
        scores: a row per image, a column per method, or per difference of two.
        resamples: R.
        confidence: share of the resampled means that an interval holds.
        seed: of the draws.
    """
    n, m = scores.shape
    width = max(1, CHUNK // resamples)
    tails = np.array([0.5 - confidence / 2, 0.5 + confidence / 2])
    intervals = np.empty((m, 2))
    for begin in range(0, m, width):
        columns = scores[:, begin : begin + width]
        means = np.empty((resamples, columns.shape[1]))
        generator = np.random.default_rng(seed)
        height = max(1, CHUNK // n)
        for row in range(0, resamples, height):
            rows = min(height, resamples - row)
            drawn = generator.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
            means[row : row + rows] = counts @ columns / n
        intervals[begin : begin + width] = np.quantile(means, tails, axis=0).T
    return intervals


def ranks(values: Sequence[float], digits: int) -> list[int]:
    """Places, 1 for the largest; equal where the values are once printed, as in the paper's Table 1.

    Args:
        values: means of a category's methods.
        digits: after the point, as printed.
    """
    printed = [round(value, digits) for value in values]
    return [1 + sum(other > value for other in printed) for value in printed]
