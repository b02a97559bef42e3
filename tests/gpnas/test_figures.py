"""Figures: every number in them is the journal's, or follows from it by a formula that stands here."""

import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import altair
import numpy as np
import pytest
import torch
import vl_convert
from scipy import stats

import gpnas
from gpnas import Architecture, JournalError, regret
from gpnas.explanation import taught
from gpnas.figures import belief_charts, beliefs, charts
from gpnas.figures.catalogue import Seen, figures, see
from gpnas.figures.data import lanes, pareto
from gpnas.figures.records import Span, Trial
from gpnas.figures.style import DARK, LIGHT, PALETTE
from gpnas.journal import Journal
from gpnas.report.sentences import checks
from tests.gpnas.searched import SPACE, STEPS, listed, searched


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("figures") / "run", 22)


@pytest.fixture(scope="module")
def seen(run: Path) -> Seen:
    return see(run)


def rows_of(chart: Any, *fields: str) -> list[dict[str, Any]]:
    """The rows of the one dataset of a chart that has these fields."""
    for text in chart.to_dict()["datasets"].values():
        rows: list[dict[str, Any]] = json.loads(text)
        if rows and set(fields) <= set(rows[0]):
            return rows
    raise AssertionError(f"no data with {fields}")


def test_trials_are_as_the_journal_has_them(run: Path, seen: Seen) -> None:
    with Journal.read(run) as journal:
        observations = {each.candidate.id: each for each in journal.observations()}
        assert [trial.id for trial in seen.recorded.trials] == [each.id for each in journal.candidates()]
        for candidate, trial in zip(journal.candidates(), seen.recorded.trials, strict=True):
            told = observations[candidate.id]
            assert (trial.family, trial.axes) == (
                candidate.architecture.family,
                dict(candidate.architecture.axes),
            )
            assert (trial.value, trial.failure, trial.seconds) == (told.value, told.failure, told.seconds)
            assert trial.stop == told.stopped
            assert (trial.mean, trial.stddev) == (
                candidate.decision.get("mean"),
                candidate.decision.get("stddev"),
            )
            assert len(trial.spans) == len(journal.attempts(candidate.id))
            assert trial.curve == tuple(
                row for row in journal.progress(candidate.id) if row.value is not None
            )
    assert [seen.recorded.count(state) for state in ("observed", "stopped", "failed")] == [15, 4, 3]
    assert seen.recorded.steps == STEPS


def test_the_course_holds_values_intervals_and_the_best_so_far(seen: Seen) -> None:
    assert seen.trust is not None
    assert seen.learning is not None
    chart = charts.course(seen.recorded, seen.trust.foretold)
    rows = {row["id"]: row for row in rows_of(chart, "id", "state", "value")}
    assert set(rows) == {trial.id for trial in seen.recorded.trials}
    for trial in seen.recorded.trials:
        if trial.value is not None:
            assert rows[trial.id]["value"] == pytest.approx(trial.value, rel=1e-8)
    for each in seen.trust.foretold:
        trial = next(trial for trial in seen.recorded.trials if trial.id == each.trial)
        assert trial.mean is not None
        assert trial.stddev is not None
        spread = math.hypot(trial.stddev, seen.learning.noise)
        low, high = stats.norm(trial.mean, spread).interval(0.9)
        assert [each.low, each.high] == pytest.approx([low, high])
        nearer = stats.norm(trial.mean, spread).interval(each.level)
        assert min(abs(np.array(nearer) - each.observed)) < 1e-6 * spread
    best = [float("-inf")]
    for trial in seen.recorded.trials:
        best.append(max(best[-1], trial.value if trial.finished and trial.value else float("-inf")))
    for row in charts.best_so_far(seen.recorded):
        assert row["value"] == best[int(row["number"]) + 1]


def test_the_page_and_the_closing_lines_say_alike_what_trainings_differ_by(seen: Seen) -> None:
    """The standard deviation of a difference, which is more than that of one training (by simulation)."""
    assert seen.learning is not None
    assert seen.standing is not None
    trainings = np.random.default_rng(0).normal(0.0, seen.learning.noise, (100_000, 2))
    assert seen.learning.apart == pytest.approx(np.std(trainings[:, 0] - trainings[:, 1]), rel=0.01)
    found, _ = taught(seen.standing.engine)
    assert found is not None
    pattern = r"two trainings of one (?:architecture would differ )?by about ([\d.e-]+)"
    closing = re.search(pattern, " ".join(found.conclusions("dB")))
    page = re.search(pattern, " ".join(each.sentence for each in checks(seen)))
    assert closing is not None
    assert page is not None
    assert float(page[1]) == pytest.approx(float(closing[1]), rel=0.05)


def test_maps_and_slices_are_the_engines_posterior(seen: Seen) -> None:
    standing = seen.standing
    assert standing is not None
    leader = SPACE[beliefs.leader_of(standing, "net")]
    data = beliefs.posterior_map(standing, "net", "width", "depth")
    assert data.others == {"block": leader.axes["block"]}
    assert len(data.cells) == 20
    belief = standing.posterior.mean_and_variance(standing.engine.features())
    for cell in data.cells:
        index = SPACE.index(Architecture("net", {"width": cell.x, "depth": cell.y, **data.others}))
        assert cell.mean == pytest.approx(float(belief[0][index]))
        assert cell.stddev == pytest.approx(float(belief[1][index].sqrt()))
    averaged = beliefs.posterior_map(standing, "net", "width", "depth", averaged=True)
    for cell in averaged.cells:
        both = [
            SPACE.index(Architecture("net", {"width": cell.x, "depth": cell.y, "block": block}))
            for block in ("plain", "residual")
        ]
        assert cell.mean == pytest.approx(float(belief[0][both].mean()))
    along = beliefs.slice_along(standing, "net", "depth")
    low, high = standing.posterior.interval(standing.engine.features(), 0.9)
    for point in along.points:
        index = SPACE.index(Architecture("net", {**along.others, "depth": point.x}))
        assert [point.low, point.high] == pytest.approx([float(low[index]), float(high[index])])
    rows = rows_of(belief_charts.mean_map(data), "x", "y", "value")
    assert [row["value"] for row in rows] == pytest.approx([cell.mean for cell in data.cells])


def test_infeasible_cells_are_missing(tmp_path: Path) -> None:
    space = SPACE.where("width * depth <= 40")
    standing = see(searched(tmp_path / "run", 9, space=space)).standing
    assert standing is not None
    data = beliefs.posterior_map(standing, "net", "width", "depth", averaged=True)
    assert {(cell.x, cell.y) for cell in data.cells} == {
        (width, depth) for width in (4, 8, 12, 16, 20) for depth in (1, 2, 3, 4) if width * depth <= 40
    }
    datasets = [json.loads(text) for text in belief_charts.mean_map(data).to_dict()["datasets"].values()]
    gaps = next(rows for rows in datasets if set(rows[0]) == {"x", "y"})
    assert {(row["x"], row["y"]) for row in gaps} == {(12, 4), (16, 3), (16, 4), (20, 3), (20, 4)}


def test_the_expected_regret_is_that_of_independent_draws(seen: Seen) -> None:
    standing, left = seen.standing, seen.left
    assert standing is not None
    assert left is not None
    generator = np.random.default_rng(1)
    mean, between = standing.posterior.joint(standing.engine.features())
    draws = []
    for each, covariance in zip(mean.numpy(), between.numpy(), strict=True):
        normal = generator.multivariate_normal(each, covariance, size=20_000, method="eigh")
        draws.append(standing.posterior.warp.inverse(torch.from_numpy(normal)).numpy())
    values = np.concatenate(draws)
    trained = [SPACE.index(Architecture(t.family, t.axes)) for t in standing.trials if t.finished]
    chosen = max(trained, key=lambda index: values[:, index].mean())
    lost = values.max(axis=1) - values[:, chosen]
    error = lost.std() / math.sqrt(regret.DRAWS)
    assert left.course[-1].regret == pytest.approx(lost.mean(), abs=5 * error)
    assert left.course[-1].observations == len(standing.trials)
    assert left.course[-1].regret < left.course[0].regret
    assert all(each.bound >= 0 <= each.regret for each in left.course)


def test_what_a_search_notes_of_its_prospect_is_what_its_report_computes(seen: Seen) -> None:
    standing, left = seen.standing, seen.left
    assert standing is not None
    assert left is not None
    prospect = standing.engine.prospect()
    assert prospect is not None
    assert prospect.regret == pytest.approx(left.course[-1].regret, rel=1e-6)
    assert prospect.bound == pytest.approx(left.course[-1].bound, rel=1e-6)
    leader = standing.engine.recommend()[0]
    assert prospect.leader == leader.id
    belief = standing.engine.belief(torch.tensor([SPACE.index(leader.architecture)]))
    assert (prospect.mean, prospect.stddev) == pytest.approx((float(belief.mean), float(belief.stddev)))


def test_the_unknown_share_is_the_posterior_variance_over_the_prior(seen: Seen) -> None:
    standing, left = seen.standing, seen.left
    assert standing is not None
    assert left is not None
    shares = []
    x, model = standing.engine.features(), standing.posterior
    noises = model.likelihood.noise[:, 0].detach().numpy()
    with torch.no_grad():
        everything = model.covar_module(torch.cat([model.x, x])).to_dense().numpy()
    for noise, covariance in zip(noises, everything, strict=True):
        known, cross = covariance[: len(model.x), : len(model.x)], covariance[: len(model.x), len(model.x) :]
        inverse = np.linalg.inv(known + noise * np.eye(len(known)))
        prior = covariance.diagonal()[len(model.x) :]
        shares.append((prior - np.einsum("nq,nm,mq->q", cross, inverse, cross)).mean() / prior.mean())
    assert left.course[-1].unknown == pytest.approx(np.mean(shares), rel=1e-6)


def test_left_out_observations_fit_their_intervals(seen: Seen) -> None:
    assert seen.trust is not None
    assert seen.standing is not None
    for each in seen.trust.left_out:
        inside = each.low <= each.observed <= each.high
        assert inside == (each.level <= 0.9)
    levels = [each.level for each in seen.trust.left_out]
    row = next(
        row
        for row in rows_of(belief_charts.calibration(seen.trust), "group", "nominal", "share")
        if row["group"] == "surrogate, left out" and row["nominal"] == 0.5
    )
    assert row["share"] == pytest.approx(np.mean(np.array(levels) <= 0.5))


def test_lanes_are_as_few_as_ran_at_once() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        starts = rng.uniform(0, 10, 30)
        spans = [(float(start), float(start + rng.uniform(0.1, 3))) for start in starts]
        trials = [
            Trial(f"c{n}", "net", {}, "random", "observed", spans=(Span(1, *span, "observed"),))
            for n, span in enumerate(spans)
        ]
        bars = lanes(trials, 20.0)
        for lane in {bar.lane for bar in bars}:
            own = sorted((bar.started, bar.ended) for bar in bars if bar.lane == lane)
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(own))
        at_once = max(sum(a <= moment < b for a, b in spans) for moment, _ in spans)
        assert max(bar.lane for bar in bars) == at_once


def test_the_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [(float(a), float(b)) for a, b in rng.integers(0, 6, (12, 2))]
        brute = {p for p in points if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points)}
        assert {points[place] for place in pareto(points)} == brute


def test_every_chart_is_valid_vega_lite_with_a_title_and_words_for_those_who_do_not_see(seen: Seen) -> None:
    names = []
    for figure in figures(seen):
        names.append(figure.name)
        for view in figure.views[:2]:
            for chart in view.charts:
                document = chart.to_dict()  # checked against the schema
                assert document["description"]
                assert document["usermeta"]["title"]
                assert "<svg" in vl_convert.vegalite_to_svg(document, vl_version="6.4")
    assert names == [
        *("course", "costs", "left", "relevance", "posterior", "slices", "design", "trust", "curves"),
        *("coordinates", "workers"),
    ]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_colours_are_seen_on_either_paper(scheme: dict[str, str]) -> None:
    def contrast(colour: str) -> float:
        light, dark = sorted((luminance(colour), luminance(scheme["paper"])), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    assert min(map(contrast, PALETTE)) >= 3
    assert min(contrast(scheme["ink"]), contrast(scheme["muted"])) >= 4.5


def test_curves_and_what_early_stopping_saved(seen: Seen) -> None:
    rows = rows_of(charts.curves(seen.recorded), "id", "step", "value", "group")
    told = {(t.id, e.step): e.value for t in seen.recorded.trials for e in t.curve}
    assert {(row["id"], row["step"]): row["value"] for row in rows} == pytest.approx(told)
    assert charts.saved_steps(seen.recorded) == 4 * STEPS // 2


def test_many_trials_are_thinned_and_the_best_is_kept(tmp_path: Path) -> None:
    many = listed(tmp_path / "run", 640)
    seen = see(many)
    assert seen.standing is not None
    assert len(seen.standing.trials) <= beliefs.MOST
    best = seen.recorded.best
    assert best is not None
    assert best.id in {trial.id for trial in seen.standing.trials}
    assert len({row["id"] for row in rows_of(charts.curves(seen.recorded), "id", "step")}) <= charts.CURVES
    assert len(rows_of(charts.course(seen.recorded), "id", "state")) == 640


def test_a_notebook_shows_figures_and_a_table(run: Path) -> None:
    opened = gpnas.open_run(run)
    table = opened.table()
    assert list(table["id"]) == [trial.id for trial in opened.recorded.trials]
    assert table["value"].count() == 19
    chart = opened.figures.posterior("width", "depth")
    assert isinstance(chart, altair.HConcatChart)
    chart.to_dict()
    for name, each in opened.figures.all().items():
        assert each.to_dict(), name
    assert "14" in repr(opened) or "22 trials" in repr(opened)
    assert "22 trials" in opened._repr_html_()
    with pytest.raises(ValueError, match="must be one of block, depth, width, but got 'hieght' and 'depth'"):
        opened.figures.posterior("hieght", "depth")


def test_without_a_surrogate_a_notebook_says_why(tmp_path: Path) -> None:
    searched(tmp_path / "run", 0)
    with pytest.raises(JournalError, match="no training has succeeded yet"):
        gpnas.open_run(tmp_path / "run").figures.posterior("width", "depth")
    with pytest.raises(JournalError):
        gpnas.open_run(tmp_path / "nothing")


def test_figures_are_imported_without_ray_and_torch() -> None:
    code = (
        "import sys, gpnas.figures.charts, gpnas.figures.catalogue; "
        "print([name for name in ('ray', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
