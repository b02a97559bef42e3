"""Notices that a training collapses before its weights do."""

from __future__ import annotations

import math

from gpnas_trainers.checkpoint import TrainingError

EXPLOSION = 10.0
"""Factor of the usual loss above which a loss is a collapse."""
SETTLED = 50
"""Steps after warm-up before which the loss is still allowed to jump."""


class CollapseError(TrainingError):
    """The training diverged."""


class LossGuard:
    """The last loss, and the usual one as a slow average.

    Args:
        warmup_steps: steps over which the rate rises.
    """

    def __init__(self, warmup_steps: int) -> None:
        self.loss = math.nan
        self.usual = math.nan
        self._settled = warmup_steps + SETTLED

    def check(self, loss: float, step: int) -> None:
        """Takes note of a step's loss.

        Raises:
            CollapseError: it is not finite, or far above the usual one.
        """
        self.loss = loss
        if not math.isfinite(loss):
            raise CollapseError(
                f"the loss must stay finite, but is {loss} at step {step}; "
                "lower `learning_rate` or `clip_norm`"
            )
        if math.isnan(self.usual):
            self.usual = loss
        if step > self._settled and loss > EXPLOSION * self.usual:
            raise CollapseError(
                f"the loss must not explode, but at step {step} is {loss:.4g} after {self.usual:.4g}; "
                "lower `learning_rate` or `clip_norm`"
            )
        self.usual += 0.05 * (loss - self.usual)
