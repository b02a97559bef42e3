"""The model card's picture shows what it says, and nobody's photographs unasked."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gpnas.bundle import Member
from gpnas.errors import DataError
from gpnas.records import Architecture
from gpnas.results.picture import GAP, make_picture, validation_pairs
from gpnas.run.setup import Data, Setup
from gpnas_trainers import build
from gpnas_trainers.pairs import PairSet, Rules, open_pairs, prepare

SCALE, SHAPE = 2, (120, 152)
"""Larger than a view of 96 LR pixels."""
DETAIL = (60, 20)
"""Corner in HR pixels of the only square with detail, as large as a view."""


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, PairSet]:
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for name in ("HR", "LRx2"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
    for number in range(3):
        hr = np.full((SCALE * SHAPE[0], SCALE * SHAPE[1], 3), 100 + number, dtype=np.uint8)
        y, x = DETAIL[0] // 8 * 8, DETAIL[1] // 8 * 8
        blocks = generator.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        hr[y : y + 192, x : x + 192][: SCALE * SHAPE[0] - y] = blocks.repeat(2, 0).repeat(2, 1)[: 240 - y]
        Image.fromarray(hr).save(tmp_path / "pairs" / "HR" / f"{number}.png")
        Image.fromarray(hr[::2, ::2]).save(tmp_path / "pairs" / "LRx2" / f"{number}.png")
    folder = prepare(tmp_path / "pairs", SCALE, Rules())
    return tmp_path / "pairs", open_pairs(folder, "validation")


def members() -> list[Member]:
    made = []
    for stages in (1, 2):
        axes = {"features": 4, "blocks": 1, "stages": stages}
        torch.manual_seed(stages)
        made.append(Member(Architecture("drn", axes), build("drn", SCALE, **axes).state_dict(), 0.5))
    return made


def test_the_picture_shows_the_part_with_most_detail(pairs: tuple[Path, PairSet]) -> None:
    _, validation = pairs
    picture = make_picture(members(), validation)
    with Image.open(io.BytesIO(picture.png)) as image:
        assert not image.info  # nothing besides pixels
        pixels = np.asarray(image)
    side = 192
    assert pixels.shape == (side, 4 * side + 3 * GAP, 3)
    assert (pixels[:, side : side + GAP] == 255).all()
    small, bicubic, average, hr = (pixels[:, start : start + side] for start in range(0, 784, side + GAP))
    lr, truth = (array.transpose(1, 2, 0) for array in validation.image(0))
    # the one place at which HR's view is found, by brute force
    places = [
        (y, x)
        for y in range(0, 240 - side + 1, 2)
        for x in range(0, 304 - side + 1, 2)
        if np.array_equal(truth[y : y + side, x : x + side], hr)
    ]
    assert len(places) == 1
    (y, x) = places[0]
    grey = truth.astype(float).mean(axis=2)
    detail = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    means = {
        (top, left): detail[top : top + side - 1, left : left + side - 1].mean()
        for top in range(0, 240 - side + 1, 8)
        for left in range(0, 304 - side + 1, 8)
    }
    assert means[y, x] == pytest.approx(max(means.values()))
    assert np.array_equal(small, lr[y // 2 : y // 2 + 96, x // 2 : x // 2 + 96].repeat(2, 0).repeat(2, 1))
    # PSNR of what is seen, after rounding to 8 bits, is what the caption says
    said = [float(number) for number in re.findall(r"\(([\d.]+) dB\)", picture.caption)]
    for view, number in zip((bicubic, average), said, strict=True):
        error = np.mean((view.astype(float) - hr) ** 2)
        assert 10 * np.log10(255**2 / error) == pytest.approx(number, abs=0.02)
    assert f"of {validation.names[0]}," in picture.caption


def test_only_what_validated_the_search_is_shown(pairs: tuple[Path, PairSet]) -> None:
    folder, validation = pairs
    setup = Setup(SCALE, {"hr_patch": 48}, Data("", "others", "pairs", None), 1)
    with pytest.raises(DataError, match="images must be those that validated the search"):
        validation_pairs(setup, folder)
    with pytest.raises(DataError) as error:
        validation_pairs(setup, folder / "nowhere")
    assert len(str(error.value).splitlines()) == 1
    assert len(validation) == 1


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (Data("", "", "photographs", {"noise_sigma": (0.5, 1.5)}), True),
        (Data("", "", "photographs", None), False),  # somebody's folder of that name
        (Data("", "", "holidays", None), False),
    ],
)
def test_only_shipped_photographs_are_shown_unasked(data: Data, shown: bool) -> None:
    assert data.is_shipped == shown
