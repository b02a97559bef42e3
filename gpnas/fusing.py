"""Weights of networks by cells of pixels: what their residuals' products say, and what they hold on others.

The pixels of an image fall into cells, such as those of one intensity and slope. With G_c the products of the
residuals of the networks in a cell, summed over its pixels and divided by the pixels of the whole image, an
average whose weights w_c differ by cell has the mean square error Σ_c w_cᵀ G_c w_c, exactly. So the best
weights are found, and judged, without an image.

Shapes: I images, C cells, K networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpnas.portfolio import Floats, fitted, least_on_simplex

STRENGTH = 1.0
"""How strongly a cell's weights are drawn to the average's, relative to the products of a mean cell."""
ROUNDS = 3
"""Rounds of fitting; each weighs images by the mean square error that the one before left."""
FOLDS = 5
"""Parts of the images, each of which judges what was fitted to the others."""
FEWEST = 6
"""Images below which nothing but one weight per network is fitted."""


def fused_psnr(products: Floats, table: Floats) -> Floats:  # (I, C, K, K), (C, K) -> (I,)
    """PSNR in dB of each image, fused with weights by cell."""
    mse = np.einsum("icjk,cj,ck->i", products, table, table)
    return np.asarray(-10 * np.log10(mse.clip(1e-30)))


def table_weights(
    products: Floats,  # (I, C, K, K)
    shares: Floats,  # (K,)
    strength: float = STRENGTH,
) -> Floats:  # (C, K)
    """The weights of each cell, non-negative and of sum 1, of the best mean PSNR over images.

    With e_i the mean square error of an image, Σ_i Σ_c wᵀ(G_ic/e_i)w is least, plus in each cell
    λ(w - a)ᵀS(w - a), where S is the mean of Σ_i G_ic/e_i over cells: what few pixels say of a cell counts
    little beside what all say of the average with weights a.

    Args:
        products: of residuals, by image and cell.
        shares: a, of the average; they sum to 1.
        strength: λ, at least 0.
    """
    cells, count = products.shape[1:3]
    table = np.broadcast_to(shares, (cells, count))
    one = np.ones(count)
    for _ in range(ROUNDS):
        errors = np.einsum("icjk,cj,ck->i", products, table, table).clip(1e-30)
        forms = (products / errors[:, None, None, None]).sum(axis=0)
        pull = strength * forms.mean(axis=0)
        # λ(w - a)ᵀS(w - a) is a form of w alone, since w sums to 1
        towards = pull @ shares
        drawn = pull - np.outer(towards, one) - np.outer(one, towards) + shares @ towards
        forms = forms + drawn
        scale = np.trace(forms, axis1=1, axis2=2).clip(1e-30)[:, None, None] / count
        table = least_on_simplex(forms / scale)
    return np.asarray(table)


def convex_shares(products: Floats, least: float) -> Floats:  # (I, K, K) -> (K,)
    """One weight per network, of the best mean PSNR over images, each at least `least` (0 … 1/K)."""
    count = products.shape[1]
    return np.asarray(fitted(products, np.arange(count)[None], least)[1][0])


def folds(images: int) -> list[np.ndarray]:
    """The parts of the images that judge, each as booleans over the images."""
    place = np.arange(images) % min(FOLDS, images)
    return [place == part for part in range(min(FOLDS, images))]


@dataclass(frozen=True)
class Tried:
    """A way to fuse, on images that it was not fitted to."""

    kind: str
    """`table` or `gate`."""
    gain: float
    """Mean over images, in dB, over the way that was chosen before it."""
    error: float
    """Standard error of `gain` in dB."""
    accepted: bool
    """Whether the gain exceeds its error."""


def chosen_way(psnr: Sequence[tuple[str, Floats]]) -> tuple[str, tuple[Tried, ...]]:
    """The last of several ways, from the simplest on, that clearly gains over what was chosen before it.

    By the one-standard-error rule for differences between pairs, as `gpnas.selection` has it.

    Args:
        psnr: name of each way, and the PSNR in dB that it held on images that it was not fitted to.
    """
    (chosen, held), *others = psnr
    tried = []
    for kind, values in others:
        gains = values - held
        error = float(gains.std(ddof=1) / math.sqrt(len(gains)))
        gain = float(gains.mean())
        accepted = gain > error
        tried.append(Tried(kind, gain, error, accepted))
        if accepted:
            chosen, held = kind, values
    return chosen, tuple(tried)
