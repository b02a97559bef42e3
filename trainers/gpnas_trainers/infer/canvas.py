"""One image in the making: its tiles, and the rows that are not finished yet.

Tiles are taken from the top down. The rows of the result lie in bands, which no tile begins or ends
within; a band is made when a tile first reaches it and given away when the last tile that reaches it is
done. So there are never more rows than the tallest tile has, plus those of the tiles under way. Bands
are asked of the system and given back to it: in the heap, between the passes' own tensors, their comings
and goings would leave holes larger than themselves.
"""

from __future__ import annotations

import math
import mmap
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gpnas_trainers.infer.blending import dihedral, normalised_weights, undo_dihedral
from gpnas_trainers.infer.levels import Levels, without_outlier

BAND = 8
"""LR rows that are read or given away at once, at most."""
LEVELS = {8: torch.uint8, 16: torch.uint16}
"""How pixels of so many bits are kept."""


class Source(Protocol):
    """An image that is read from the top down."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    def rows(self, start: int, stop: int) -> Tensor:
        """(3, stop - start, width) on the CPU: floats in [0, 1], or uint8 or uint16 (the greatest is 1).

        Each call starts where the last stopped.
        """


@dataclass(frozen=True, eq=False)
class TileRow:
    """Tiles of one side that begin in one row."""

    top: int
    """LR pixels, as the tiles' height and width."""
    height: int
    width: int
    down: Tensor
    """Weights along y, (s·height, 1), with the tiling's share and that of one transform."""
    columns: list[tuple[int, Tensor]]
    """The tiles' left sides and weights along x, (s·width,)."""


@dataclass(frozen=True)
class Item:
    """A tile of an image in one orientation."""

    canvas: Canvas
    row: TileRow
    column: int
    transform: int
    pixels: Tensor
    """(3, y, x), turned."""


class Canvas:
    """One image in the making."""

    def __init__(
        self,
        number: int,
        source: Source,
        scale: int,
        levels: Levels,
        shares: list[float],
        like: Tensor,
        bits: int | None,
    ) -> None:
        """Args:
        number: of the image.
        source: the LR image.
        scale: HR pixels per LR pixel.
        levels: of the ensemble.
        shares: a_k; where an outlier is dropped, as many networks are kept apart.
        like: has the device and the type of sums.
        bits: of the result, 8 or 16; None: it is as the sums are.
        """
        self.number, self._source, self._scale, self._levels = number, source, scale, levels
        self._shares, self._like, self._bits = shares, like, bits
        self._rows = sorted(_tile_rows(source, scale, levels, like), key=lambda row: row.top)
        edges = {edge for row in self._rows for edge in (row.top, row.top + row.height)}
        self._edges = sorted(edges | {*range(0, source.height, BAND)})
        self._left = [0] * (len(self._edges) - 1)  # tiles, in any orientation, that each band waits for
        for row in self._rows:
            for place in self._within(row):
                self._left[place] += len(row.columns) * len(levels.transforms)
        self._bands = dict[int, Tensor]()  # by their places; (layers, 3, s·y, s·width)
        self._given = 0
        self.passes = len(levels.transforms) * sum(len(row.columns) for row in self._rows)
        """How often a tile passes each network."""

    def items(self) -> Iterator[Item]:
        """All tiles in all orientations, cut from the image as it is read."""
        first, last = 0, min(BAND, self._rows[0].height)  # LR rows that are held
        begun = self._source.rows(first, last)
        held = zeros((3, max(row.height for row in self._rows), self._source.width), begun)
        held[:, :last] = begun
        for row in self._rows:
            if row.top > first:
                kept = held[:, row.top - first : last - first].clone()
                held[:, : kept.shape[1]], first = kept, row.top
            while last < row.top + row.height:
                stop = min(last + BAND, row.top + row.height)
                held[:, last - first : stop - first] = self._source.rows(last, stop)
                last = stop
            for column, (left, _) in enumerate(row.columns):
                area = _unit(held[:, : row.height, left : left + row.width], self._like.dtype)
                for transform in self._levels.transforms:
                    yield Item(self, row, column, transform, dihedral(area, transform))

    def add(self, item: Item, outputs: Tensor) -> None:
        """Adds what became of a tile, (layers, 3, s·y, s·x), turned as the tile was."""
        outputs, s = undo_dihedral(outputs, item.transform), self._scale
        left, across = item.row.columns[item.column]
        columns = slice(s * left, s * (left + item.row.width))
        for place in self._within(item.row):
            top, bottom = self._edges[place : place + 2]
            if place not in self._bands:
                size = (len(outputs), 3, s * (bottom - top), s * self._source.width)
                self._bands[place] = zeros(size, self._like)
            here = slice(s * (top - item.row.top), s * (bottom - item.row.top))
            window = item.row.down[here] * across
            self._bands[place][..., columns].addcmul_(outputs[:, :, here], window)
            self._left[place] -= 1

    def finished(self) -> Iterator[tuple[int, Tensor]]:
        """Bands that no further tile reaches: their first HR row, and (3, n, s·width)."""
        while not self.done and not self._left[self._given]:
            band, top = self._bands.pop(self._given), self._scale * self._edges[self._given]
            self._given += 1
            sr = without_outlier(band, self._shares) if self._levels.drop_outlier else band[0]
            sr = sr.clamp_(0, 1)  # rounding alone can leave the range
            if self._bits is not None:
                sr.mul_(2**self._bits - 1).round_()
                sr = zeros(tuple(sr.shape), self._like.to(LEVELS[self._bits])).copy_(sr)
            yield top, sr

    def _within(self, row: TileRow) -> range:
        """Places of the bands that a row of tiles covers."""
        return range(bisect_left(self._edges, row.top), bisect_left(self._edges, row.top + row.height))

    @property
    def done(self) -> bool:
        return self._given == len(self._left)


def zeros(size: tuple[int, ...], like: Tensor) -> Tensor:
    """On the device and in the type of `like`; from the system, and not from the heap."""
    if like.device.type != "cpu":
        return like.new_zeros(size)
    memory = mmap.mmap(-1, math.prod(size) * like.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=like.dtype).view(size)


def _unit(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of pixels as `Source.rows` gives them, in [0, 1]."""
    if pixels.is_floating_point():
        return pixels.clone()
    return pixels.to(dtype).div_(torch.iinfo(pixels.dtype).max)


def _tile_rows(source: Source, scale: int, levels: Levels, like: Tensor) -> Iterator[TileRow]:
    share = 1 / (len(levels.sides) * len(levels.transforms))
    for tile in levels.sides:
        rows, columns = (
            normalised_weights(side, tile, levels.overlap_of(tile), levels.blend, scale)
            for side in (source.height, source.width)
        )
        across = [(left, weights.to(like)) for left, weights in columns]
        height, width = (min(side, tile or side) for side in (source.height, source.width))
        for top, weights in rows:
            yield TileRow(top, height, width, (share * weights).to(like)[:, None], across)
