"""A surrogate that comes to believe ever more points, so that suggestions may come in rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpnas.surrogate.model import Surrogate, cholesky, mixed


class Believing:
    """A surrogate as if points were observed at their means: no mean moves, what pends is no longer unknown.

    D. Ginsbourger, R. Le Riche, L. Carraro, "Kriging is well-suited to parallelize optimization", 2010,
    section 4.2. Each point that is believed takes a row's square from the covariances of all (Rasmussen &
    Williams Eq. 2.24), so that one more costs a row, not a factor.

    Args:
        surrogate: of the observations.
        features: (w, d), what may be asked about or believed.
        at: (w,), numbers by which these points go; each once. Where the surrogate watches points, they are
            those of its own.
    """

    def __init__(self, surrogate: Surrogate, features: Tensor, at: Tensor) -> None:
        self._surrogate, self._features = surrogate, features
        self._places = {number: place for place, number in enumerate(at.tolist())}
        self._solved = surrogate.solved(features, at)  # (M, w, n)
        self._means, self._variances = surrogate.moments(features, self._solved)  # (M, w) each
        self._rows = self._means.new_empty(len(self._means), 0, len(features))  # (M, r, w)
        self._known: dict[int, int] = {}  # point to its row of the following
        self._covariances = self._rows  # (M, ·, w)
        self.believed: list[int] = []
        """The points that are believed, in order."""

    def __contains__(self, number: int) -> bool:
        """Whether a point may be asked about."""
        return number in self._places

    def believe(self, numbers: Sequence[int]) -> None:
        """Believes these points too."""
        if not numbers:
            return
        at = self._at(numbers)
        covariance = self._between(at)  # (M, b, w)
        noise = self._surrogate.likelihood.noise[..., None] * torch.eye(len(at), dtype=covariance.dtype)
        factor = cholesky(covariance[..., at] + noise)
        rows = torch.linalg.solve_triangular(factor, covariance, upper=False)
        self._variances = (self._variances - rows.square().sum(dim=1)).clamp_min(1e-12)
        self._rows = torch.cat([self._rows, rows], dim=1)
        if self._known:
            known = rows[..., self._at([*self._known])]  # (M, b, k)
            self._covariances = self._covariances - known.mT @ rows
        self.believed += numbers

    def mean(self, numbers: Sequence[int]) -> Tensor:
        """Latent means (q,) of points, hyperparameters averaged out."""
        return self._means[:, self._at(numbers)].mean(dim=0)

    def beside(self, numbers: Sequence[int], rivals: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `Surrogate.beside` tells of points and others, by their numbers."""
        new = [each for each in rivals if each not in self._known]
        if new:
            self._covariances = torch.cat([self._covariances, self._between(self._at(new))], dim=1)
            self._known |= {each: len(self._known) + place for place, each in enumerate(new)}
        at, own_at = self._at(numbers), self._at(rivals)
        means, own = self._means[:, at], self._means[:, own_at]
        mean, variance = mixed(means, self._variances[:, at])
        rows = torch.tensor([self._known[each] for each in rivals])
        between = self._covariances[:, rows][..., at].mean(dim=0)
        between += (own - own.mean(dim=0)).T @ (means - mean) / len(means)
        return own.mean(dim=0), mean, variance, between

    def _at(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([self._places[each] for each in numbers], dtype=torch.int64)

    def _between(self, at: Tensor) -> Tensor:  # (b,) -> (M, b, w)
        """Covariances of these places with all, given what is observed and believed."""
        prior = self._surrogate.cross(self._features[at], self._features)
        told = self._solved[:, at] @ self._solved.mT
        return prior - told - self._rows[..., at].mT @ self._rows
