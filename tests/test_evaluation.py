"""A bundle measured: its table is what its networks give, added up by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gpnas.bundle import Bundle, Member, read_bundle, write_bundle
from gpnas.ensemble import load_networks
from gpnas.evaluation import evaluate, evaluation_pairs
from gpnas.records import Architecture
from gpnas_trainers import build
from gpnas_trainers.pairs import PairSet, open_pairs, prepare

SIZES = ((8, 1), (12, 2), (8, 3))


def bundle(folder: Path, weights: tuple[float, ...] = (0.5, 0.3, 0.2), data: str = "") -> Bundle:
    """Three small networks with random weights of enough size to differ visibly."""
    members = []
    for number, ((features, blocks), weight) in enumerate(zip(SIZES, weights, strict=True)):
        axes = {"features": features, "blocks": blocks, "stages": 1}
        torch.manual_seed(number)
        state = build("drn", scale=2, **axes).state_dict()
        state = {name: value + 0.02 * torch.randn_like(value) for name, value in state.items()}
        members.append(
            Member(Architecture("drn", axes), state, weight, {"psnr": 20.0, "ssim": 0.5}, f"c{number:04d}")
        )
    write_bundle(
        folder / "bundle",
        members,
        scale=2,
        recipe={"hr_patch": 48},
        data={"fingerprint": "0", "validation": data},
        metrics={"bicubic": 20.0, "best": 20.0, "ensemble": 20.0},
        seed=0,
        versions={},
        machine={},
    )
    return read_bundle(folder / "bundle")


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for name in ("HR", "LRx2"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
    for number in range(5):
        lr = generator.integers(60, 196, (30, 34, 3), dtype=np.uint8)
        hr = lr.repeat(2, axis=0).repeat(2, axis=1)
        Image.fromarray(lr).save(tmp_path / "pairs" / "LRx2" / f"{number}.png")
        Image.fromarray(hr).save(tmp_path / "pairs" / "HR" / f"{number}.png")
    return tmp_path / "pairs"


def by_hand(networks: list[torch.nn.Module], weights: list[float], lr: np.ndarray, turns: bool) -> np.ndarray:
    """The weighted mean of the networks' clamped outputs, each over eight flips and transposes."""
    total = 0.0
    for network, weight in zip(networks, weights, strict=True):
        outputs = []
        for turn in range(4 if turns else 1):
            for flip in (False, True) if turns else (False,):
                view = np.rot90(lr, turn, axes=(1, 2))
                view = view[:, :, ::-1] if flip else view
                with torch.inference_mode():
                    sr = network(torch.from_numpy(view.copy())[None])[0].clamp(0, 1).numpy()
                sr = sr[:, :, ::-1] if flip else sr
                outputs.append(np.rot90(sr, -turn, axes=(1, 2)))
        total = total + weight * np.mean(outputs, axis=0)
    return np.asarray(total)


def psnr(sr: np.ndarray, hr: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((sr.astype(np.float64) - hr) ** 2)))


def images(pairs: list[PairSet]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        tuple(np.asarray(pixels, dtype=np.float32) / 255 for pixels in each.image(index))  # type: ignore[misc]
        for each in pairs
        for index in range(len(each))
    ]


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (1.0, 0.0, 0.0)])
def test_table_1_is_what_the_networks_give(
    tmp_path: Path, pairs: Path, weights: tuple[float, float, float]
) -> None:
    made = bundle(tmp_path, weights)
    judged = evaluation_pairs(made, pairs, print)
    evaluation = evaluate(made, judged)
    networks = load_networks(made)
    assert evaluation.images == 5
    rows = {(row.members, row.levels): row for row in evaluation.rows}
    assert len(rows) == 3 * (3 + 3 + 1)
    members = [member.architecture for member in made.members]
    for subset in ([0], [2], [0, 1], [1, 2], [0, 1, 2]):
        given = np.array([weights[index] for index in subset])
        shares = given / given.sum() if given.sum() else np.full(len(subset), 1 / len(subset))
        for turns in (False, True):
            expected = np.mean(
                [
                    psnr(by_hand([networks[index] for index in subset], list(shares), lr, turns), hr)
                    for lr, hr in images(judged)
                ]
            )
            levels = (("networks",) if len(subset) > 1 else ()) + (("self_ensemble",) if turns else ())
            row = rows[tuple(members[index] for index in subset), levels]
            assert row.psnr == pytest.approx(expected, abs=1e-4)


def test_nothing_it_was_trained_on_judges_a_bundle(tmp_path: Path, pairs: Path) -> None:
    prepared = prepare(pairs, 2, minimum_side=48)
    validation = open_pairs(prepared, "validation")
    own = evaluation_pairs(bundle(tmp_path, data=validation.fingerprint), pairs, print)
    assert [each.fingerprint for each in own] == [validation.fingerprint]
    others = evaluation_pairs(bundle(tmp_path, data="another"), pairs, print)
    assert sum(len(each) for each in others) == 5
