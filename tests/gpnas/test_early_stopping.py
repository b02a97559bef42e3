"""Early stopping: its regression against dense Gaussian conditioning, its densities against quadrature,
its promises against real learning curves."""

import csv
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from gpnas.early_stopping import (
    LEAST_CHANCE,
    LEAST_FINISHED,
    SHRINKAGE,
    Curve,
    Forecast,
    combine,
    forecast,
    outlook,
)

CURVES = Path(__file__).parents[2] / "experiments/results/learning_curves.csv"
STEPS = (50, 100, 150)


def curves(count: int, seed: int) -> list[Curve]:
    """Gains that depend on the value and on the gain before, with noise."""
    generator = np.random.default_rng(seed)
    found: list[Curve] = []
    for _ in range(count):
        start = 27 + generator.normal(0, 0.5)
        second = start + abs(generator.normal(0.4, 0.1))
        final = second + 0.3 - 0.2 * (second - 27) + 0.5 * (second - start) + generator.normal(0, 0.1)
        found.append(dict(zip(STEPS, (start, second, final), strict=True)))
    return found


@pytest.mark.parametrize("count", [4, 9, 30])
@pytest.mark.parametrize("seen", [1, 2])
def test_the_regression_is_gaussian_conditioning(count: int, seen: int) -> None:
    """Slopes N(0, s²/SHRINKAGE), intercept N(0, 10⁸ s²), noise N(0, s²), s² with Jeffreys' prior."""
    *finished, running = curves(count + 1, seed=count)
    running = {step: running[step] for step in STEPS[:seen]}
    step = STEPS[seen - 1]
    found = forecast(finished, running, 150)
    assert found is not None

    def regressors(curve: Curve) -> list[float]:
        return [curve[step]] if seen == 1 else [curve[100], curve[100] - curve[50]]

    slopes = np.array([regressors(curve) for curve in [*finished, running]])
    x = (slopes - slopes[:-1].mean(axis=0)) / slopes[:-1].std(axis=0)
    prior = 1e8 + x @ x.T / SHRINKAGE + np.eye(count + 1)
    gains = np.array([curve[150] - curve[step] for curve in finished])
    solved = np.linalg.solve(prior[:-1, :-1], np.column_stack([gains, prior[:-1, -1]]))
    mean = prior[-1, :-1] @ solved[:, 0]
    variance = prior[-1, -1] - prior[-1, :-1] @ solved[:, 1]
    noise = gains @ solved[:, 0] / (count - 1)  # the flat intercept takes one degree of freedom
    assert found.freedom == count - 1
    assert found.mean == pytest.approx(running[step] + mean, abs=1e-5)
    assert found.scale == pytest.approx(math.sqrt(noise * variance), rel=1e-4)


def test_intervals_hold_as_often_as_they_say() -> None:
    """Nine in ten trainings drawn from the regression's own prior end within the central 90 %."""
    generator = np.random.default_rng(1)
    inside, count, n = 0, 3000, 6
    for _ in range(count):
        starts = generator.normal(28, 0.5, size=n + 1)
        slope = generator.normal(0, 0.1 / math.sqrt(SHRINKAGE)) / starts[:n].std()
        ends = starts + 0.4 + slope * (starts - 28) + generator.normal(0, 0.1, size=n + 1)
        finished = [{50: start, 150: end} for start, end in zip(starts[:n], ends[:n], strict=True)]
        found = forecast(finished, {50: starts[n]}, 150)
        assert found is not None
        inside += abs(ends[n] - found.mean) <= found.scale * stats.t.ppf(0.95, found.freedom)
    assert inside / count == pytest.approx(0.9, abs=0.02)


@settings(deadline=None, max_examples=30)
@example(0.0, 0.0625, 3, (1.0, 0.25), 1.0)  # they disagree: the tail of the t decides
@example(1.0, 0.05, 30, (-1.0, 0.1), 0.5)  # and by twenty standard deviations
@given(
    st.floats(-1, 1),
    st.floats(0.05, 2),
    st.integers(3, 30),
    st.none() | st.tuples(st.floats(-1, 1), st.floats(0.1, 2)),
    st.floats(-2, 2),
)
def test_both_sources_are_multiplied(
    mean: float, scale: float, freedom: int, prior: tuple[float, float] | None, threshold: float
) -> None:
    y = np.linspace(-80, 80, 400_001)
    density = stats.t.pdf(y, freedom, mean, scale)
    if prior is not None:
        density *= stats.norm.pdf(y, *prior)
    density /= density.sum()
    found, stddev, chance = combine(Forecast(mean, scale, freedom), prior, threshold)
    assert chance == pytest.approx(density[y >= threshold].sum(), abs=5e-3)  # half a cell
    assert found == pytest.approx((y * density).sum(), abs=1e-3)
    assert stddev > 0


def test_certain_sources_are_weighed_by_their_precision() -> None:
    """Two normals N(1, 0.3²) and N(2, 0.4²): the textbook's product."""
    mean, stddev, chance = combine(Forecast(1.0, 0.3, 1e7), (2.0, 0.4), 1.5)
    precision = 1 / 0.3**2 + 1 / 0.4**2
    expected = (1 / 0.3**2 + 2 / 0.4**2) / precision
    assert mean == pytest.approx(expected, abs=1e-3)
    assert stddev == pytest.approx(precision**-0.5, rel=1e-3)
    assert chance == pytest.approx(stats.norm.sf(1.5, expected, precision**-0.5), abs=1e-3)


def test_a_training_is_judged_against_the_last_of_the_best() -> None:
    finished = curves(12, seed=5)
    running = {50: 27.0, 100: 27.4}
    finals = sorted((curve[150] for curve in finished), reverse=True)
    whole = forecast(finished, running, 150)
    assert whole is not None
    for best in (1, 3, 12):
        found = outlook(finished, running, last=150, best=best)
        assert found is not None
        assert (found.step, found.value, found.best) == (100, 27.4, best)
        expected = stats.t.sf(finals[best - 1], whole.freedom, whole.mean, whole.scale)
        assert found.chance == pytest.approx(expected, abs=0.01)


def test_where_little_is_known_nothing_is_judged() -> None:
    finished = curves(LEAST_FINISHED, seed=2)
    running = {50: 20.0}
    assert outlook(finished, running, last=150, best=3) is not None
    assert outlook(finished[1:], running, last=150, best=3) is None  # too few finished
    assert outlook(finished, running, last=150, best=LEAST_FINISHED + 1) is None
    assert outlook(finished, {}, last=150, best=3) is None  # no evaluation yet
    assert outlook(finished, {150: 20.0}, last=150, best=3) is None  # at its end
    assert outlook(finished, {75: 20.0}, last=150, best=3) is None  # evaluated at other steps
    assert outlook([{50: 1.0}] * 9, running, last=150, best=3) is None  # none of them finished


def test_trainings_that_rise_alike_are_foretold_exactly() -> None:
    finished = [{50: 20.0 + number, 150: 23.0 + number} for number in range(6)]
    found = outlook(finished, {50: 20.5}, last=150, best=1, prior=(26.0, 1.0))
    assert found is not None
    assert found.mean == pytest.approx(23.5, abs=0.2)
    assert found.chance < 1e-3


def real_curves() -> list[Curve]:
    found: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    with CURVES.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["features"], row["blocks"], row["stages"], row["replicate"])
            found[key][int(row["step"])] = float(row["psnr"])
    return list(found.values())


def replayed(every: int) -> Iterator[tuple[float, bool]]:
    """Chance and truth at each evaluation of real trainings, in random orders."""
    whole = [{step: value for step, value in curve.items() if step % every == 0} for curve in real_curves()]
    for seed in range(20):
        order = random.Random(seed).sample(whole, 16)
        for place in range(LEAST_FINISHED, len(order)):
            finished = order[:place]
            threshold = sorted((curve[300] for curve in finished), reverse=True)[2]
            for step in range(every, 300, every):
                running = {each: value for each, value in order[place].items() if each <= step}
                found = outlook(finished, running, last=300, best=3)
                assert found is not None
                yield found.chance, order[place][300] >= threshold


def test_chances_are_right_on_real_trainings() -> None:
    """DRNs of many sizes, really trained: what is called hopeless nearly always is."""
    judged = list(replayed(50))
    hopeless = [truth for chance, truth in judged if chance < LEAST_CHANCE]
    promising = [truth for chance, truth in judged if chance > 0.5]
    assert len(hopeless) > 0.2 * len(judged)
    assert np.mean(hopeless) < LEAST_CHANCE
    assert np.mean(promising) > 0.5
    assert np.mean([chance for chance, _ in judged]) == pytest.approx(
        np.mean([truth for _, truth in judged]), abs=0.05
    )
