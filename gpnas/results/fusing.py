"""How a portfolio's networks are fused: weights that are learned on validation images, and judged on others.

Of each validation image a part is passed through the networks once. On all images but a fifth, in turn,
weights per network, a table and a gate are fitted; that fifth judges them. The last of these, from the
simplest on, whose gain over the one before exceeds its standard error is fitted once more, to all images.
Where there are few images, one weight per network is all that they can tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gpnas.bundle import StoredFusion
from gpnas.fusing import FEWEST, Tried, chosen_way, convex_shares, folds, fused_psnr, table_weights
from gpnas.portfolio import Floats
from gpnas_trainers.fusion import MEASURES, Fusion, Gate, Table, measured
from gpnas_trainers.optimizer import AdamW

if TYPE_CHECKING:
    from gpnas_trainers.pairs import PairSet

CONVEX = "convex"
"""One weight per network."""
SIDE = 256
"""Largest side in LR pixels of an image's part that is learned from, its middle."""
BINS = (4, 6, 6)
"""Bins of a table for each measure; as many pixels in each."""
LEAST = 0.1
"""Least weight of a network in the average that a table and a gate start from, relative to an equal share."""
SAMPLE = 2**16
"""Pixels at most of each image that tell where bins end."""
STEPS, PATCHES, PATCH, RATE = 150, 6, 24, 1e-2
"""A gate's training: steps, patches of each, their side in LR pixels, Adam's rate."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the networks make of an image, and what it should be."""

    sr: Tensor
    """(K, 3, y, x), in [0, 1]."""
    hr: Tensor
    """(3, y, x)."""


@dataclass(frozen=True, eq=False)
class Fused:
    """How networks are fused, and why so."""

    kind: str
    """`convex`, `table` or `gate`."""
    fusion: Fusion | None
    """None of `convex`."""
    tried: tuple[Tried, ...]
    """Ways beside `convex`, in the order of their number of weights; none where there are too few images."""
    images: int

    @property
    def stored(self) -> StoredFusion | None:
        """The fusion as a bundle holds it; None of `convex`."""
        if self.fusion is None:
            return None
        accepted = [each for each in self.tried if each.accepted]
        gain, error = sum(each.gain for each in accepted), math.hypot(*(each.error for each in accepted))
        return StoredFusion(self.kind, self.fusion.state_dict(), gain, error, self.images)

    def to_json(self) -> dict[str, Any]:
        tried = [asdict(each) for each in self.tried]
        return {"kind": self.kind, "images": self.images, "tried": tried, "why": why(self)}


def why(fused: Fused) -> str:
    """A line that says how networks are fused, and for what reason."""
    if not fused.tried and fused.images >= FEWEST:
        return "a single network is fused with none"
    if not fused.tried:
        return (
            f"fused by one weight per network: {fused.images} validation images are too few to learn more, "
            f"which takes {FEWEST}"
        )
    gains = ", ".join(f"{each.kind} {each.gain:+.4f} ± {each.error:.4f} dB" for each in fused.tried)
    how = "one weight per network" if fused.kind == CONVEX else f"a {fused.kind} of weights per pixel"
    return f"fused by {how}; on images that it was not fitted to, each over the best before it: {gains}"


def outputs_on(networks: Sequence[nn.Module], pairs: PairSet) -> list[Outputs]:
    """What networks make, in one pass, of the middle of each image, on the CPU."""
    found = []
    for index in range(len(pairs)):
        lr, hr = pairs.tensors(index)
        top, left = (max(0, (side - SIDE) // 2) for side in lr.shape[1:])
        height, width = (min(side, SIDE) for side in lr.shape[1:])
        lr = lr[:, top : top + height, left : left + width]
        top, left, height, width = (pairs.scale * each for each in (top, left, height, width))
        with torch.inference_mode():
            given = lr[None].contiguous(memory_format=torch.channels_last)
            sr = torch.cat(
                [
                    each(given.to(next(each.parameters()).device)).float().clamp(0, 1).cpu()
                    for each in networks
                ]
            )
        found.append(Outputs(sr.contiguous(), hr[:, top : top + height, left : left + width].contiguous()))
    return found


def fused_by(images: Sequence[Outputs], scale: int, seed: int = 0) -> Fused:
    """The way to fuse networks that data which did not fit it say is best.

    Args:
        images: of the networks, at least two.
        scale: HR pixels per LR pixel.
        seed: of the gate's training.
    """
    if len(images) < FEWEST or len(images[0].sr) < 2:
        return Fused(CONVEX, None, (), len(images))
    count = len(images[0].sr)
    least = LEAST / count
    plain = torch.full((count,), 1 / count)
    edges = edges_of(images, plain)
    products = cell_products(images, Table(plain, edges, plain.repeat(int(np.prod(BINS)), 1)))
    whole = products.sum(axis=1)
    held = {name: np.empty(len(images)) for name in (CONVEX, Table.kind, Gate.kind)}
    for part in folds(len(images)):
        shares = convex_shares(whole[~part], least)
        held[CONVEX][part] = fused_psnr(products[part], np.broadcast_to(shares, (products.shape[1], count)))
        held[Table.kind][part] = fused_psnr(products[part], table_weights(products[~part], shares))
        fitted = [each for each, judges in zip(images, part, strict=True) if not judges]
        gate = trained_gate(fitted, shares, scale, seed)
        held[Gate.kind][part] = [psnr_of(gate, images[place]) for place in np.flatnonzero(part).tolist()]
    kind, tried = chosen_way(list(held.items()))
    shares = convex_shares(whole, least)
    fusion: Fusion | None = None
    if kind == Table.kind:
        fusion = Table(plain, edges, torch.from_numpy(table_weights(products, shares)).float())
    elif kind == Gate.kind:
        fusion = trained_gate(images, shares, scale, seed)
    return Fused(kind, fusion, tried, len(images))


def edges_of(images: Sequence[Outputs], shares: Tensor, bins: Sequence[int] = BINS) -> list[Tensor]:
    """Where each measure's bins end, such that about as many pixels fall into each."""
    sampled: list[list[Tensor]] = [[] for _ in MEASURES]
    for each in images:
        for place, values in enumerate(measured(list(each.sr[:, None]), shares)):
            step = max(1, values.numel() // SAMPLE)
            sampled[place].append(values.flatten()[::step])
    edges = []
    for parts, count in zip(sampled, bins, strict=True):
        inner = torch.linspace(0, 1, count + 1, dtype=torch.float64)[1:-1]
        every = torch.cat(parts).double().sort().values
        # torch.quantile takes no more than 16 million numbers
        places = (inner * (len(every) - 1)).long()
        edges.append(every[places].float().unique())
    return edges


def cell_products(images: Sequence[Outputs], table: Table) -> Floats:  # (I, C, K, K)
    """Products of residuals by image and cell, as `gpnas.fusing` has them."""
    count, cells = table.networks, len(table.table)
    found = np.empty((len(images), cells, count, count))
    for image, each in enumerate(images):
        cell = table.cells(list(each.sr[:, None])).flatten().numpy()
        errors = (each.sr - each.hr).double()
        for i in range(count):
            for j in range(i, count):
                weights = (errors[i] * errors[j]).sum(dim=0).flatten().numpy()
                sums = np.bincount(cell, weights, minlength=cells) / errors[i].numel()
                found[image, :, i, j] = found[image, :, j, i] = sums
    return found


def trained_gate(
    images: Sequence[Outputs], shares: Floats, scale: int, seed: int, steps: int = STEPS
) -> Gate:
    """A gate that starts at the average with these shares, fitted to the mean square errors of images.

    Each image's counts relative to that of the average, as in the mean of PSNR.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gate = Gate(torch.from_numpy(shares).float(), scale)
    generator = np.random.default_rng(seed)
    errors = [
        float(((each.sr * gate.shares[:, None, None, None]).sum(dim=0) - each.hr).square().mean()) + 1e-12
        for each in images
    ]
    side = min(PATCH, *(int(length) // scale for each in images for length in each.hr.shape[1:]))
    optimizer = AdamW(gate.parameters(), lr=RATE, weight_decay=0.0)  # Adam
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        places = generator.integers(len(images), size=PATCHES).tolist()
        patches = [_patch(images[place], scale * side, scale, generator) for place in places]
        sr, hr = (torch.stack(each) for each in zip(*patches, strict=True))
        counts = torch.tensor([1 / errors[place] for place in places])
        squares = (gate(list(sr.unbind(dim=1))) - hr).square().mean(dim=(1, 2, 3))
        optimizer.zero_grad()
        (squares * counts).mean().backward()
        optimizer.step()
        schedule.step()
    return gate.eval().requires_grad_(False)


def psnr_of(fusion: Fusion, image: Outputs) -> float:
    """PSNR in dB of an image that is fused."""
    with torch.inference_mode():
        mse = float((fusion(list(image.sr[:, None]))[0] - image.hr).double().square().mean())
    return -10 * float(np.log10(max(mse, 1e-30)))


def _patch(image: Outputs, side: int, scale: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random part of so many HR pixels a side, turned or mirrored, of (K, 3, y, x) and (3, y, x)."""
    top, left = (
        scale * int(generator.integers((int(length) - side) // scale + 1)) for length in image.hr.shape[1:]
    )
    dims = [dim for dim in (-2, -1) if generator.integers(2)]
    turned = bool(generator.integers(2))

    def part(pixels: Tensor) -> Tensor:
        mirrored = pixels[..., top : top + side, left : left + side].flip(dims)
        return mirrored.transpose(-1, -2) if turned else mirrored

    return part(image.sr), part(image.hr)
