"""How a network is trained, as plain numbers that check themselves."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from gpnas_trainers.losses import ms_ssim_window

SCHEDULES = ("cosine", "step")
PRECISIONS = ("float32", "bfloat16", "float16")

FIRST_FIELDS = 10
"""Fields that every recipe's JSON holds; later ones stand in it only where they are not the default, so
that searches and bundles of before keep their recipe."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Checks itself; a rule broken is a `ValueError`."""

    steps: int = 300
    """Optimiser steps; at least 1."""
    batch_size: int = 8
    """Patches of a step; at least 1."""
    hr_patch: int = 48
    """Side of a training patch in HR pixels; a multiple of the scale."""
    learning_rate: float = 2e-3
    """Adam's, after warm-up; then falls by the schedule."""
    warmup_steps: int = 20
    """Steps over which the rate rises linearly."""
    weight_decay: float = 0.0
    """Decoupled (AdamW), per step and relative to the rate."""
    clip_norm: float = 1.0
    """Largest norm of the gradient over all parameters; 0 does not clip."""
    l1_weight: float = 1.0
    """Weight of the mean absolute error."""
    ms_ssim_weight: float = 0.1
    """Weight of 1 - MS-SSIM."""
    evaluate_every: int = 150
    """Steps between two validations; the last step always validates."""
    schedule: str = "cosine"
    """`cosine`: to 1 % of the rate. `step`: halved every `halve_every` steps, as RCAN was trained."""
    halve_every: int = 0
    """Steps between two halvings of the schedule `step`; 0 is a fifth of all steps, as RCAN's."""
    ema_decay: float = 0.0
    """Of the exponential moving average of the weights, below 1, such as 0.999. The average is what is
    validated and delivered. Early on it forgets faster: no decay exceeds (1 + step) / (10 + step). 0
    takes no average."""
    precision: str = "float32"
    """Of the network's forward and backward pass (autocast); weights and loss stay float32. `float16`
    needs a GPU."""
    micro_batch: int = 0
    """Patches that go through the network at once; the gradient is that of the whole batch. 0 is all,
    or what fits into memory."""
    dual_weight: float = 0.0
    """λ of the dual regression loss, 0.1 in its paper. Networks without dual networks ignore it; 0
    trains `dual_regression` as any other, on its largest image."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "hr_patch", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name} >= 1` must hold, but got {name}={getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "clip_norm", "l1_weight", "ms_ssim_weight",
                     "halve_every", "micro_batch", "dual_weight"):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name} >= 0` must hold, but got {name}={getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"`learning_rate > 0` must hold, but got {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`0 <= ema_decay < 1` must hold, but got ema_decay={self.ema_decay}")
        if self.l1_weight + self.ms_ssim_weight == 0:
            raise ValueError("`l1_weight + ms_ssim_weight > 0` must hold, but both are 0")
        for name, allowed in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(allowed)}, but got {getattr(self, name)!r}"
                )
        if self.ms_ssim_weight:
            ms_ssim_window(self.hr_patch)

    def to_json(self) -> dict[str, int | float | str]:
        """All that `Recipe` must be given to be equal to this one."""
        return {
            field.name: getattr(self, field.name)
            for place, field in enumerate(dataclasses.fields(self))
            if place < FIRST_FIELDS or getattr(self, field.name) != field.default
        }

    def learning_rate_at(self, step: int) -> float:
        """The rate of step number `step`, counted from 0: linear warm-up, then the schedule."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "step":
            return self.learning_rate * 0.5 ** (step // (self.halve_every or max(1, self.steps // 5)))
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def ema_decay_at(self, step: int) -> float:
        """How much of the average the step number `step`, counted from 0, leaves."""
        return min(self.ema_decay, (1 + step) / (10 + step))
