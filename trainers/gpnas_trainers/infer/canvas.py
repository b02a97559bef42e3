"""One image in the making: its tiles, and the rows that are not finished yet.

Tiles are taken from the top down. The rows of the result lie in blocks, each between two starts of
tiles; a block is made when a tile first reaches it and given away when the last tile that reaches it is
done. So there are never more rows than the tallest tile has, plus those of the tiles under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gpnas_trainers.infer.blending import dihedral, normalised_weights, undo_dihedral
from gpnas_trainers.infer.levels import Levels, without_outlier


class Source(Protocol):
    """An image that is read from the top down."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    def rows(self, start: int, stop: int) -> Tensor:
        """(3, stop - start, width), floats in [0, 1] on the CPU. Each call starts where the last stopped."""


@dataclass(eq=False)
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
    left: int
    """Tiles, in any orientation, that are still to be added."""


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
        self, number: int, source: Source, scale: int, levels: Levels, layers: int, like: Tensor
    ) -> None:
        """Args:
        number: of the image.
        source: the LR image.
        scale: HR pixels per LR pixel.
        levels: of the ensemble.
        layers: networks that are kept apart.
        like: has the device and the type of the result.
        """
        self.number, self._source, self._scale, self._levels = number, source, scale, levels
        self._like, self._layers = like, layers
        self._rows = sorted(_tile_rows(source, scale, levels, like), key=lambda row: row.top)
        self._open = deque(self._rows)
        edges = [*sorted({row.top for row in self._rows}), source.height]
        self._edges, self._blocks = edges, dict[int, Tensor]()  # by their first LR row
        self.passes = sum(row.left for row in self._rows)
        """How often a tile passes each network."""

    def items(self) -> Iterator[Item]:
        """All tiles in all orientations, cut from the image as it is read."""
        rows = self._source.rows(0, self._rows[0].height)
        first = 0
        for row in self._rows:
            if row.top > first:
                rows, first = rows[:, row.top - first :].clone(), row.top
            missing = row.top + row.height - first - rows.shape[1]
            if missing > 0:
                last = first + rows.shape[1]
                rows = torch.cat((rows, self._source.rows(last, last + missing)), dim=1)
            for column, (left, _) in enumerate(row.columns):
                area = rows[:, row.top - first :][:, : row.height, left : left + row.width]
                for transform in self._levels.transforms:
                    yield Item(self, row, column, transform, dihedral(area, transform))

    def add(self, item: Item, outputs: Tensor) -> None:
        """Adds what became of a tile, (layers, 3, s·y, s·x), turned as the tile was."""
        outputs = undo_dihedral(outputs, item.transform)
        left, across = item.row.columns[item.column]
        columns = slice(self._scale * left, self._scale * (left + item.row.width))
        for start, stop in zip(self._edges[:-1], self._edges[1:], strict=True):
            top, bottom = max(start, item.row.top), min(stop, item.row.top + item.row.height)
            if top >= bottom:
                continue
            if start not in self._blocks:
                size = (self._layers, 3, self._scale * (stop - start), self._scale * self._source.width)
                self._blocks[start] = self._like.new_zeros(size)
            there = slice(self._scale * (top - start), self._scale * (bottom - start))
            here = slice(self._scale * (top - item.row.top), self._scale * (bottom - item.row.top))
            window = item.row.down[here] * across
            self._blocks[start][:, :, there, columns].addcmul_(outputs[:, :, here], window)
        item.row.left -= 1

    def finished(self, shares: list[float]) -> Iterator[tuple[int, Tensor]]:
        """Rows that no further tile reaches: their first HR row, and (3, n, s·width) in [0, 1].

        Args:
            shares: a_k, of networks that are kept apart.
        """
        while self._open and self._open[0].left == 0:
            self._open.popleft()
        ready = self._open[0].top if self._open else self._source.height
        for start in sorted(self._blocks):
            if start < ready:
                block = self._blocks.pop(start)
                sr = without_outlier(block, shares) if self._layers > 1 else block[0]
                yield self._scale * start, sr.clamp_(0, 1)  # rounding alone can leave the range

    @property
    def done(self) -> bool:
        return not self._open


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
            down = (share * weights).to(like)[:, None]
            yield TileRow(top, height, width, down, across, len(columns) * len(levels.transforms))
