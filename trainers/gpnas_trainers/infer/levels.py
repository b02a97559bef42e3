"""Which levels the ensemble has: checked once, then handed on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from gpnas_trainers.infer.blending import BLENDS, Blend

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Levels:
    """What is averaged, besides networks."""

    tile: int | tuple[int, ...] = 120
    """Side of the tiles in LR pixels; 0 takes the whole image at once. Of several sides, each makes a
    whole image, and those are averaged. Where the image is smaller than a tile, the tile is as large as
    the image."""
    overlap: int | None = None
    """LR pixels that neighbouring tiles share, below every `tile`; None: half of each tile, the paper's
    60 of 120. The last tile is shifted inwards until it fits, so that all tiles have one size."""
    blend: Blend = "distance"
    """How tiles are weighted, as `blending.tile_weights`."""
    self_ensemble: bool = True
    """Average over the eight flips and transposes of each tile."""
    drop_outlier: bool = False
    """Leave out, at each pixel, the network that is farthest from the median of all, as
    `without_outlier`."""
    precision: Precision = "float32"
    """Type of the passes through the networks: `float32` is the type of each network's own parameters,
    the others are PyTorch's autocast; `float16` needs a GPU."""

    def __post_init__(self) -> None:
        sides = self.sides
        if not sides or min(sides) < 0 or (0 in sides and len(sides) > 1) or len({*sides}) < len(sides):
            raise ValueError(
                "`tile` must be one side in LR pixels, several different ones, or 0 for the whole image, "
                f"but got {self.tile}"
            )
        for side in sides:
            if side and self.overlap is not None and not 0 <= self.overlap < side:
                raise ValueError(
                    f"`0 <= overlap < tile` must hold (or tile=0, the whole image), but got "
                    f"overlap={self.overlap}, tile={side}"
                )
        if self.blend not in BLENDS:
            raise ValueError(f"`blend` must be one of {', '.join(BLENDS)}, but got {self.blend!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {', '.join(PRECISIONS)}, but got {self.precision!r}"
            )

    @property
    def sides(self) -> tuple[int, ...]:
        return self.tile if isinstance(self.tile, tuple) else (self.tile,)

    @property
    def transforms(self) -> range:
        return range(8) if self.self_ensemble else range(1)

    def overlap_of(self, tile: int) -> int:
        """LR pixels that neighbouring tiles of this side share."""
        return tile // 2 if self.overlap is None else self.overlap


def shares(count: int, weights: Sequence[float] | None, drop_outlier: bool) -> list[float]:
    """What each of `count` networks counts in their average; the sum is 1.

    Raises:
        ValueError: no network, or weights that are not one for each, non-negative, with some above 0.
    """
    if count < 1:
        raise ValueError("there must be at least one network, but got none")
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    fine = len(given) == count and all(math.isfinite(weight) and weight >= 0 for weight in given)
    if not fine or sum(given) <= 0:
        raise ValueError(
            f"`weights` must be non-negative, not all 0, and one for each of the {count} networks, "
            f"but got {given}"
        )
    counting = sum(weight > 0 for weight in given)
    if drop_outlier and counting < 3:
        raise ValueError(
            f"an outlier is one of at least 3 networks with a weight above 0, but got {counting}; "
            "keep all of them, without dropping an outlier"
        )
    return [weight / sum(given) for weight in given]


def without_outlier(outputs: Tensor, weights: Sequence[float]) -> Tensor:
    """The average of at least three images without, at each pixel, the one that is farthest from all.

    With x_k(p) the colour that network k gives pixel p and m(p) the median of all, by channel (of an
    even number the mean of the two middle ones), the network with the largest |x_k(p) - m(p)|² over
    the three channels is left out at p; of equally far ones the first. The others' weights a_k are
    divided by their sum. What is compared are whole results: after tiles and self-ensemble.

    Args:
        outputs: (K, 3, y, x), K at least 3.
        weights: a_k, all above 0.
    """
    ordered = outputs.sort(dim=0).values
    middle = len(outputs) // 2
    median = ordered[middle] if len(outputs) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    dropped = (outputs - median).square_().sum(dim=1).argmax(dim=0)  # (y, x)
    given = outputs.new_tensor(weights)
    total, result = given.sum() - given[dropped], outputs.new_zeros(outputs.shape[1:])
    for place, output in enumerate(outputs):
        result.addcmul_(output, given[place] * (dropped != place) / total)
    return result
