"""Greedy mutual information: exactness against its definition, then time and memory over grid sizes.

    python experiments/mutual_information_scale.py [--largest]

Exactness: points and gains on small grids against brute force, which evaluates
½ log [Var(y|A) / Var(y|U)] for every point of every step, with and without pending points, points
that may not be chosen (limits), and two families as one composite axis. Scale: 32 picks, each size in
a process of its own, whose peak memory less that of its imports is stated; beside the dense back-end.
`--largest` adds 10⁷ points.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from datetime import date

import numpy as np
from machine import processor
from numpy.typing import NDArray

from gpnas.mutual_information import greedy_design

Array = NDArray[np.float64]
NOISE = 1e-2
PICKS = 32


def matern(points: Array, lengthscale: float) -> Array:
    """Matérn-5/2 covariance of points on a line."""
    scaled = np.sqrt(5) * np.abs(points[:, None] - points) / lengthscale
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def brute_force(
    covariance: Array, picks: int, pending: list[int], allowed: list[int]
) -> tuple[list[int], list[float]]:
    """Greedy choice by the definition of the gain, one conditional variance at a time."""

    def conditional(y: int, given: list[int]) -> float:
        if not given:
            return float(covariance[y, y])
        cross = covariance[given, y]
        return float(covariance[y, y] - cross @ np.linalg.solve(covariance[np.ix_(given, given)], cross))

    chosen, points, gains = list(pending), [], []
    for _ in range(picks):
        gain = np.full(len(covariance), -np.inf)
        for y in set(allowed) - set(chosen):
            rest = [u for u in range(len(covariance)) if u != y and u not in chosen]
            gain[y] = 0.5 * np.log(conditional(y, chosen) / conditional(y, rest))
        best = int(np.argmax(gain >= gain.max() - 1e-9))
        points.append(best)
        gains.append(float(gain[best]))
        chosen.append(best)
    return points, gains


def exactness() -> None:
    generator = np.random.default_rng(0)
    axes = [matern(np.sort(generator.random(size)), scale) for size, scale in ((6, 0.4), (5, 0.7), (4, 1.0))]
    grid = np.kron(np.kron(axes[0], axes[1]), axes[2])
    # two families on one composite axis: 7 and 5 configurations, correlated by .4 across families
    inside = matern(np.linspace(0, 1, 12), 0.5)
    family = (np.arange(12) < 7).astype(float)
    composite = inside * np.where(family[:, None] == family, 1.0, 0.4)
    everything = list(range(len(grid)))
    cases = [
        ("grid 6×5×4", axes, grid, [], everything),
        ("with pending points", axes, grid, [3, 50, 77], everything),
        ("with limits", axes, grid, [3, 50], sorted(generator.choice(120, 60, replace=False).tolist())),
        ("two families × 8 values", [composite, axes[0]], np.kron(composite, axes[0]), [5], list(range(72))),
    ]
    print("| case | back-end | points | largest difference of gains |\n|---|---|---|---|")
    for name, factors, matrix, pending, allowed in cases:
        expected = brute_force(matrix + NOISE * np.eye(len(matrix)), 8, pending, allowed)
        for backend, given in (("kron", factors), ("dense", [matrix])):
            points, gains = greedy_design(given, NOISE, 8, pending, candidates=allowed)
            same = "identical" if points == expected[0] else "DIFFERENT"
            difference = np.abs(np.subtract(gains, expected[1])).max()
            print(f"| {name} | {backend} | {same} | {difference:.0e} |")


def measure(sizes: tuple[int, ...], dense: bool, pipe: object) -> None:
    factors = [matern(np.linspace(0, 1, size), 0.3 + 0.2 * number) for number, size in enumerate(sizes)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    if dense:
        whole = np.ones((1, 1))
        for factor in factors:
            whole = np.kron(whole, factor)
        factors = [whole]
    greedy_design(factors, NOISE, PICKS)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    pipe.send((seconds, peak / 2**20))  # type: ignore[attr-defined]


def scale(cases: list[tuple[tuple[int, ...], bool, int]]) -> None:
    print("\n| points | back-end | seconds (median) | GiB |\n|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for sizes, dense, repeats in cases:
        results = []
        for _ in range(repeats):
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(sizes, dense, send))
            process.start()
            results.append(receive.recv())
            process.join()
        seconds = statistics.median(result[0] for result in results)
        memory = max(result[1] for result in results)
        shape = "×".join(map(str, sizes))
        backend = "dense" if dense else "kron"
        print(f"| {np.prod(sizes):,} ({shape}) | {backend} | {seconds:.3f} | {memory:.2f} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--largest", action="store_true", help="10⁷ points as well")
    arguments = options.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores, {date.today()}\n")
    exactness()
    cases: list[tuple[tuple[int, ...], bool, int]] = [
        ((10, 10, 10), False, 3),
        ((10, 10, 10), True, 3),
        ((20, 20, 10), False, 3),
        ((20, 20, 10), True, 1),
        ((22, 22, 21), False, 3),
        ((22, 22, 21), True, 1),
        ((50, 50, 40), False, 3),
        ((100, 100, 100), False, 3),
    ]
    if arguments.largest:
        cases.append(((10,) * 7, False, 1))
    scale(cases)


if __name__ == "__main__":
    main()
