"""What a pair must keep, and which pairs are held for validation."""

from __future__ import annotations

from dataclasses import dataclass

from gpnas_trainers.pairs.errors import PairsError

MINIMUM_NCC = 0.99
"""The least agreement of LR with HR in the paper (Pan et al. 2020, Sec. 4.1)."""


@dataclass(frozen=True)
class Rules:
    """Which pairs of a folder are usable, and how they are split."""

    minimum_side: int = 48
    """The smallest HR side of a pair, in pixels; at least that of the patches to be drawn."""
    minimum_ncc: float = 0.0
    """The least `checks.ncc` of a pair, 0 … 1; 0 excludes none, and the paper demands `MINIMUM_NCC`."""
    maximum_shift: float | None = None
    """The greatest length of `checks.shift`, in LR pixels; None excludes none."""
    downsample_lr: bool = False
    """Whether LR images of HR's size (registered captures, as in City100 and RealSR version 1 and 2) are
    downsampled by the scale, bicubic with antialiasing; else they break a rule."""
    seed: int = 0
    """The seed of the split, and of the synthetic camera."""
    validation_fraction: float = 0.2
    """The share of the pairs held for validation, rounded, but at least one pair; 0 … 1. With 1 all are,
    and nothing is left to train on."""
    max_validation: int | None = 10
    """The largest number of pairs held for validation; None sets no limit."""

    def __post_init__(self) -> None:
        if self.minimum_side < 1:
            raise PairsError(f"`minimum_side >= 1` must hold, but got {self.minimum_side}")
        if not 0 <= self.minimum_ncc <= 1:
            raise PairsError(f"`0 <= ncc <= 1` must hold, but got {self.minimum_ncc:g}")
        if self.maximum_shift is not None and not self.maximum_shift > 0:
            raise PairsError(f"`shift > 0` must hold, but got {self.maximum_shift:g}")
        if not 0 < self.validation_fraction <= 1:
            raise PairsError(f"`0 < validation_fraction <= 1` must hold, but got {self.validation_fraction}")
        if self.max_validation is not None and self.max_validation < 1:
            raise PairsError(f"`max_validation >= 1` must hold, but got {self.max_validation}")


LENIENT = Rules()
"""Misalignment excludes nothing."""
PAPER = Rules(minimum_ncc=MINIMUM_NCC)
"""The paper's limit on misalignment."""
