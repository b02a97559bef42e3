"""How a network is trained, as plain numbers that check themselves; without torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar

MS_SSIM_LEVELS = 5
"""Scales of MS-SSIM; each halves the image."""
V = TypeVar("V", int, float, str)


@dataclass(frozen=True)
class Rule:
    """What one setting of a recipe means, and which values it may have."""

    kind: type[int] | type[float] | type[str]
    text: str
    """Its meaning in a few words, with the unit."""
    least: float | None = None
    above: float | None = None
    """A number has either of these."""
    below: float | None = None
    allowed: tuple[str, ...] = ()
    """All names that it may have; empty for a number."""


def _setting(default: V, text: str, **limits: Any) -> V:
    """A field with a default, and with the rule that these limits make."""
    found: V = dataclasses.field(default=default, metadata={"rule": Rule(type(default), text, **limits)})
    return found


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Checks itself; a rule broken is a `ValueError`.

    This is the only list of its settings: space files, recipe files and the command line follow it.
    """

    steps: int = _setting(300, "optimiser steps", least=1)
    batch_size: int = _setting(8, "patches of a step", least=1)
    hr_patch: int = _setting(48, "side of a training patch in HR pixels, a multiple of the scale", least=1)
    learning_rate: float = _setting(2e-3, "Adam's rate after warm-up; falls by the schedule", above=0)
    warmup_steps: int = _setting(20, "steps over which the rate rises linearly", least=0)
    weight_decay: float = _setting(0.0, "decoupled decay (AdamW), per step and relative to the rate", least=0)
    clip_norm: float = _setting(
        1.0, "largest norm of the gradient over all parameters; 0 does not clip", least=0
    )
    l1_weight: float = _setting(1.0, "weight of the mean absolute error in the loss", least=0)
    pixel_loss: str = _setting(
        "l1",
        "what `l1_weight` weighs: the mean absolute error, Charbonnier's smooth one, or the absolute error "
        "and in the last quarter of the steps the squared one",
        allowed=("l1", "charbonnier", "l2_after_l1"),
    )
    ms_ssim_weight: float = _setting(0.1, "weight of 1 - MS-SSIM in the loss", least=0)
    evaluate_every: int = _setting(
        150, "steps between two validations; the last step always validates", least=1
    )
    schedule: str = _setting(
        "cosine",
        "cosine falls to a hundredth of the rate; step halves it every `halve_every` steps, as for RCAN",
        allowed=("cosine", "step"),
    )
    halve_every: int = _setting(
        0, "steps between two halvings of the schedule `step`; 0 is a fifth of all steps", least=0
    )
    ema_decay: float = _setting(
        0.0,
        "decay of the average of the weights that is validated and delivered, such as 0.999; 0 takes none",
        least=0,
        below=1,
    )
    precision: str = _setting(
        "auto",
        "of the passes through the network; auto is bfloat16 on a GPU that has units for it, else float32. "
        "Weights and loss stay float32, and float16 needs a GPU",
        allowed=("auto", "float32", "bfloat16", "float16"),
    )
    compile: str = _setting(
        "no",
        "whether torch.compile makes the network's passes into fewer kernels, which takes minutes at first; "
        "max-autotune also measures which are fastest",
        allowed=("no", "default", "max-autotune"),
    )
    micro_batch: int = _setting(
        0, "patches that go through the network at once; 0 is all, or what fits into memory", least=0
    )
    images: str = _setting(
        "all",
        "which training images are drawn from: all, or a bootstrap sample of them by the training's seed, so "
        "that networks see different ones",
        allowed=("all", "bootstrap"),
    )
    dual_weight: float = _setting(
        0.0, "weight of the dual regression loss, 0.1 in its paper; for networks with dual networks", least=0
    )

    def __post_init__(self) -> None:
        for name, rule in rules().items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), rule))
        if self.l1_weight + self.ms_ssim_weight == 0:
            raise ValueError("`l1_weight + ms_ssim_weight > 0` must hold, but both are 0")
        if self.ms_ssim_weight:
            ms_ssim_window(self.hr_patch)

    def to_json(self) -> dict[str, int | float | str]:
        """All settings by name; `Recipe(**settings)` is equal to this one."""
        return dataclasses.asdict(self)

    def learning_rate_at(self, step: int) -> float:
        """The rate of step number `step`, counted from 0: linear warm-up, then the schedule."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "step":
            return self.learning_rate * 0.5 ** (step // (self.halve_every or max(1, self.steps // 5)))
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def pixel_loss_at(self, step: int) -> str:
        """`l1`, `charbonnier` or `l2`: the pixel loss of step number `step`, counted from 0."""
        if self.pixel_loss != "l2_after_l1":
            return self.pixel_loss
        return "l2" if step >= self.steps - self.steps // 4 else "l1"

    def ema_decay_at(self, step: int) -> float:
        """How much of the average the step number `step`, counted from 0, leaves.

        Early on the average forgets faster: no decay exceeds (1 + step) / (10 + step).
        """
        return min(self.ema_decay, (1 + step) / (10 + step))


def rules() -> dict[str, Rule]:
    """The rule of every setting of a recipe, by its name."""
    return {each.name: each.metadata["rule"] for each in dataclasses.fields(Recipe)}


def ms_ssim_window(side: int) -> int:
    """The window that MS-SSIM uses for images of this shorter side in pixels.

    At the fifth scale an image is a sixteenth of its size and must still hold the window: the usual
    11 needs a side above 160. A smaller patch gets the largest odd window that fits, down to 3, and
    all five scales with their usual weights; so the number is not comparable between sizes.

    Raises:
        ValueError: not even a window of 3 fits: the side is 32 or less.
    """
    window = min(11, (side - 1) // 2 ** (MS_SSIM_LEVELS - 1) + 1)
    window -= 1 - window % 2
    if window < 3:
        raise ValueError(
            f"MS-SSIM needs patches with sides above 32 HR pixels, but got {side}; "
            "take larger patches or a weight of 0"
        )
    return window


def _checked(name: str, value: Any, rule: Rule) -> int | float | str:
    """The value as its own type; a `ValueError` where it breaks the rule."""
    if rule.kind is str:
        if value not in rule.allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(rule.allowed)}, but got {value!r}")
        return str(value)
    kind: Any = Integral if rule.kind is int else Real
    if isinstance(value, bool) or not isinstance(value, kind):
        what = "an integer" if rule.kind is int else "a number"
        raise ValueError(f"`{name}` must be {what}, but got {value!r}")
    low = value > rule.above if rule.least is None else value >= rule.least
    if not (low and value < (rule.below or math.inf)):
        text = f"{name} > {rule.above:g}" if rule.least is None else f"{name} >= {rule.least:g}"
        if rule.below is not None:
            text = f"{rule.least:g} <= {name} < {rule.below:g}"
        raise ValueError(f"`{text}` must hold, but got {name}={value}")
    return rule.kind(value)
