"""Exact greedy mutual information: which points tell most about all the others.

C. Guestrin, A. Krause, A. Singh, "Near-optimal sensor placements in Gaussian processes", ICML 2005
and JMLR 9, 2008, Algorithm 1; used for architectures by Li et al., "GP-NAS", CVPR 2020.

Over points V with covariance Σ = K + s²I and precision P = Σ⁻¹, choosing A maximises

    F(A) = I(y_A; y_V∖A) = ½ log|Σ_AA| + ½ log|Σ_UU| - ½ log|Σ|,   U = V∖A.

Since |Σ_UU| / |Σ| = |P_AA|, this is F(A) = ½ log|Σ_AA| + ½ log|P_AA|: symmetric in Σ and P. So the
gain of one more point is ½ [log d_Σ(y) + log d_P(y)], with d_M(y) = M_yy - M_yA M_AA⁻¹ M_Ay, the
residual diagonal of a pivoted Cholesky factorisation: one of Σ and one of P.

Glossary: n points, m axes with n₁ … n_m values, k picks. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

Array = NDArray[np.float64]

TIE = 1e-9
"""Gains that differ by less are equal; the lowest index then wins. Regular grids tie heavily."""


def greedy_design(
    factors: Sequence[Any],
    noise_variance: float,
    k: int,
    forced: Sequence[int] = (),
    *,
    candidates: Sequence[int] | None = None,
) -> tuple[list[int], list[float]]:
    """The k points that greedily maximise the mutual information with all points left out.

    With several factors no n×n matrix is formed, nor a k×n one: memory is O(n), and a pick costs
    O(n Σ nᵢ).

    Args:
        factors: covariance of the latent values: one (n, n) matrix, or the matrices (nᵢ, nᵢ) of the
            axes, whose Kronecker product in C order it is; symmetric and positive semi-definite.
        noise_variance: s² > 0, of every observation.
        k: how many points to choose, at most n - len(forced).
        forced: indices of points that are already chosen, observed or pending; different.
        candidates: indices of the points that may be chosen, such as the feasible ones; None is all.

    Returns:
        The indices in the order of choice, and the gain in nats of each. Shorter than k where the
        candidates run out or a gain would be negative: past half of V more points tell less.

    Raises:
        ValueError: a rule above is broken.
    """
    residuals, allowed = _conditioned(factors, noise_variance, forced, candidates)
    if not 0 <= k <= len(allowed) - len(forced):
        raise ValueError(f"`0 <= k <= {len(allowed) - len(forced)}` must hold, but got k={k}")
    picks: list[int] = []
    chosen: list[float] = []
    while len(picks) < k and allowed.any():
        gain = _gains(residuals, allowed)
        best = gain.max()
        if best < 0:
            break
        index = int(np.argmax(gain >= best - TIE))
        picks.append(index)
        chosen.append(float(gain[index]))
        allowed[index] = False
        if len(picks) < k:
            for residual in residuals:
                residual.add(index)
    return picks, chosen


def gains(
    factors: Sequence[Any],
    noise_variance: float,
    forced: Sequence[int] = (),
    *,
    candidates: Sequence[int] | None = None,
) -> Array:  # (n,)
    """What each point as the next one would add to the mutual information, in nats.

    The arguments are those of `greedy_design`, which picks the first point of the largest gain.

    Returns:
        The gains; -inf for forced points, and for those that are no candidates.

    Raises:
        ValueError: a rule of `greedy_design` is broken.
    """
    return _gains(*_conditioned(factors, noise_variance, forced, candidates))


def _conditioned(
    factors: Sequence[Any], noise_variance: float, forced: Sequence[int], candidates: Sequence[int] | None
) -> tuple[list[_Residual], NDArray[np.bool_]]:
    """The residuals of Σ and of P given what is forced, and which points may be chosen (n,)."""
    matrices = [np.asarray(factor, dtype=np.float64) for factor in factors]
    _check(matrices, noise_variance)
    n = int(np.prod([len(matrix) for matrix in matrices]))
    forced = [int(index) for index in forced]
    if len(set(forced)) < len(forced) or any(not 0 <= index < n for index in forced):
        raise ValueError(f"forced points must differ and lie in 0 … {n - 1}, but got {forced}")
    allowed = np.full(n, candidates is None)
    if candidates is not None:
        chosen_from = np.asarray(candidates, dtype=np.int64)
        if chosen_from.size and not (chosen_from.min() >= 0 and chosen_from.max() < n):
            raise ValueError(f"candidates must lie in 0 … {n - 1}")
        allowed[chosen_from] = True
    residuals = [_Residual(oracle) for oracle in _oracles(matrices, noise_variance)]
    for index in forced:
        allowed[index] = False
        for residual in residuals:
            residual.add(index)
    return residuals, allowed


def _gains(residuals: list[_Residual], allowed: NDArray[np.bool_]) -> Array:  # (n,)
    floor = np.finfo(np.float64).tiny
    gain = np.full(len(allowed), -np.inf)
    below, above = (np.maximum(residual.diagonal[allowed], floor) for residual in residuals)
    gain[allowed] = 0.5 * np.log(below * above)
    return gain


def _check(matrices: list[Array], noise_variance: float) -> None:
    if not matrices:
        raise ValueError("at least one covariance matrix must be given, but got none")
    if not 0 < noise_variance < np.inf:
        raise ValueError(f"`noise_variance > 0` must hold, but got {noise_variance}")
    for number, matrix in enumerate(matrices):
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise ValueError(f"a covariance must be a square matrix, but factor {number} is {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise ValueError(f"a covariance must be finite, but factor {number} is not")
        if not np.allclose(matrix, matrix.T, rtol=1e-10, atol=1e-12 * np.abs(matrix).max()):
            raise ValueError(f"a covariance must be symmetric, but factor {number} is not")


class _Oracle(Protocol):
    """A positive definite matrix M, known by what a pivoted Cholesky needs of it."""

    def diagonal(self) -> Array: ...  # (n,)

    def entries(self, rows: list[int], column: int) -> Array: ...  # M[rows, column]

    def combine(self, columns: list[int], weights: Array) -> Array: ...  # M[:, columns] @ weights, (n,)


def _oracles(matrices: list[Array], noise_variance: float) -> tuple[_Oracle, _Oracle]:
    """Σ and its inverse P."""
    if len(matrices) == 1:
        covariance = matrices[0] + noise_variance * np.eye(len(matrices[0]))
        try:
            factor = cho_factor(covariance)
        except LinAlgError:
            raise ValueError("a covariance must be positive semi-definite, but factor 0 is not") from None
        precision = cho_solve(factor, np.eye(len(covariance)))
        return _Dense(covariance), _Dense((precision + precision.T) / 2)
    values, vectors = [], []
    for number, matrix in enumerate(matrices):
        eigenvalues, eigenvectors = np.linalg.eigh(matrix)
        if eigenvalues[0] < -1e-8 * max(eigenvalues[-1], 1e-300):
            raise ValueError(
                "a covariance must be positive semi-definite, but factor "
                f"{number} has the eigenvalue {eigenvalues[0]:.3g}"
            )
        values.append(np.maximum(eigenvalues, 0.0))
        vectors.append(eigenvectors)
    return _KroneckerSum(matrices, noise_variance), _KroneckerSpectrum(values, vectors, noise_variance)


class _Dense:
    def __init__(self, matrix: Array) -> None:
        self._matrix = matrix

    def diagonal(self) -> Array:
        return self._matrix.diagonal().copy()

    def entries(self, rows: list[int], column: int) -> Array:
        return self._matrix[rows, column]

    def combine(self, columns: list[int], weights: Array) -> Array:
        return self._matrix[:, columns] @ weights


class _KroneckerSum:
    """⊗ Kᵢ + s²I."""

    def __init__(self, matrices: list[Array], noise_variance: float) -> None:
        self._matrices, self._noise = matrices, noise_variance
        self._shape = tuple(len(matrix) for matrix in matrices)

    def diagonal(self) -> Array:
        return _outer([matrix.diagonal() for matrix in self._matrices]) + self._noise

    def entries(self, rows: list[int], column: int) -> Array:
        places, place = np.unravel_index(rows, self._shape), np.unravel_index(column, self._shape)
        parts = [matrix[row, at] for matrix, row, at in zip(self._matrices, places, place, strict=True)]
        return np.prod(parts, axis=0) + self._noise * (np.asarray(rows) == column)

    def combine(self, columns: list[int], weights: Array) -> Array:
        combined = _combination(self._matrices, columns, weights, self._shape)
        combined[columns] += self._noise * weights
        return combined


class _KroneckerSpectrum:
    """(Q (Λ + s²I) Qᵀ)⁻¹ with Q = ⊗ Qᵢ and Λ = ⊗ Λᵢ."""

    def __init__(self, values: list[Array], vectors: list[Array], noise_variance: float) -> None:
        self._vectors = vectors
        self._shape = tuple(len(each) for each in values)
        self._inverse = _outer(values)  # (n,)
        self._inverse += noise_variance
        np.reciprocal(self._inverse, out=self._inverse)

    def diagonal(self) -> Array:
        return _apply([vectors * vectors for vectors in self._vectors], self._inverse, self._shape)

    def entries(self, rows: list[int], column: int) -> Array:
        places, place = np.unravel_index(rows, self._shape), np.unravel_index(column, self._shape)
        # contracts one axis after the other, all rows at once: O(n) per row, O(n / n₁) memory
        first = self._vectors[0][places[0]] * self._vectors[0][place[0]]  # (rows, n₁)
        partial = first @ self._inverse.reshape(self._shape[0], -1)
        for vectors, at, own in zip(self._vectors[1:], places[1:], place[1:], strict=True):
            axis = vectors[at] * vectors[own]  # (rows, nᵢ)
            partial = np.einsum("ri,rij->rj", axis, partial.reshape(len(rows), axis.shape[1], -1))
        return partial[:, 0]

    def combine(self, columns: list[int], weights: Array) -> Array:
        transposed = [vectors.T for vectors in self._vectors]
        spectrum = _combination(transposed, columns, weights, self._shape)
        spectrum *= self._inverse
        return _apply(self._vectors, spectrum, self._shape)


def _outer(vectors: Sequence[Array]) -> Array:
    """⊗ of vectors, (n,)."""
    product = np.ones(1)
    for vector in vectors:
        product = np.multiply.outer(product, vector).ravel()
    return product


def _combination(
    matrices: Sequence[Array], columns: list[int], weights: Array, shape: tuple[int, ...]
) -> Array:
    """(⊗ Mᵢ)[:, columns] @ weights, as one product of the first axis and the outer rest: O(k n)."""
    places = np.unravel_index(columns, shape)
    first = matrices[0][:, places[0]] * weights  # (n₁, k)
    rest = np.ones((len(columns), 1))
    for matrix, at in zip(matrices[1:], places[1:], strict=True):
        rest = (rest[:, :, None] * matrix[:, at].T[:, None, :]).reshape(len(columns), -1)
    return (first @ rest).ravel()  # k·n / n₁ numbers besides the result


def _apply(matrices: Sequence[Array], vector: Array, shape: tuple[int, ...]) -> Array:
    """(⊗ Mᵢ) vector, axis by axis: O(n Σ nᵢ)."""
    for axis, matrix in enumerate(matrices):
        before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
        vector = np.matmul(matrix, vector.reshape(before, shape[axis], after)).ravel()
    return vector


class _Residual:
    """The residual diagonal d of a pivoted Cholesky, whose n×k factor is never kept.

    The residual column of a new pivot a is M(e_a - Σ w_j e_j) with w = M_AA⁻¹ M_Aa: one combination
    of columns, for which the k×k factor of M_AA suffices.
    """

    def __init__(self, oracle: _Oracle) -> None:
        self._oracle = oracle
        self.diagonal = oracle.diagonal()
        self._chosen: list[int] = []
        self._factor = np.empty((0, 0))  # lower triangular, of M_AA

    def add(self, index: int) -> None:
        pivot = max(self.diagonal[index], np.finfo(np.float64).tiny)
        count = len(self._chosen)
        row = weights = np.empty(0)
        if count:
            row = solve_triangular(self._factor, self._oracle.entries(self._chosen, index), lower=True)
            weights = solve_triangular(self._factor, row, lower=True, trans="T")
        column = self._oracle.combine([*self._chosen, index], np.append(-weights, 1.0))
        pivot = max(float(column[index]), pivot * 1e-12)
        self.diagonal -= np.square(column, out=column) / pivot
        self.diagonal[index] = 0.0
        self._factor = np.block([[self._factor, np.zeros((count, 1))], [row, np.sqrt(pivot)]])
        self._chosen.append(index)
