"""A bundle measured: its table is what its networks give, added up by hand."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import rankdata
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from gpnas.bundle import Bundle
from gpnas.ensemble import Average, load_networks
from gpnas.errors import DataError
from gpnas.evaluation import (
    Evaluation,
    bootstrap_intervals,
    evaluate,
    evaluation_pairs,
    ranks,
    to_markdown,
)
from gpnas_trainers.infer import Levels, upscale
from gpnas_trainers.pairs import PairSet, open_pairs, prepare
from tests.builders import bundle, ensemble_by_hand, folder_of_pairs


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    return folder_of_pairs(tmp_path / "pairs")


def psnr(sr: np.ndarray, hr: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((sr.astype(np.float64) - hr) ** 2)))


def images(pairs: list[PairSet]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        tuple(np.asarray(pixels, dtype=np.float32) / 255 for pixels in each.image(index))  # type: ignore[misc]
        for each in pairs
        for index in range(len(each))
    ]


def scores(made: Bundle, judged: list[PairSet], levels: Levels | None = None, **options: Any) -> Evaluation:
    """Without tiles, which these images are too small for."""
    return evaluate(made, judged, levels, tiles=False, **options)


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (1.0, 0.0, 0.0)])
def test_table_1_is_what_the_networks_give(
    tmp_path: Path, pairs: Path, weights: tuple[float, float, float]
) -> None:
    made = bundle(tmp_path, weights)
    judged = evaluation_pairs(made, pairs, print)
    evaluation = evaluate(made, judged)
    networks = load_networks(made)
    assert evaluation.images == 5
    rows = {(row.networks, row.levels): row for row in evaluation.rows}
    assert len(rows) == 4 * (3 + 3 + 1)
    for subset in ([0], [2], [0, 1], [1, 2], [0, 1, 2]):
        given = np.array([weights[index] for index in subset])
        shares = given / given.sum() if given.sum() else np.full(len(subset), 1 / len(subset))
        averaged = ("networks",) if len(subset) > 1 else ()
        place = tuple(index + 1 for index in subset)
        for turns in (False, True):
            expected = [
                psnr(ensemble_by_hand([networks[index] for index in subset], list(shares), lr, turns), hr)
                for lr, hr in images(judged)
            ]
            row = rows[place, averaged + (("self_ensemble",) if turns else ())]
            assert row.members == tuple(made.members[index].architecture for index in subset)
            assert row.psnr == pytest.approx(np.mean(expected), abs=1e-4)
            assert [image for image, _ in row.per_image] == pytest.approx(expected, abs=1e-4)
            # these images are one tile each
            assert rows[place, (*averaged, "tiles", *row.levels[len(averaged) :])].psnr == row.psnr


def test_a_bundle_is_not_judged_by_what_it_was_trained_on(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prepared by whatever rules: a picture is known by its pixels."""
    known = {}
    for path in sorted((pairs / "HR").iterdir()):
        with Image.open(path) as image:
            pixels = np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
        known[path.stem] = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    assert len(known) == 5
    trained = {"fingerprint": "0", "validation": "", "pictures": [known["1"], known["3"]]}
    made = bundle(tmp_path)
    of = made.manifest.model_copy(update={"data": trained})
    judged = evaluation_pairs(replace(made, manifest=of), pairs, print)
    names = sorted(name for each in judged for name in each.names)
    assert [Path(name).stem for name in names] == ["0", "2", "4"]
    assert "2 of 5 pictures are left out: the bundle was trained on them" in capsys.readouterr().out
    everything = made.manifest.model_copy(update={"data": trained | {"pictures": list(known.values())}})
    with pytest.raises(DataError, match=r"was not trained on, but all 5 are; name others"):
        evaluation_pairs(replace(made, manifest=everything), pairs, print)


def test_rows_with_tiles_are_blends_of_tiles(tmp_path: Path, pairs: Path) -> None:
    made = bundle(tmp_path)
    judged = evaluation_pairs(made, pairs, print)
    evaluation = evaluate(made, judged, Levels(16, 8, self_ensemble=False))
    assert [row.levels for row in evaluation.rows[7:10]] == [("tiles",)] * 3
    (network, *_) = load_networks(made)
    lr, hr = images(judged)[0]
    tent = 1 - np.abs((2 * np.arange(32) + 1) / 32 - 1)
    sr, total = np.zeros(hr.shape), np.zeros(hr.shape[1:])
    for y in (0, 8, 14):
        for x in (0, 8, 16, 18):
            part = ensemble_by_hand([network], [1.0], lr[:, y : y + 16, x : x + 16], turns=False)
            window = tent[:, None] * tent
            sr[:, 2 * y : 2 * y + 32, 2 * x : 2 * x + 32] += window * part
            total[2 * y : 2 * y + 32, 2 * x : 2 * x + 32] += window
    assert evaluation.rows[7].per_image[0][0] == pytest.approx(psnr(sr / total, hr), abs=1e-3)


def test_other_levels_are_those_of_upscale(tmp_path: Path, pairs: Path) -> None:
    """An outlier dropped, a plain average, several sides, another blend, half precision."""
    made = bundle(tmp_path)
    judged = [each.head(1) for each in evaluation_pairs(made, pairs, print)][:1]
    networks = load_networks(made)
    lr, hr = images(judged)[0]
    ways: list[tuple[Average, list[float] | None]] = [("weights", [0.5, 0.3, 0.2]), ("plain", None)]
    for average, weights in ways:
        how = Levels((16, 20), blend="gaussian", precision="bfloat16", drop_outlier=True)
        evaluation = evaluate(made, judged, how, average=average)
        rows = {(row.networks, row.levels): row for row in evaluation.rows}
        assert len(rows) == 4 * (3 + 3 + 1 + 1)
        for levels in ((), ("tiles",), ("self_ensemble",), ("tiles", "self_ensemble")):
            for dropped in (False, True):
                sr = upscale(
                    networks,
                    torch.from_numpy(lr),
                    2,
                    replace(
                        how if "tiles" in levels else Levels(0, precision="bfloat16"),
                        self_ensemble="self_ensemble" in levels,
                        drop_outlier=dropped,
                    ),
                    weights=weights,
                )
                row = rows[(1, 2, 3), ("networks", *levels, *(("drop_outlier",) if dropped else ()))]
                assert row.psnr == pytest.approx(psnr(sr.numpy(), hr), abs=1e-4)
        assert evaluation.weights == pytest.approx(weights or [1 / 3] * 3)
        text = to_markdown(evaluation)
        assert text.count("| 1 + 2 + 3, outlier dropped |") == 4
        assert text.count("### ") == 4
        assert evaluation.to_json()["settings"]["overlap"] == [8, 10]


def test_levels_can_be_left_out(tmp_path: Path, pairs: Path) -> None:
    made = bundle(tmp_path)
    judged = [each.head(1) for each in evaluation_pairs(made, pairs, print)]
    plain = evaluate(made, judged, Levels(self_ensemble=False), tiles=False)
    assert [row.levels for row in plain.rows] == [()] * 3 + [("networks",)] * 4
    assert plain.rows == scores(made, judged).rows[:7]


def test_y_and_border_are_as_other_tools_measure_them(tmp_path: Path, pairs: Path) -> None:
    """Bicubic against scikit-image's metrics on the luma that Pillow's or MATLAB's formula gives."""
    made = bundle(tmp_path)
    judged = evaluation_pairs(made, pairs, print)
    evaluation = scores(made, judged, Levels(self_ensemble=False), channels="y", border=4)
    for (lr, hr), (found_psnr, found_ssim) in zip(images(judged), evaluation.bicubic.per_image, strict=True):
        tensor = torch.from_numpy(lr)[None]
        up = torch.nn.functional.interpolate(tensor, scale_factor=2, mode="bicubic").clamp(0, 1)[0].numpy()
        sr_y, hr_y = (
            rgb2ycbcr(image.transpose(1, 2, 0).astype(np.float64))[4:-4, 4:-4, 0] for image in (up, hr)
        )
        assert found_psnr == pytest.approx(peak_signal_noise_ratio(hr_y, sr_y, data_range=255), abs=1e-3)
        _, full = structural_similarity(
            hr_y, sr_y, data_range=255, gaussian_weights=True, use_sample_covariance=False, full=True
        )
        assert found_ssim == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-5)


# -- ranks and intervals

TABLE_1 = {
    "x2 PSNR": ([32.51, 32.31, 32.40], [1, 3, 2], [32.56, 32.49, 32.62], [2, 3, 1]),
    "x2 SSIM": ([0.9209, 0.9188, 0.9200], [1, 3, 2], [0.9210, 0.9204, 0.9215], [2, 3, 1]),
    "x3 PSNR": ([31.07, 30.97, 31.01], [1, 3, 2], [31.21, 31.17, 31.24], [2, 3, 1]),
    # the paper prints 3 for 0.8811, besides the 3 of 0.8807
    "x3 SSIM": ([0.8796, 0.8787, 0.8792], [1, 3, 2], [0.8811, 0.8807, 0.8814], [2, 3, 1]),
    "x4 PSNR": ([30.26, 30.31, 30.32], [3, 2, 1], [30.47, 30.48, 30.48], [3, 1, 1]),
    # the paper prints 1 for 0.8402, besides the 1 of 0.8403
    "x4 SSIM": ([0.8401, 0.8403, 0.8402], [3, 1, 2], [0.8423, 0.8421, 0.8423], [1, 3, 1]),
}
"""Means and ranks of the paper's Table 1: single networks, then pairs."""


@pytest.mark.parametrize("column", TABLE_1)
def test_ranks_are_those_of_the_papers_table_1(column: str) -> None:
    single, single_ranks, paired, paired_ranks = TABLE_1[column]
    digits = 2 if "PSNR" in column else 4
    assert ranks(single, digits) == single_ranks
    assert ranks(paired, digits) == paired_ranks
    # what is not printed does not rank
    assert (
        ranks([value + 0.4 * 10**-digits * (-1) ** i for i, value in enumerate(paired)], digits)
        == paired_ranks
    )


@given(st.lists(st.integers(0, 9).map(lambda n: n / 100), min_size=1, max_size=8))
def test_ranks_are_scipys_minimum_ranks(values: list[float]) -> None:
    assert ranks(values, 2) == rankdata([-value for value in values], method="min").tolist()


@pytest.mark.parametrize("images", [2, 7, 100])
def test_intervals_are_scipys(images: int) -> None:
    data = np.random.default_rng(5).normal([30, 0.9], [2, 0.05], (images, 2))
    found = bootstrap_intervals(data, resamples=2000, confidence=0.9, seed=3)
    for column, (low, high) in enumerate(found):
        expected = scipy.stats.bootstrap(
            (data[:, column],),
            np.mean,
            n_resamples=2000,
            confidence_level=0.9,
            method="percentile",
            rng=np.random.default_rng(3),
        ).confidence_interval
        assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    """Of normal scores, whose interval is known: 1.96 standard errors."""
    data = np.random.default_rng(0).normal(0, 1, (400, 300))
    intervals = bootstrap_intervals(data, resamples=1000)
    assert np.mean((intervals[:, 0] < 0) & (intervals[:, 1] > 0)) == pytest.approx(0.95, abs=0.035)
    assert np.mean(intervals[:, 1] - intervals[:, 0]) == pytest.approx(2 * 1.96 / 20, rel=0.05)


def test_large_tables_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(1).normal(size=(11, 9))
    whole = bootstrap_intervals(data, resamples=300)
    monkeypatch.setattr("gpnas.evaluation.statistics.CHUNK", 700)
    assert bootstrap_intervals(data, resamples=300) == pytest.approx(whole, rel=1e-12)


def test_differences_are_paired(tmp_path: Path, pairs: Path) -> None:
    made = bundle(tmp_path)
    evaluation = scores(made, evaluation_pairs(made, pairs, print))
    for levels in ((), ("self_ensemble",)):
        rows = [row for row in evaluation.rows if row.levels[row.levels[:1] == ("networks",) :] == levels]
        best = max(rows[:3], key=lambda row: row.psnr)
        assert [row.over_best is None for row in rows] == [True] * 3 + [False] * 4
        for row in rows:
            over_bicubic = row.over_bicubic
            assert over_bicubic is not None
            assert over_bicubic.mean == pytest.approx(row.psnr - evaluation.bicubic.psnr)
            if row.over_best is None:
                continue
            each = np.array(
                [one - other for (one, _), (other, _) in zip(row.per_image, best.per_image, strict=True)]
            )
            expected = scipy.stats.bootstrap(
                (each,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
            ).confidence_interval
            assert row.over_best.mean == pytest.approx(each.mean())
            assert row.over_best.interval == pytest.approx((expected.low, expected.high))
        places = rankdata([-round(row.psnr, 2) for row in rows[3:6]], method="min")
        assert [row.psnr_rank for row in rows[3:]] == [*places, None]


# -- what is shown


def test_json_and_markdown_hold_the_same_table(tmp_path: Path, pairs: Path) -> None:
    made = bundle(tmp_path)
    evaluation = scores(made, evaluation_pairs(made, pairs, print))
    document = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert sorted(document["names"]) == ["0", "1", "2", "3", "4"]
    assert document["settings"]["resamples"] == 10_000
    assert document["settings"]["seed"] == 0
    for row in [document["bicubic"], *document["rows"]]:
        assert np.mean(row["per_image"]["psnr"]) == pytest.approx(row["psnr"])
        assert np.mean(row["per_image"]["ssim"]) == pytest.approx(row["ssim"])
        low, high = row["psnr_interval"]
        assert min(row["per_image"]["psnr"]) <= low <= row["psnr"] <= high <= max(row["per_image"]["psnr"])
    lines = [line for line in to_markdown(evaluation).splitlines() if line.startswith("| ")]
    tables = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    shown = [row for row in tables if " + " in row[0] or (row[0] in ("1", "2", "3") and len(row) == 6)]
    superscripts = {None: "", 1: "¹", 2: "²", 3: "³"}
    assert [row[:2] for row in shown] == [
        [" + ".join(map(str, row["networks"])), f"{row['psnr']:.2f}{superscripts[row['psnr_rank']]}"]
        for row in document["rows"]
    ]
    assert sum(row[0] == "bicubic" for row in tables) == 2


def test_one_image_has_no_interval(tmp_path: Path, pairs: Path) -> None:
    made = bundle(tmp_path)
    judged = [each.head(1) for each in evaluation_pairs(made, pairs, print)][:1]
    evaluation = scores(made, judged)
    assert evaluation.bicubic.psnr_interval is None
    assert evaluation.to_json()["rows"][0]["over_bicubic"]["interval"] is None
    assert "[" not in to_markdown(evaluation).partition("###")[2]


def test_a_flawless_image_counts_as_100_db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    for name, side in (("HR", 60), ("LRx2", 30)):
        (tmp_path / "flat" / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.full((side, side, 3), 100 + number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "flat" / name / f"{number}.png")
    made = bundle(tmp_path)
    evaluation = scores(made, evaluation_pairs(made, tmp_path / "flat", print), Levels(self_ensemble=False))
    assert evaluation.bicubic.psnr == 100
    json.dumps(evaluation.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"border": 25}, "0: SSIM needs images of at least 11×11, but got 10×18; leave this image out"),
        ({"border": 30}, "0: a border must leave something of the image, but 30 of 60×68 do not"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    tmp_path: Path, pairs: Path, options: dict[str, Any], says: str
) -> None:
    made = bundle(tmp_path)
    judged = [each.head(1) for each in evaluation_pairs(made, pairs, print)]
    with pytest.raises(DataError) as error:
        evaluate(made, judged, **options)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(DataError, match="at least one pair to evaluate on"):
        evaluate(made, [])


def test_progress_rises_to_the_end(tmp_path: Path, pairs: Path) -> None:
    made = bundle(tmp_path)
    judged = evaluation_pairs(made, pairs, print)
    told: list[float] = []
    evaluate(made, judged, Levels(16, 8), progress=lambda done, _: told.append(done))
    assert told == sorted(told)
    assert told[-1] == pytest.approx(5)
    assert len({int(done) for done in told}) >= 5


def test_nothing_it_was_trained_on_judges_a_bundle(tmp_path: Path, pairs: Path) -> None:
    prepared = prepare(pairs, 2)
    validation = open_pairs(prepared, "validation")
    own = evaluation_pairs(bundle(tmp_path, data=validation.fingerprint), pairs, print)
    assert [each.fingerprint for each in own] == [validation.fingerprint]
    others = evaluation_pairs(bundle(tmp_path, data="another"), pairs, print)
    assert sum(len(each) for each in others) == 5
