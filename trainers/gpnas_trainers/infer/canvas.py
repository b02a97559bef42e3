"""One image in the making: its tiles, and the rows that are not finished yet.

Tiles are taken from the top down, and from the left of each row of them. The result lies in bands of
rows and in columns, which no tile begins within; where they cross is a cell. A cell's sums become pixels
of the result, and are let go, when the last tile that reaches it is done; a band is given away with its
last cell. So what waits as sums is what the next row of tiles will reach again, and the rest of a tile's
height waits as pixels of the result.

A band's memory is asked of the system once, is taken as it is first written to, and is given back by
cells: in the heap, between the passes' own tensors, their comings and goings would leave holes larger
than themselves.
"""

from __future__ import annotations

import math
import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor

from gpnas_trainers.infer.blending import dihedral, normalised_weights, undo_dihedral
from gpnas_trainers.infer.levels import Levels, without_outlier

READ = 8
"""LR rows that are read at once, at most."""
BAND = 128
"""LR rows of a band, at most."""
GIVEN = 32
"""LR rows that are given away at once, at most."""
TYPES = {8: torch.uint8, 16: torch.uint16}
"""Type of the result's pixels by their bits."""


class RowReader(Protocol):
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


class Band:
    """Rows of the result that no tile begins within."""

    def __init__(self, height: int, widths: list[int], left: list[int], layers: int, like: Tensor) -> None:
        """Args:
        height: HR pixels.
        widths: of its cells, in HR pixels.
        left: tiles, in any orientation, that each cell waits for.
        layers: of the sums.
        like: has the device and the type of sums.
        """
        self.left, self.unfinished = left, len(left)
        self._sizes = [(layers, 3, height, width) for width in widths]
        page = mmap.PAGESIZE // like.itemsize
        self._starts = [0, *accumulate(-(-math.prod(size) // page) * page for size in self._sizes)]
        self._memory, self._sums = _cleared(self._starts[-1], like)
        self.parts: list[Tensor] = []
        """(3, n, s·width), of the cells that are finished: all rows, once the first is."""

    def cell(self, column: int) -> Tensor:
        """Its sums, (layers, 3, s·y, s·x)."""
        size, start = self._sizes[column], self._starts[column]
        return self._sums[start : start + math.prod(size)].view(size)

    def forget(self, column: int) -> None:
        """Gives a cell's memory back."""
        if self._memory is not None:
            start, stop = (self._sums.itemsize * each for each in self._starts[column : column + 2])
            self._memory.madvise(mmap.MADV_DONTNEED, start, stop - start)


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
        source: RowReader,
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
        self._tops = [row.top for row in self._rows]
        self._tallest = max(row.height for row in self._rows)
        tops = [*sorted({*self._tops}), source.height]
        self._down = [0, *(edge for pair in pairwise(tops) for edge in _parts(*pair, BAND))]
        columns = {row.width: row.columns for row in self._rows}.values()  # once for each side of tiles
        self._across = [*sorted({left for each in columns for left, _ in each}), source.width]
        self._bands = dict[int, Band]()  # by their places
        self._given = 0
        self.passes = len(levels.transforms) * sum(len(row.columns) for row in self._rows)
        """How often a tile passes each network."""

    def items(self) -> Iterator[Item]:
        """All tiles in all orientations, cut from the image as it is read."""
        first, last = 0, min(READ, self._rows[0].height)  # LR rows that are held
        begun = self._source.rows(first, last)
        held = zeros((3, self._tallest, self._source.width), begun)
        held[:, :last] = begun
        for row in self._rows:
            if row.top > first:
                _move_up(held[:, : last - first], row.top - first)
                first = row.top
            while last < row.top + row.height:
                stop = min(last + READ, row.top + row.height)
                held[:, last - first : stop - first] = self._source.rows(last, stop)
                last = stop
            for column, (left, _) in enumerate(row.columns):
                area = _unit(held[:, : row.height, left : left + row.width], self._like.dtype)
                for transform in self._levels.transforms:
                    yield Item(self, row, column, transform, dihedral(area, transform))

    def add(self, item: Item, outputs: Tensor) -> None:
        """Adds what became of a tile, (layers, 3, s·y, s·x), turned as the tile was."""
        outputs = undo_dihedral(outputs, item.transform)
        left, weights = item.row.columns[item.column]
        right, bottom = left + item.row.width, item.row.top + item.row.height
        for place in _between(self._down, item.row.top, bottom):
            if place not in self._bands:
                self._bands[place] = self._band(place)
            band = self._bands[place]
            y, in_band = self._shared(self._down, place, item.row.top, bottom)
            for column in _between(self._across, left, right):
                x, in_column = self._shared(self._across, column, left, right)
                window = item.row.down[y] * weights[x]
                band.cell(column)[:, :, in_band, in_column].addcmul_(outputs[:, :, y, x], window)
                band.left[column] -= 1
                if not band.left[column]:
                    self._finish(band, column)

    def finished(self) -> Iterator[tuple[int, Tensor]]:
        """Rows that no further tile reaches: the place of the first, and (3, n, s·width)."""
        while self._given in self._bands and not self._bands[self._given].unfinished:
            parts, top = self._bands.pop(self._given).parts, self._scale * self._down[self._given]
            self._given += 1
            while parts:
                top += parts[0].shape[1]
                yield top - parts[0].shape[1], parts.pop(0)

    def _shared(self, edges: list[int], place: int, low: int, high: int) -> tuple[slice, slice]:
        """HR pixels that a tile from `low` to `high` shares with a cell: in the tile, and in the cell."""
        start, stop = max(low, edges[place]), min(high, edges[place + 1])
        return (
            slice(self._scale * (start - low), self._scale * (stop - low)),
            slice(self._scale * (start - edges[place]), self._scale * (stop - edges[place])),
        )

    def _band(self, place: int) -> Band:
        """One that no tile has reached yet."""
        top, bottom = self._down[place : place + 2]
        left = [0] * (len(self._across) - 1)
        for row in self._rows[
            bisect_right(self._tops, top - self._tallest) : bisect_left(self._tops, bottom)
        ]:
            if row.top + row.height > top:
                for start, _ in row.columns:
                    for column in _between(self._across, start, start + row.width):
                        left[column] += len(self._levels.transforms)
        layers = len(self._shares) if self._levels.drop_outlier else 1
        widths = [self._scale * (stop - start) for start, stop in pairwise(self._across)]
        return Band(self._scale * (bottom - top), widths, left, layers, self._like)

    def _finish(self, band: Band, column: int) -> None:
        """Turns a cell's sums into pixels."""
        sums = band.cell(column)
        sr = without_outlier(sums, self._shares) if self._levels.drop_outlier else sums[0]
        sr = sr.clamp_(0, 1)  # rounding alone can leave the range
        if self._bits is not None:
            sr.mul_(2**self._bits - 1).round_()
        if not band.parts:
            kind = self._like if self._bits is None else self._like.to(TYPES[self._bits])
            edges = pairwise([0, *_parts(0, sr.shape[1], self._scale * GIVEN)])
            width = self._scale * self._source.width
            band.parts = [zeros((3, stop - start, width), kind) for start, stop in edges]
        left, right = (self._scale * edge for edge in self._across[column : column + 2])
        for part, pixels in zip(band.parts, sr.split([len(part[0]) for part in band.parts], 1), strict=True):
            part[:, :, left:right] = pixels
        band.forget(column)
        band.unfinished -= 1

    @property
    def done(self) -> bool:
        return self._given == len(self._down) - 1


def _between(edges: list[int], low: int, high: int) -> range:
    """Places of the parts that what begins at `low` and ends at `high` reaches."""
    return range(bisect_right(edges, low) - 1, bisect_left(edges, high))


def _parts(low: int, high: int, limit: int) -> Iterator[int]:
    """The ends of equal parts of so many rows, each of `limit` at most."""
    count = -(-(high - low) // limit)
    return (low + (high - low) * part // count for part in range(1, count + 1))


def _move_up(held: Tensor, count: int) -> None:
    """Lets so many of the first rows go: the others begin where they did."""
    for start in range(0, held.shape[1] - count, count):  # no two of which overlap
        moved = held[:, start + count : start + 2 * count]
        held[:, start : start + moved.shape[1]] = moved


def zeros(size: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros on the device and in the type of `like`; from the system, and not from the heap."""
    return _cleared(math.prod(size), like)[1].view(size)


def _cleared(count: int, like: Tensor) -> tuple[mmap.mmap | None, Tensor]:
    """So many zeros, and the system's memory that holds them, if it is the CPU's."""
    if like.device.type != "cpu":
        return None, like.new_zeros(count)
    memory = mmap.mmap(-1, count * like.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return memory, torch.frombuffer(memory, dtype=like.dtype)


def _unit(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of pixels as `RowReader.rows` gives them, in [0, 1]."""
    if pixels.is_floating_point():
        return pixels.clone()
    return pixels.to(dtype).div_(torch.iinfo(pixels.dtype).max)


def _tile_rows(source: RowReader, scale: int, levels: Levels, like: Tensor) -> Iterator[TileRow]:
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
