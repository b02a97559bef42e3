"""Notices that a training collapses before its weights do."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gpnas_trainers.checkpoint import TrainingError

EXPLOSION = 10.0
"""Factor of the usual loss above which a loss is a collapse."""
SETTLED = 50
"""Steps after warm-up before which the loss is still allowed to jump."""
LOOKED_EVERY = 16
"""Steps on a GPU between two looks at their losses. Each look waits until the GPU has done all that it was
given; a collapse is noticed so many steps later."""


def looked_every(device: torch.device | str) -> int:
    """Steps between two looks at losses that lie on a device."""
    return LOOKED_EVERY if torch.device(device).type == "cuda" else 1


class CollapseError(TrainingError):
    """The training diverged."""


class LossGuard:
    """The last loss, and the usual one as a slow average.

    Args:
        warmup_steps: steps over which the rate rises.
        every: steps between two looks at the losses.
        total: makes of this process's losses those of all processes.
    """

    def __init__(
        self, warmup_steps: int, every: int, total: Callable[[Tensor], Tensor] = lambda losses: losses
    ) -> None:
        self.loss = math.nan
        self.usual = math.nan
        self.every = every
        self._settled = warmup_steps + SETTLED
        self._total = total
        self._unseen: list[tuple[int, Tensor]] = []  # by step, on the device

    def note(self, loss: Tensor, step: int) -> None:
        """Takes a step's loss, a scalar on any device, and looks at all when it is time; errors as `look`."""
        self._unseen.append((step, loss.detach()))
        if len(self._unseen) >= self.every:
            self.look()

    def look(self) -> None:
        """Checks the losses of the steps since the last look.

        Raises:
            CollapseError: one of them tells of a collapse.
        """
        if self._unseen:
            steps, losses = zip(*self._unseen, strict=True)
            self._unseen.clear()
            together = self._total(torch.stack(losses).double())
            for step, loss in zip(steps, together.tolist(), strict=True):
                self.check(loss, step)

    def forget(self) -> None:
        """Drops the losses that were not looked at."""
        self._unseen.clear()

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
