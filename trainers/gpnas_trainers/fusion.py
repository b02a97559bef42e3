"""Networks fused pixel by pixel: their weights follow from what is known without HR.

Where members are right differs from pixel to pixel. Three numbers of a pixel tell something about it: its
intensity (S. Sun et al., "EnsIR", NeurIPS 2024, have weights by bins of it), how steep the image is there,
and how far the members are apart. A `Table` has weights for each cell of a grid over these three; a `Gate` is
a network of a few thousand weights that finds them, the most that is allowed. Either sees the outputs of one
pass alone, so it streams with the tiles, and can be a part of an ONNX file.

Shapes: K networks, B tiles, y×x HR pixels, s scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

FEATURES = 8
"""Features of a gate's layers."""
CONTRAST = 32.0
"""Factor of members' differences as a gate sees them, which are a few hundredths."""
MOST_CELLS = 4096
"""The most cells of a table."""
MEASURES = ("intensity", "slope", "distance")
"""What a table's grid is over, in the order of its axes."""


class Fusion(nn.Module):
    """Outputs of K networks, in [0, 1], become one image; the weights of a pixel sum to 1."""

    kind: str
    networks: int
    """K."""
    shares: Tensor
    """(K,), of the average that it starts from."""

    def weights(self, outputs: Sequence[Tensor]) -> Tensor:  # K of (B, 3, y, x) -> (K, B, 1, y, x)
        """The weights of each pixel, the same for its three channels."""
        raise NotImplementedError

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:  # K of (B, 3, y, x) -> (B, 3, y, x)
        return _weighed(outputs, self.weights(outputs)).clamp(0, 1)


class Table(Fusion):
    """Weights by cells of a grid over intensity, slope and distance.

    Args:
        shares: (K,) of the networks in the average that the measures are of; they sum to 1.
        edges: of the bins of each measure, ascending; without any, it does not count.
        table: (cells, K) weights, the last measure's bins next to each other.
    """

    kind = "table"
    table: Tensor

    def __init__(self, shares: Tensor, edges: Sequence[Tensor], table: Tensor) -> None:
        super().__init__()
        cells = math.prod(len(each) + 1 for each in edges)
        if len(edges) != len(MEASURES) or table.shape != (cells, len(shares)) or cells > MOST_CELLS:
            raise ValueError(
                f"a table must have a row for each of its {cells} cells, at most {MOST_CELLS}, and a column "
                f"for each of {len(shares)} networks, but is {tuple(table.shape)}"
            )
        if not all((each.diff() > 0).all() for each in edges):
            raise ValueError("the edges of a table's bins must ascend, but do not")
        self.networks = len(shares)
        self.register_buffer("shares", shares)
        for name, each in zip(MEASURES, edges, strict=True):
            self.register_buffer(name, each)
        self.register_buffer("table", table)

    def cells(self, outputs: Sequence[Tensor]) -> Tensor:  # K of (B, 3, y, x) -> (B, y, x)
        """The row of each pixel in the table."""
        cell = torch.zeros((), dtype=torch.int, device=outputs[0].device)
        for name, values in zip(MEASURES, measured(outputs, self.shares), strict=True):
            edges: Tensor = getattr(self, name)
            # a few comparisons, which ONNX has operators for; a bin holds its upper edge
            place = sum((values > edge).int() for edge in edges) if len(edges) else 0
            cell = cell * (len(edges) + 1) + place
        cell = cell.squeeze(1) if cell.ndim else cell.expand_as(outputs[0][:, 0])
        return cell.long()

    def weights(self, outputs: Sequence[Tensor]) -> Tensor:
        return self.table.to(outputs[0]).t()[:, self.cells(outputs)].unsqueeze(2)


class Gate(Fusion):
    """Weights by three convolutions of what the networks make of a pixel's surroundings.

    They work at LR size, s² HR pixels of a block as channels of one: weights of a few thousandths of the
    networks' own multiplications. A fresh gate weighs by its shares.

    Args:
        shares: (K,) of the networks in an average, all above 0.
        scale: s.
    """

    kind = "gate"

    def __init__(self, shares: Tensor, scale: int) -> None:
        super().__init__()
        self.networks, self.scale = len(shares), scale
        self.register_buffer("shares", shares)
        block = scale * scale
        self.body = nn.Sequential(
            nn.Conv2d((self.networks + 1) * block, FEATURES, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(FEATURES, self.networks * block, 1),
        )
        for parameter in self.body[-1].parameters():
            nn.init.zeros_(parameter)

    def weights(self, outputs: Sequence[Tensor]) -> Tensor:
        greys = torch.cat([output.mean(dim=1, keepdim=True) for output in outputs], dim=1)
        shares = self.shares.to(greys)
        mean = (greys * shares[:, None, None]).sum(dim=1, keepdim=True)
        seen = torch.cat([mean - 0.5, CONTRAST * (greys - mean)], dim=1)
        scores = pixel_shuffle(self.body(pixel_unshuffle(seen, self.scale)), self.scale)
        found = (scores + shares.log()[:, None, None]).softmax(dim=1)  # (B, K, y, x)
        return found.transpose(0, 1)[:, :, None]


def measured(
    outputs: Sequence[Tensor], shares: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # K of (B, 3, y, x), (K,) -> (B, 1, y, x) each
    """Intensity, slope and distance of each pixel.

    With m the weighted average's mean over channels: m itself; |m(x+1) - m(x-1)| + |m(y+1) - m(y-1)|; and
    the weighted mean over networks of |their mean over channels - m|. The last two are means over 3×3 pixels;
    beyond the border the outermost pixels go on. All are the same of an image that is turned or mirrored.
    """
    greys = [output.mean(dim=1, keepdim=True) for output in outputs]
    parts = shares.to(greys[0])
    mean = _weighed(greys, parts)
    apart = _weighed(((grey - mean).abs() for grey in greys), parts)
    around = pad(mean, (1, 1, 1, 1), mode="replicate")
    slope = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]).abs()
    slope = slope + (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]).abs()
    return mean, _smoothed(slope), _smoothed(apart)


def _weighed(values: Iterable[Tensor], weights: Tensor) -> Tensor:
    """The sum of values, each times its weight."""
    return reduce(add, (value * weight for value, weight in zip(values, weights, strict=True)))


def _smoothed(values: Tensor) -> Tensor:  # (B, 1, y, x)
    # two sums of three, which take a fraction of what PyTorch's pooling of one channel does
    around = pad(values, (1, 1, 1, 1), mode="replicate")
    rows = around[..., :-2, :] + around[..., 1:-1, :] + around[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def fusion_of(kind: str, state: Mapping[str, Tensor], networks: int, scale: int) -> Fusion:
    """A fusion from its state dictionary, such as a bundle holds.

    Args:
        kind: `table` or `gate`.
        state: its tensors, by name.
        networks: K, how many it must fuse.
        scale: s.

    Raises:
        ValueError: these tensors are not such a fusion's.
    """
    try:
        shares = state["shares"]
        if shares.shape != (networks,) or not bool((shares > 0).all()):
            raise ValueError(
                f"its shares must be {networks} numbers above 0, but are {shares.tolist()}"[:200]
            )
        match kind:
            case "table":
                fusion: Fusion = Table(shares, [state[name] for name in MEASURES], state["table"])
            case "gate":
                fusion = Gate(shares, scale)
            case _:
                raise ValueError(f"it must be a table or a gate, but is {kind!r}")
        fusion.load_state_dict(dict(state), strict=True)
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"its tensors must be those of a {kind}, but {str(error).splitlines()[0]}") from None
    return fusion.eval().requires_grad_(False)
