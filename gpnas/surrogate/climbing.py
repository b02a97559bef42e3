"""The maximum of a smooth function of a few variables within bounds.

SciPy's L-BFGS-B finds the same, but loading it takes 40 MiB and half a second in every search.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gpnas.surrogate.kernel import Array

Function = Callable[[Array], tuple[float, Array]]
"""Value and gradient, (p,) -> (value, (p,)); a value far below marks where there is none."""
GAIN, REST = 1e-4, 0.9
"""Share of the first slope that a step must gain over its length, and that it may leave at its end."""
TRIES = 30
PAIRS = 10
"""Steps that the Hessian is learned from."""


def climb(
    function: Function, start: Array, bounds: Array, *, steps: int = 100, tolerance: float = 1e-9
) -> tuple[Array, float]:
    """A local maximum, by projected BFGS: what stands on a bound and wants beyond it stays there.

    Bertsekas, "Projected Newton methods for optimization problems with simple constraints", 1982; the
    Hessian is that of limited-memory BFGS (Nocedal & Wright, "Numerical optimization", 2006, Eq. 7.24),
    kept as a matrix, since p is small. The first step goes as far as the bounds let it, so that the
    line search meets more than the nearest maximum.

    Args:
        function: what to maximise.
        start: (p,) within the bounds.
        bounds: (p, 2) lowest and highest.
        steps: at most so many.
        tolerance: it ends after a gain below this, relative to the value, which counts as at least 1,
            or where no free slope exceeds 1e-5.

    Returns:
        Where, (p,), and the value there.
    """
    lowest, highest = bounds.T
    here, (value, gradient) = start, function(start)
    hessian = np.eye(len(start))
    steps_moved = steps_turned = np.empty((0, len(start)))
    for _ in range(steps):
        free = ~((here <= lowest) & (gradient < 0) | (here >= highest) & (gradient > 0))
        if np.abs(gradient[free]).max(initial=0.0) <= 1e-5:
            break
        newton = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        for direction in (newton, gradient[free]):  # a bound in the way can turn the first one downhill
            towards = np.zeros_like(here)
            towards[free] = direction
            towards = np.clip(here + towards, lowest, highest) - here
            if towards @ gradient > 0:
                break
        there, next_value, next_gradient = _line_search(function, here, value, gradient, towards, bounds)
        gain, moved, turned = next_value - value, there - here, gradient - next_gradient
        if gain <= 0:
            break
        here, value, gradient = there, next_value, next_gradient
        if gain <= tolerance * max(abs(value), 1.0):
            break
        if moved @ turned > 1e-10 * (turned @ turned):  # else it curves the wrong way
            steps_moved = np.concatenate([steps_moved[1 - PAIRS :], moved[None]])
            steps_turned = np.concatenate([steps_turned[1 - PAIRS :], turned[None]])
            hessian = _hessian(steps_moved, steps_turned)
    return here, value


def _hessian(moved: Array, turned: Array) -> Array:  # (m, p) each -> (p, p), of the negative function
    both, m = moved @ turned.T, len(moved)
    unit = (turned[-1] @ turned[-1]) / both[-1, -1]
    middle = np.zeros((2 * m, 2 * m))
    middle[:m, :m] = unit * (moved @ moved.T)
    middle[:m, m:] = np.tril(both, -1)
    middle[m:, :m] = middle[:m, m:].T
    middle.flat[m * (2 * m + 1) :: 2 * m + 1] = -both.diagonal()
    wide = np.concatenate([unit * moved, turned])
    hessian: Array = -wide.T @ np.linalg.solve(middle, wide)
    hessian.flat[:: len(hessian) + 1] += unit
    return hessian


def _line_search(
    function: Function, here: Array, value: float, gradient: Array, towards: Array, bounds: Array
) -> tuple[Array, float, Array]:
    """A point on a line that satisfies the weak Wolfe conditions, its value and gradient.

    Lewis & Overton, "Nonsmooth optimization via quasi-Newton methods", 2013, Algorithm 2.6, which here
    shortens the first steps by a parabola.
    """
    slope, least, most, length = float(gradient @ towards), 0.0, math.inf, 1.0
    for _ in range(TRIES):
        there = np.clip(here + length * towards, *bounds.T)
        next_value, next_gradient = function(there)
        missing = slope * length - (next_value - value)
        if missing > (1 - GAIN) * slope * length:
            most = length
            length = (
                (least + most) / 2 if least else length * min(max(slope * length / missing / 2, 0.1), 0.5)
            )
        elif (
            next_gradient @ np.where((there > bounds[:, 0]) & (there < bounds[:, 1]), towards, 0)
            > REST * slope
        ):
            least = length
            length = (least + most) / 2 if most < math.inf else 2 * length
        else:
            break
    return there, next_value, next_gradient
