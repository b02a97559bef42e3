"""Metrics, loss and training against other libraries, and a resume that changes nothing."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim as reference_ms_ssim
from pytorch_msssim import ssim as reference_ssim
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from gpnas_trainers import build
from gpnas_trainers.losses import mixed_loss, ms_ssim_window
from gpnas_trainers.metrics import psnr, ssim
from gpnas_trainers.pairs import PairSet, open_pairs, prepare_photographs
from gpnas_trainers.train import Recipe, Training, TrainingError, evaluate, train

RECIPE = Recipe(steps=12, batch_size=2, hr_patch=48, evaluate_every=5, warmup_steps=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_photographs(tmp_path_factory.mktemp("cache"), 2)


@pytest.fixture(scope="module")
def pairs(folder: Path) -> tuple[PairSet, PairSet]:
    return open_pairs(folder, "train"), open_pairs(folder, "validation").head(1)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    hr = torch.from_numpy(data.chelsea()).permute(2, 0, 1).float() / 255
    noise = 0.05 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    return (hr + noise).clamp(0, 1), hr


@pytest.mark.parametrize("border", [0, 4])
def test_metrics_equal_scikit_image_and_pytorch_msssim(border: int) -> None:
    sr, hr = images()
    cut = slice(border, -border or None)
    a, b = (image[:, cut, cut].double() for image in (sr, hr))
    arrays = [image.permute(1, 2, 0).numpy() for image in (a, b)]
    assert psnr(sr, hr, border=border) == pytest.approx(
        peak_signal_noise_ratio(arrays[1], arrays[0], data_range=1), abs=1e-6
    )
    options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 1, "channel_axis": 2}
    _, full = structural_similarity(*arrays, full=True, **options)
    assert ssim(sr, hr, border=border) == pytest.approx(float(full[5:-5, 5:-5].mean()), abs=1e-6)
    # its own window is rounded to float32, which alone moves the fifth digit
    window = torch.exp(-((torch.arange(11).double() - 5) ** 2) / (2 * 1.5**2))
    window = (window / window.sum()).repeat(3, 1, 1, 1)
    reference = float(reference_ssim(a[None], b[None], data_range=1.0, win=window))
    assert ssim(sr, hr, border=border) == pytest.approx(reference, abs=1e-6)


def test_the_loss_equals_its_parts() -> None:
    sr, hr = images()
    sr, hr = sr[None, :, :200, :200], hr[None, :, :200, :200]
    expected = 0.7 * (sr - hr).abs().mean() + 0.3 * (1 - reference_ms_ssim(sr, hr, data_range=1.0))
    found = mixed_loss(sr, hr, l1_weight=0.7, ms_ssim_weight=0.3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("side", "window"), [(33, 3), (48, 3), (64, 3), (65, 5), (120, 7), (161, 11), (480, 11)]
)
def test_the_window_is_the_largest_that_fits(side: int, window: int) -> None:
    assert ms_ssim_window(side) == window
    assert side > (window - 1) * 16  # what pytorch-msssim demands
    assert window == 11 or side <= (window + 1) * 16


def test_too_small_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="sides above 32 HR pixels, but got 32"):
        Recipe(hr_patch=32)


def fresh(pairs: tuple[PairSet, PairSet], recipe: Recipe = RECIPE, seed: int = 3) -> Training:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build("drn", 2, features=4, blocks=1, stages=1)
    return Training(network, *pairs, recipe, seed=seed)


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.network.state_dict().items()}


def test_an_interrupted_training_resumed_equals_the_uninterrupted(
    pairs: tuple[PairSet, PairSet], tmp_path: Path
) -> None:
    whole = fresh(pairs)
    finish(whole)
    steps = []
    path = tmp_path / "checkpoint.pt"
    training = fresh(pairs)
    while not training.done:
        progress = training.advance(0.0)  # one step, then it is killed
        steps.append(progress.step)
        training.save(path)
        training = fresh(pairs)
        training.load(path)
    assert steps == sorted(steps)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(training)[name]), name
    assert (training.psnr, training.ssim) == (whole.psnr, whole.ssim)


def test_training_beats_bicubic_and_reports(pairs: tuple[PairSet, PairSet]) -> None:
    recipe = Recipe(steps=60, batch_size=4, evaluate_every=30, warmup_steps=5, learning_rate=4e-3)
    training = fresh(pairs, recipe)
    before, _ = evaluate(training.network, pairs[1])
    seen = []
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = build("drn", 2, features=8, blocks=1, stages=1)
    done = train(network, *pairs, recipe, seed=3, report=lambda p: seen.append((p.step, p.psnr)))
    assert [step for step, _ in seen] == [30, 60]
    assert done.psnr is not None
    assert done.psnr > before
    assert done.seconds > 0


def test_a_full_disk_keeps_the_earlier_checkpoint(
    pairs: tuple[PairSet, PairSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    training = fresh(pairs)
    training.advance(0.0)
    training.save(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        training.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_or_foreign_checkpoint_is_refused(pairs: tuple[PairSet, PairSet], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    training = fresh(pairs)
    training.advance(0.0)
    training.save(path)
    with pytest.raises(TrainingError, match="of the same training, but its seed differs"):
        fresh(pairs, seed=4).load(path)
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(TrainingError, match="a checkpoint must be whole"):
            fresh(pairs).load(path)


def test_a_divergence_is_one_clear_error(pairs: tuple[PairSet, PairSet]) -> None:
    recipe = Recipe(steps=200, batch_size=2, learning_rate=1e6, warmup_steps=0, clip_norm=0)
    training = fresh(pairs, recipe)
    with pytest.raises(TrainingError, match=r"the loss must .* at step|validation PSNR must be finite"):
        finish(training)


def finish(training: Training) -> None:
    while not training.advance().done:
        pass


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "`steps >= 1` must hold, but got steps=0"),
        ("learning_rate", -1.0, "`learning_rate > 0` must hold"),
        ("clip_norm", float("nan"), "`clip_norm >= 0` must hold"),
    ],
)
def test_a_recipe_checks_itself(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{field: value})  # type: ignore[arg-type]


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    recipe = Recipe(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = np.array([recipe.learning_rate_at(step) for step in range(100)])
    assert np.all(np.diff(rates[:11]) > 0)
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates.max() == pytest.approx(1.0)
    assert recipe.learning_rate_at(55) == pytest.approx(0.01 + 0.99 / 2)
