"""What is watched is what was trained: files read back, by TensorBoard's own reader where they are its."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from gpnas_trainers import build
from gpnas_trainers.pairs import PairSet, open_pairs, prepare_photographs
from gpnas_trainers.train import Progress, Recipe, Training, evaluate, train
from gpnas_trainers.watching import JsonLines, ProgressBar, Speed, TensorBoard

RECIPE = Recipe(steps=12, batch_size=2, evaluate_every=4, warmup_steps=2, ms_ssim_weight=0.0)


@pytest.fixture(scope="module")
def pairs(cache: Path) -> tuple[PairSet, PairSet]:
    folder = prepare_photographs(cache, 2)
    return open_pairs(folder, "train"), open_pairs(folder, "validation").head(1)


def small() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build("drn", 2, features=4, blocks=1, stages=1)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_json_line_per_evaluation_also_when_gone_on_with(
    pairs: tuple[PairSet, PairSet], tmp_path: Path
) -> None:
    path = tmp_path / "training.jsonl"
    seen: list[tuple[float | None, float | None]] = []

    def note(_: Training, progress: Progress) -> None:
        if progress.psnr is not None:
            seen.append((progress.psnr, progress.ssim))

    start = small().state_dict()
    train(small(), *pairs, RECIPE, seed=1, initial=start, watchers=[JsonLines(path), note])
    assert [row["step"] for row in rows(path)] == [4, 8, 12]
    assert [(row["psnr"], row["ssim"]) for row in rows(path)] == seen
    assert rows(path)[0]["notes"] == [f"warm start: {len(start)} of {len(start)} tensors taken"]
    assert rows(path)[1]["notes"] == []
    assert rows(path)[1]["learning_rate"] == RECIPE.learning_rate_at(7)
    # killed after the line of step 8, before its checkpoint, while writing one more
    whole = path.read_text().splitlines()
    path.write_text("\n".join(whole[:2]) + '\n{"step": 9, "lo')
    training = Training(small(), *pairs, RECIPE, seed=1)
    watch = JsonLines(path)
    for _ in range(4):
        training.advance(0.0)
    while not training.done:
        watch(training, training.advance())
    assert [row["step"] for row in rows(path)] == [4, 8, 12]
    assert [path] == list(tmp_path.iterdir())


def test_speed_is_that_of_the_last_half_minute() -> None:
    speed = Speed()

    def at(step: int, seconds: float) -> float | None:
        return speed(Progress(step, 1000, 0.1, None, None, seconds, False))

    assert at(0, 5.0) is None
    assert at(10, 10.0) == 2.0
    assert at(70, 70.0) == 1.0
    assert at(130, 100.0) == 2.0


def test_the_bar_shows_steps_speed_and_db(pairs: tuple[PairSet, PairSet]) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, no_color=True)
    with ProgressBar(console) as bar:
        progress = train(small(), *pairs, RECIPE, seed=1, watchers=[bar], initial=small().state_dict())
    shown = file.getvalue()
    assert f"{progress.psnr:.2f} dB" in shown
    assert "12/12" in shown
    assert "steps/s" in shown
    assert "warm start: " in shown


def test_tensorboard_reads_scalars_and_images(pairs: tuple[PairSet, PairSet], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    network = small()
    with TensorBoard(tmp_path, images=1) as board:
        done = train(network, *pairs, RECIPE, seed=1, watchers=[board])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    psnrs = events.Scalars("validation/psnr")
    assert [event.step for event in psnrs] == [4, 8, 12]
    assert psnrs[-1].value == pytest.approx(done.psnr)
    assert events.Scalars("validation/ssim")[-1].value == pytest.approx(done.ssim)
    assert events.Scalars("train/learning_rate")[-1].value == pytest.approx(RECIPE.learning_rate_at(11))
    (name,) = pairs[1].names
    image = events.Images(f"validation/{name}")[-1]
    shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string))).astype(np.float32)
    _, hr = pairs[1].image(0)
    width = hr.shape[2]
    assert shown.shape == (hr.shape[1], 3 * width, 3)
    np.testing.assert_array_equal(shown[:, 2 * width :].transpose(2, 0, 1), hr)
    # the one in the middle is the network's, up to rounding to 8 bit
    error = np.square((shown[:, width : 2 * width] - shown[:, 2 * width :]) / 255).mean()
    assert -10 * np.log10(error) == pytest.approx(evaluate(network, pairs[1])[0], abs=0.05)
