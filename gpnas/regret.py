"""What stopping a search is expected to lose, from joint draws of the values of its best architectures.

Glossary: q architectures, m observations, d feature columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpnas.surrogate import Surrogate, Warp

POOL = 5_000
"""Architectures among which the best is sought; of more, a random part, always the same."""
WEIGHED = 200
"""Architectures that are drawn: those of the best mean plus two standard deviations, and what would be
recommended."""
DRAWS = 1_024
"""Joint draws of their values."""


def sampled(indices: Tensor, most: int) -> Tensor:
    """A part of increasing indices, by a chance that is always the same: an even stride would fall
    in step with the axes."""
    if len(indices) <= most:
        return indices
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))
    return indices[order[:most].sort().values]


def most_promising(indices: Tensor, promise: Tensor) -> Tensor:  # (q,) each
    """The indices of the `WEIGHED` architectures that promise most."""
    return indices[promise.argsort(descending=True, stable=True)[:WEIGHED]]


def given(model: Surrogate, rows: Sequence[int]) -> Surrogate:
    """The model, given a part of the observations and all that other searches observed; its values are
    latent ones."""
    kept = torch.tensor([*rows, *range(len(model), len(model.x))], dtype=torch.long)
    z = model.train_targets[0]
    return Surrogate(model.x[kept], z[kept], model.columns, model.theta, Warp(z[:0]))


def joint_draws(model: Surrogate, x: Tensor) -> Tensor:  # (q, d) -> (draws, q)
    """Joint draws of latent values, the same standard normals at every call."""
    generator, members = torch.Generator().manual_seed(0), len(model.theta)
    normal = torch.randn((members, DRAWS // members, len(x)), generator=generator, dtype=torch.float64)
    return model.drawn(x, normal).flatten(end_dim=1)


def regret_of(draws: Tensor, told: Sequence[int]) -> tuple[Tensor, int | None]:  # (draws, q)
    """What each draw says is lost by recommending the best of what was trained, (draws,), and which that is.

    Args:
        draws: of the architectures' values, in the objective's unit.
        told: places of the architectures that could be recommended; without any, one by chance is, and the
            second result is None.
    """
    best = draws.max(dim=1).values
    if not told:
        return best - draws.mean(dim=1), None
    believed = draws.mean(dim=0)
    leader = max(told, key=lambda place: float(believed[place]))
    return best - draws[:, leader], leader
