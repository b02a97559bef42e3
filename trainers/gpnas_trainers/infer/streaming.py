"""Images through the ensemble, from the top down: what is held is bounded by their tiles.

Tiles of all images wait in pools, one for each shape, until a batch is full: oblong tiles do not mix
with transposed ones, and small images of equal size share batches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gpnas_trainers.fusion import Fusion
from gpnas_trainers.infer.canvas import TYPES, Canvas, Item, RowReader
from gpnas_trainers.infer.levels import Levels, shares
from gpnas_trainers.infer.passes import batch_limit, in_parallel, outputs_of, runners_of

WAITING = 64
"""Images at most whose tiles wait for others of their shape."""


class Rows(NamedTuple):
    """Finished rows of a super-resolved image."""

    image: int
    """Its place among the images."""
    top: int
    """The first of the rows, in HR pixels."""
    pixels: Tensor
    """(3, n, scale·w) on the networks' device: in [0, 1], or levels where `bits` was given."""


def upscale_rows(  # noqa: PLR0913 - the ensemble's face for Python: the last seven may be left out
    networks: Sequence[nn.Module],
    images: Sequence[RowReader],
    scale: int,
    levels: Levels | None = None,
    *,
    weights: Sequence[float] | None = None,
    fusion: Fusion | None = None,
    batch_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    bits: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Rows]:
    """Super-resolves images that need not fit the memory; each one's rows come from the top down.

    Beside what the networks need for their batches, memory holds the rows of one image's tallest tile as
    they were read, and what becomes of them: pixels that the next tiles reach again as sums of
    12 bytes · scale² for each LR pixel (as often as there are networks where an outlier is dropped), the
    others as they are given away. On a CPU as many batches are under way as `torch.get_num_threads()`
    tells.

    Args:
        networks: at least one; each maps (B, 3, y, x) to (B, 3, scale·y, scale·x), on the device and in
            the type of its own parameters. They are switched to evaluation mode.
        images: each is read once, in order; of small ones several are under way.
        scale: HR pixels per LR pixel.
        levels: of the ensemble; None is `Levels()`, the paper's.
        weights: a_k, one per network, non-negative; divided by their sum. None: all equal. A network of
            weight 0 is not used.
        fusion: has weights for each pixel of each pass, in place of `weights`; for as many networks.
        batch_size: tiles, in any orientation, that pass a network at once; None: as many as suit the
            device. Whole images (tile 0) pass one by one.
        dtype: in which tiles are added up.
        bits: 8 or 16 rounds the result to the nearest of 0 … 2^bits - 1, as uint8 or uint16. None: it is
            of `dtype`, in [0, 1].
        progress: called with passes of a tile through a network done and all, after each batch.

    Raises:
        ValueError: an argument breaks its rule, or a network's output has another size.
        torch.OutOfMemoryError: not even one tile fits the GPU.
    """
    levels = levels or Levels()
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"`batch_size >= 1` must hold, but got {batch_size}")
    if bits not in (None, *TYPES):
        raise ValueError(f"`bits` must be None, 8 or 16, but got {bits}")
    given = _given(len(networks), weights, fusion, levels)
    used = [network for network, share in zip(networks, given, strict=True) if share > 0]
    runners, counts = runners_of(used, levels.precision, dtype), [share for share in given if share > 0]
    whole = levels.sides == (0,)
    layers = len(runners) if levels.drop_outlier else 1
    like = torch.empty((), dtype=dtype, device=runners[0].device)

    def work(batch: list[Item]) -> Tensor:  # (B, layers, 3, s·y, s·x)
        with torch.inference_mode():
            tiles = torch.stack([item.pixels for item in batch])
            outputs = outputs_of(runners, tiles, scale, levels.precision, dtype)
            there = (output.to(like.device) for output in outputs)
            if fusion is not None:
                return fusion([*there])[:, None]
            if layers > 1:
                return torch.stack([*there], dim=1)
            parts = (output.mul_(share) for output, share in zip(there, counts, strict=True))
            return reduce(Tensor.add_, parts)[:, None]

    def limit(shape: torch.Size) -> int:
        if whole:
            return 1
        return batch_size or batch_limit(runners, shape[1] * shape[2])

    def canvases() -> Iterator[Canvas]:
        for number, image in enumerate(images):
            yield Canvas(number, image, scale, levels, counts, like, bits)

    # a whole image's features may be large: then all cores share each layer of one
    workers = 1 if whole or like.device.type != "cpu" else torch.get_num_threads()
    every = len(runners) * sum(Canvas(0, image, scale, levels, counts, like, bits).passes for image in images)
    done = 0
    for batch, outputs in in_parallel(work, _batches(canvases(), limit), workers):
        done += len(batch) * len(runners)
        if progress is not None:
            progress(done, every)
        for item, output in zip(batch, outputs, strict=True):
            item.canvas.add(item, output)
            # nothing here keeps rows that the caller has let go
            yield from (Rows(item.canvas.number, *each) for each in item.canvas.finished())


def _given(count: int, weights: Sequence[float] | None, fusion: Fusion | None, levels: Levels) -> list[float]:
    """What each network counts; where they are fused, all of them are used."""
    if fusion is None:
        return shares(count, weights, levels.drop_outlier)
    if fusion.networks != count or levels.drop_outlier:
        raise ValueError(
            f"a fusion of {fusion.networks} networks must fuse as many, without dropping an outlier, but got "
            f"{count}" + (" and `drop_outlier`" if levels.drop_outlier else "")
        )
    return shares(count, None, False)


def _batches(canvases: Iterator[Canvas], limit: Callable[[torch.Size], int]) -> Iterator[list[Item]]:
    """All items of all images, those of one shape together."""
    pools = defaultdict[torch.Size, list[Item]](list)
    waiting: list[Canvas] = []
    for canvas in canvases:
        for item in canvas.items():
            shape = item.pixels.shape
            pools[shape].append(item)
            if len(pools[shape]) >= limit(shape):
                yield pools.pop(shape)
        waiting = [*(each for each in waiting if not each.done), canvas]
        if len(waiting) > WAITING:
            yield from (pools.pop(shape) for shape in list(pools))
            waiting.clear()
    yield from pools.values()
