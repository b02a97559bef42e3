"""Training patches by step, on the device where the network is."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from gpnas_trainers.pairs import PairSet
from gpnas_trainers.pairs.resident import resident
from gpnas_trainers.recipe import Recipe

Batch = tuple[Tensor, Tensor]
"""LR (B, 3, h, w) and HR (B, 3, s·h, s·w), channels last."""


class Batches:
    """Batches as a pure function of (seed, step).

    Pairs that do not fit a GPU are cut on the CPU: the next step's in a thread while the GPU computes, in
    memory that is pinned, from which they are copied without anyone waiting.

    Args:
        pairs: to draw patches from.
        recipe: how many patches, how large, of which images.
        seed: of the draws.
        rows: of each batch, the part that is wanted.
        device: where to.
    """

    def __init__(
        self, pairs: PairSet, recipe: Recipe, seed: int, rows: slice, device: torch.device | str
    ) -> None:
        self._device = torch.device(device)
        if recipe.images == "bootstrap":
            pairs = pairs.resampled(np.random.default_rng((seed, 0, 1)))  # not a step's draws
        self._source = resident(pairs, self._device)
        self._recipe, self._seed, self._rows = recipe, seed, rows
        ahead = self._device.type == "cuda" and self._source is pairs
        self._pool = ThreadPoolExecutor(1, "patches") if ahead else None
        self._next: tuple[int, Future[Batch]] | None = None

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        if self._pool is None:
            lr, hr = self._drawn(step)
        else:
            expected, drawn = self._next or (None, None)
            lr, hr = self._drawn(step) if drawn is None or expected != step else drawn.result()
            self._next = step + 1, self._pool.submit(self._drawn, step + 1)
        return self._sent(lr), self._sent(hr)

    def _drawn(self, step: int) -> Batch:
        generator = np.random.default_rng((self._seed, step))
        lr, hr = self._source.patches(
            self._recipe.batch_size, self._recipe.hr_patch, generator, rows=self._rows
        )
        return (lr, hr) if self._pool is None else (lr.pin_memory(), hr.pin_memory())

    def _sent(self, patches: Tensor) -> Tensor:
        return patches.to(self._device, non_blocking=True).contiguous(memory_format=torch.channels_last)
