"""One image in the making: its tiles, and the pixels that are not finished yet.

Tiles are taken from the top down, and from the left. The result lies in blocks, which no tile begins or
ends within. What is added up is kept of a block from the first tile that reaches it to the last; then
its pixels, perhaps rounded to 8 or 16 bits, join a band as wide as the image, which is given away when
all its blocks have. So sums are held of no more rows than the tallest tile has, plus those of the tiles
under way. Bands are asked of the system and given back to it, since in the heap their comings and goings
would leave holes as large as themselves.
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

BLOCK = 16
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


@dataclass(eq=False)
class _Part:
    """A block or a band."""

    pixels: Tensor
    """Of a block the sums, (layers, 3, s·y, s·x); of a band what is finished, (3, s·y, s·width)."""
    left: int
    """Tiles, in any orientation, that a block waits for; blocks that a band waits for."""


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
        tilings = [_tile_rows(source, scale, levels, side, like) for side in levels.sides]
        self._rows = sorted((row for rows in tilings for row in rows), key=lambda row: row.top)
        self._down = sorted(
            {edge for row in self._rows for edge in (row.top, row.top + row.height)}
            | {*range(0, source.height, BLOCK)}
        )
        self._across = sorted(
            {edge for rows in tilings for left, _ in rows[0].columns for edge in (left, left + rows[0].width)}
        )
        self._covers = [
            (
                _covers(self._down, [row.top for row in rows], rows[0].height),
                _covers(self._across, [left for left, _ in rows[0].columns], rows[0].width),
            )
            for rows in tilings
        ]
        self._blocks, self._bands = dict[tuple[int, int], _Part](), dict[int, _Part]()  # by their places
        self._given = 0  # bands
        self.passes = len(levels.transforms) * sum(len(row.columns) for row in self._rows)
        """How often a tile passes each network."""

    def items(self) -> Iterator[Item]:
        """All tiles in all orientations, cut from the image as it is read."""
        first, last = 0, min(BLOCK, self._rows[0].height)  # LR rows that are held
        begun = self._source.rows(first, last)
        held = zeros((3, max(row.height for row in self._rows), self._source.width), begun)
        held[:, :last] = begun
        for row in self._rows:
            if row.top > first:
                kept = held[:, row.top - first : last - first].clone()
                held[:, : kept.shape[1]], first = kept, row.top
            while last < row.top + row.height:
                stop = min(last + BLOCK, row.top + row.height)
                held[:, last - first : stop - first] = self._source.rows(last, stop)
                last = stop
            for column, (left, _) in enumerate(row.columns):
                area = _unit(held[:, : row.height, left : left + row.width], self._like.dtype)
                for transform in self._levels.transforms:
                    yield Item(self, row, column, transform, dihedral(area, transform))

    def add(self, item: Item, outputs: Tensor) -> None:
        """Adds what became of a tile, (layers, 3, s·y, s·x), turned as the tile was."""
        outputs, s = undo_dihedral(outputs, item.transform), self._scale
        top, (left, across) = item.row.top, item.row.columns[item.column]
        for y in _within(self._down, top, item.row.height):
            down = slice(s * (self._down[y] - top), s * (self._down[y + 1] - top))
            for x in _within(self._across, left, item.row.width):
                along = slice(s * (self._across[x] - left), s * (self._across[x + 1] - left))
                part = outputs[:, :, down, along]
                if (y, x) not in self._blocks:
                    self._blocks[y, x] = self._begun(y, x, part)
                block = self._blocks[y, x]
                block.pixels.addcmul_(part, item.row.down[down] * across[along])
                block.left -= 1
                if not block.left:
                    self._settle(y, x)

    def _begun(self, y: int, x: int, part: Tensor) -> _Part:
        """A block without anything yet; where its sums are what is wanted, they lie in the band at once."""
        tiles = sum(rows[y] * columns[x] for rows, columns in self._covers)
        apart = self._bits is not None or self._levels.drop_outlier
        sums = self._like.new_zeros(part.shape) if apart else self._place(y, x)[None]
        return _Part(sums, len(self._levels.transforms) * tiles)

    def _place(self, y: int, x: int) -> Tensor:
        """A block's pixels in its band."""
        if y not in self._bands:
            size = (3, self._scale * (self._down[y + 1] - self._down[y]), self._scale * self._source.width)
            like = self._like if self._bits is None else self._like.to(LEVELS[self._bits])
            self._bands[y] = _Part(zeros(size, like), len(self._across) - 1)
        columns = slice(self._scale * self._across[x], self._scale * self._across[x + 1])
        return self._bands[y].pixels[:, :, columns]

    def _settle(self, y: int, x: int) -> None:
        """Puts a block that is finished into its band."""
        sums = self._blocks.pop((y, x)).pixels
        sr = without_outlier(sums, self._shares) if self._levels.drop_outlier else sums[0]
        sr = sr.clamp_(0, 1)  # rounding alone can leave the range
        if self._bits is not None:
            sr = sr.mul_(2**self._bits - 1).round_()
        self._place(y, x).copy_(sr)
        self._bands[y].left -= 1

    def finished(self) -> Iterator[tuple[int, Tensor]]:
        """Bands that no further tile reaches: their first HR row, and (3, n, s·width)."""
        while self._given in self._bands and not self._bands[self._given].left:
            band = self._bands.pop(self._given).pixels
            self._given += 1
            yield self._scale * self._down[self._given - 1], band

    @property
    def done(self) -> bool:
        return self._given == len(self._down) - 1


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


def _within(edges: list[int], start: int, size: int) -> range:
    """Places of the blocks of an axis that a tile covers."""
    return range(bisect_left(edges, start), bisect_left(edges, start + size))


def _covers(edges: list[int], starts: list[int], size: int) -> list[int]:
    """How many of the tiles that start so cover each block of an axis."""
    counts = [0] * (len(edges) - 1)
    for start in starts:
        for place in _within(edges, start, size):
            counts[place] += 1
    return counts


def _tile_rows(source: Source, scale: int, levels: Levels, tile: int, like: Tensor) -> list[TileRow]:
    share = 1 / (len(levels.sides) * len(levels.transforms))
    rows, columns = (
        normalised_weights(side, tile, levels.overlap_of(tile), levels.blend, scale)
        for side in (source.height, source.width)
    )
    across = [(left, weights.to(like)) for left, weights in columns]
    height, width = (min(side, tile or side) for side in (source.height, source.width))
    return [TileRow(top, height, width, (share * weights).to(like)[:, None], across) for top, weights in rows]
