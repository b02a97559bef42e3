"""Pages of searches of every kind: other objectives and spaces, long ones, their pictures, their Table 1."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import pytest

from gpnas import Architecture, SearchSpace
from gpnas.bundle import read_bundle
from gpnas.cli import main
from gpnas.evaluation import kept
from gpnas.figures.belief_charts import mean_map
from gpnas.figures.beliefs import posterior_map, slice_along
from gpnas.figures.catalogue import figures, see
from gpnas.figures.charts import best_so_far, cost_of, costs
from gpnas.figures.comparing import course_of
from gpnas.journal import Journal
from gpnas.records import Candidate, Fidelity, Objective, Observation
from gpnas.report.page import render
from gpnas.report.search_page import search_page
from gpnas.report.sentences import checks, summary
from gpnas.run.setup import Data, Setup
from gpnas.space import CategoricalAxis, Family, IntegerAxis
from gpnas_trainers.pairs import MINIMUM_NCC, Rules, open_pairs, prepare
from gpnas_trainers.recipe import Recipe
from tests.builders import bundle, folder_of_pairs
from tests.gpnas.searched import SPACE, STEPS, header_of, listed, searched, trained, truth
from tests.gpnas.test_report_page import Read

LOSSES = (0.42, 0.30, 0.35, 0.28, 0.50, 0.31)


def words(text: str) -> str:
    return " ".join(" ".join(Read(text).text).split())


# -- objectives and spaces


def told(run: Path, values: Mapping[int, float], goal: Literal["maximise", "minimise"]) -> Path:
    """A search to whose architectures, by index, these values were told."""
    with Journal.create_or_open(
        run, header_of(SPACE, len(values), Objective("loss", "", goal), {})
    ) as journal:
        for number, (index, value) in enumerate(values.items()):
            candidate = Candidate(f"c{number:04d}", SPACE[index], Fidelity(STEPS), 0, {"phase": "random"})
            journal.commit_candidates([candidate])
            trained(journal, candidate, value)
            journal.commit_observation(Observation(candidate, value, None, 10.0 + 5 * number))
    return run


@pytest.fixture(scope="module")
def minimised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return told(tmp_path_factory.mktemp("minimised") / "run", dict(enumerate(LOSSES)), "minimise")


def test_beliefs_of_what_is_minimised_are_those_of_its_mirror_image(tmp_path: Path) -> None:
    """Of the negatives, maximised: the same but for the sign, and bounds change places."""
    values = {index: truth(SPACE[index]) for index in range(0, 40, 3)}
    losses = {index: -value for index, value in values.items()}
    low, high = (
        see(told(tmp_path / "low", losses, "minimise")),
        see(told(tmp_path / "high", values, "maximise")),
    )
    assert low.standing is not None
    assert high.standing is not None
    both = (low.standing, high.standing)
    one, other = (posterior_map(each, "net", "width", "depth") for each in both)
    assert [(each.x, each.y, -each.mean, each.stddev) for each in one.cells] == [
        (each.x, each.y, each.mean, each.stddev) for each in other.cells
    ]
    points, mirrored = (slice_along(each, "net", "width").points for each in both)
    assert [(-each.mean, -each.high, -each.low) for each in points] == [
        (each.mean, each.low, each.high) for each in mirrored
    ]
    assert low.trust is not None
    assert high.trust is not None
    assert len(low.trust.left_out) == len(values)
    for each, image in zip(low.trust.left_out, high.trust.left_out, strict=True):
        assert (each.observed, each.mean, each.low, each.high) == (
            -image.observed,
            -image.mean,
            -image.high,
            -image.low,
        )
        assert each.low < each.mean < each.high
        assert each.ridge == pytest.approx(-(image.ridge or 0.0))
    assert low.learning is not None
    assert high.learning is not None
    assert low.learning.warp == high.learning.warp.replace("low", "high")
    assert replace(low.learning, warp=high.learning.warp) == high.learning
    assert low.left is not None
    assert high.left is not None
    assert replace(low.left, objective=high.left.objective) == high.left
    least = min(one.cells, key=lambda each: each.mean)
    assert f"lowest at width {least.x}, depth {least.y}" in str(mean_map(one).to_dict()["title"])


def test_the_best_of_what_is_minimised_is_the_lowest(minimised: Path) -> None:
    seen = see(minimised)
    best = seen.recorded.best
    assert best is not None
    assert best.value == min(LOSSES)
    assert [row["value"] for row in best_so_far(seen.recorded)] == [0.42, 0.30, 0.28, 0.28]
    assert [value for _, value in course_of(seen.recorded, "observations")] == [0.42, 0.30, 0.28, 0.28]
    assert f"The best network is {best.label}" in summary(seen)[1]
    text = words(render(search_page(minimised)))
    assert "The best so far is 0.280, from c0003" in text
    assert "the best 3 differ by 0.0300" in text


def test_the_front_of_what_is_minimised_has_no_rival_that_is_lower(minimised: Path) -> None:
    recorded = see(minimised).recorded
    points = [(cost_of(trial, "seconds"), trial.value or 0.0) for trial in recorded.finished]
    front = [
        (cost, value)
        for cost, value in points
        if not any(c <= cost and v <= value and (c, v) != (cost, value) for c, v in points)
    ]
    drawn = map(json.loads, costs(recorded, "seconds").to_dict()["datasets"].values())
    rows = [[(row["cost"], row["value"]) for row in each] for each in drawn if "cost" in each[0]]
    assert sorted(front) in [sorted(each) for each in rows]


def test_two_families_have_maps_slices_and_coordinates_each(tmp_path: Path) -> None:
    space = SearchSpace(
        [
            Family("net", (IntegerAxis("width", (4, 8, 12)), IntegerAxis("depth", (1, 2, 3)))),
            Family("other", (IntegerAxis("width", (4, 8, 16)), CategoricalAxis("block", ("a", "b")))),
        ]
    )
    seen = see(searched(tmp_path / "run", 12, space=space))
    assert {trial.family for trial in seen.recorded.succeeded} == {"net", "other"}
    drawn = {figure.name: figure for figure in figures(seen)}
    labels = [view.label for view in drawn["posterior"].views]
    assert {label.partition(":")[0] for label in labels} == {"net", "other"}
    assert {view.label for view in drawn["slices"].views} == {"net", "other"}
    assert {view.label for view in drawn["coordinates"].views} == {"net", "other"}


def test_axes_without_an_order_have_a_page(tmp_path: Path) -> None:
    space = SearchSpace(
        [
            Family(
                "net",
                (
                    CategoricalAxis("block", ("plain", "residual", "dense")),
                    CategoricalAxis("activation", ("relu", "gelu")),
                    CategoricalAxis("bias", (False, True)),
                ),
            )
        ]
    )

    def value(architecture: Architecture) -> float:
        axes = architecture.axes
        return 28 + (axes["block"] == "residual") + 0.3 * (axes["activation"] == "gelu")

    run = searched(tmp_path / "run", 10, space=space, value=value)
    seen = see(run)
    posterior = next(figure for figure in figures(seen) if figure.name == "posterior")
    assert "block × activation" in " ".join(view.label for view in posterior.views) or (
        "activation × block" in " ".join(view.label for view in posterior.views)
    )
    told = {check.name: check for check in checks(seen)}
    assert "within the space on every ordered axis" in told["Edge of the space"].sentence
    assert "residual" in words(render(search_page(run)))


def test_27_axes_have_a_page_of_bounded_size(tmp_path: Path) -> None:
    table = [{f"axis{k}": (row * (k + 3) // 5) % 4 for k in range(27)} for row in range(150)]
    space = SearchSpace.from_table(table)

    def value(architecture: Architecture) -> float:
        return 28 + 0.2 * float(architecture.axes["axis3"])

    text = render(search_page(searched(tmp_path / "run", 12, space=space, value=value)))
    assert len(text.encode()) < 5e6
    assert all(f"axis{k}" in text for k in range(27))
    assert "0.000 dB above" not in text  # no slice along an axis of which the space has one value there


def test_another_unit_stands_wherever_values_do(tmp_path: Path) -> None:
    run = searched(tmp_path / "run", 8, objective=Objective("accuracy", "%"))
    best = see(run).recorded.best
    assert best is not None
    text = words(render(search_page(run)))
    assert f"({best.id}) with {see(run).recorded.objective.shown(best.value or 0.0)}" in text
    assert "accuracy, %" in text
    assert " dB" not in text


@pytest.mark.slow
def test_3000_trials_have_a_page_of_bounded_size(tmp_path: Path) -> None:
    text = render(search_page(listed(tmp_path / "run", 3_000)))
    assert len(text.encode()) < 5e6
    assert "c2999" in text


# -- pictures and Table 1


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with a bundle of three networks, and its pairs, which are nobody's photographs."""
    folder = tmp_path_factory.mktemp("delivered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPNAS_CACHE", str(folder / "cache"))
        pairs = folder_of_pairs(folder / "pairs")
        prepared = prepare(pairs, 2, Rules(minimum_side=48, minimum_ncc=MINIMUM_NCC))
        training, validation = (open_pairs(prepared, part) for part in ("train", "validation"))
        data = Data(training.fingerprint, validation.fingerprint, "pairs", None)
        setup = asdict(Setup(2, Recipe(steps=STEPS, hr_patch=48).to_json(), data, 1))
        run = searched(folder / "run", 6, setup=json.loads(json.dumps(setup, default=dict)))
        bundle(run, data=validation.fingerprint)
    return run, pairs


@pytest.fixture
def cached(delivered: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPNAS_CACHE", str(delivered[0].parent / "cache"))


def page_of(source: Path, out: Path, *options: str) -> str:
    assert main(["report", str(source), "-o", str(out), *options]) == 0
    return out.read_text("utf-8")


@pytest.mark.usefixtures("cached")
def test_every_network_is_seen_at_work_where_the_pairs_are_named(
    delivered: tuple[Path, Path], tmp_path: Path
) -> None:
    run, pairs = delivered
    text = page_of(run, tmp_path / "out.html", "--data", str(pairs))
    images = [attributes for tag, attributes in Read(text).tags if tag == "img"]
    # LR, bicubic, three networks, the average, HR, and what is wrong in each of five
    assert len(images) == 12
    alternatives = " ".join(str(each["alt"]) for each in images)
    assert all(member.candidate in alternatives for member in read_bundle(run / "bundle").members)  # type: ignore[operator]
    assert all(str(each["alt"]).strip() for each in images)


@pytest.mark.usefixtures("cached")
def test_photographs_of_others_are_not_shown_unasked_and_what_is_gone_is_told(
    delivered: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = delivered
    text = page_of(run, tmp_path / "out.html")
    assert not [tag for tag, _ in Read(text).tags if tag == "img"]
    assert "where the folder of the pairs is named with --data" in words(text)
    other = folder_of_pairs(tmp_path / "other")
    shutil.rmtree(other / "HR")
    out = tmp_path / "none.html"
    for gone in (tmp_path / "gone", other):
        assert main(["report", str(run), "-o", str(out), "--data", str(gone)]) == 1
        assert str(gone) in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("cached")
def test_table_1_is_found_once_a_bundle_was_evaluated(
    delivered: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pairs = delivered
    mine = tmp_path / "run"
    shutil.copytree(run, mine)
    assert "Table 1" not in words(page_of(mine, tmp_path / "before.html"))
    capsys.readouterr()
    command = ["evaluate", str(mine / "bundle"), "--data", str(pairs), "--no-self-ensemble", "--no-tiles"]
    assert main([*command, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert str(mine / "bundle.evaluation.json") in captured.err
    for source in (mine, mine / "bundle"):
        text = words(page_of(source, tmp_path / "out.html"))
        assert "Table 1" in text
        assert all(f"{row['psnr']:.2f}" in text for row in (document["bicubic"], *document["rows"]))
    # another bundle in its place: the table is of the one before
    read = read_bundle(mine / "bundle")
    assert kept(read, mine / "bundle") is not None
    shutil.rmtree(mine / "bundle")
    bundle(mine, weights=(0.4, 0.4, 0.2), data=str(read.manifest.data["validation"]))
    text = words(page_of(mine, tmp_path / "out.html"))
    assert "Table 1 is not shown" in text
    assert "this one is of another" in text
    (mine / "bundle.evaluation.json").write_text("[1]")
    assert "Table 1 is not shown" in words(page_of(mine, tmp_path / "out.html"))


def test_a_run_of_a_recorded_objective_counts_its_goal(minimised: Path) -> None:
    recorded = see(minimised).recorded
    assert recorded.objective.lower
    assert replace(recorded.objective, lower=False).merit(2.0) == 2.0
    assert recorded.objective.merit(2.0) == -2.0
