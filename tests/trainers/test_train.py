"""Metrics, loss and training against other libraries, and a resume that changes nothing."""

import copy
import dataclasses
import errno
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim as reference_ms_ssim
from pytorch_msssim import ssim as reference_ssim
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

from gpnas_trainers import build
from gpnas_trainers.batches import Batches
from gpnas_trainers.checkpoint import write_checkpoint
from gpnas_trainers.losses import mixed_loss
from gpnas_trainers.metrics import psnr, ssim
from gpnas_trainers.pairs import PairSet, open_pairs, prepare_photographs
from gpnas_trainers.recipe import ms_ssim_window
from gpnas_trainers.train import Progress, Recipe, Training, TrainingError, evaluate, train
from gpnas_trainers.warm_start import warm_start

RECIPE = Recipe(steps=12, batch_size=2, hr_patch=48, evaluate_every=5, warmup_steps=2)


@pytest.fixture(scope="module")
def folder(cache: Path) -> Path:
    return prepare_photographs(cache, 2)


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


def test_the_library_takes_the_loss_elsewhere_than_on_a_cpu() -> None:
    """Without a GPU, on the device that has shapes alone."""
    sr, hr = (torch.rand(2, 3, 48, 64, device="meta", requires_grad=True) for _ in range(2))
    loss = mixed_loss(sr, hr, l1_weight=1.0, ms_ssim_weight=0.1)
    loss.backward()
    assert loss.shape == ()
    assert sr.grad is not None


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


def small(family: str = "drn") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if family == "drn":
            return build("drn", 2, features=4, blocks=1, stages=1)
        return build(family, 2, features=2, blocks=1)


def fresh(
    pairs: tuple[PairSet, PairSet], recipe: Recipe = RECIPE, seed: int = 3, network: nn.Module | None = None
) -> Training:
    return Training(network or small(), *pairs, recipe, seed=seed)


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.network.state_dict().items()}


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("drn", {}),
        ("drn", {"schedule": "step", "ema_decay": 0.9, "precision": "bfloat16"}),
        ("dual_regression", {"dual_weight": 0.1, "ema_decay": 0.5, "micro_batch": 1}),
    ],
)
def test_an_interrupted_training_resumed_equals_the_uninterrupted(
    pairs: tuple[PairSet, PairSet], tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    recipe = dataclasses.replace(RECIPE, **options)

    def begun() -> Training:
        return fresh(pairs, recipe, network=small(family))

    whole = begun()
    finish(whole)
    steps = []
    path = tmp_path / "checkpoint.pt"
    training = begun()
    while not training.done:
        progress = training.advance(0.0)  # one step, then it is killed
        steps.append(progress.step)
        training.save(path)
        training = begun()
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
    done = train(network, *pairs, recipe, seed=3, watchers=[lambda _, progress: seen.append(progress)])
    assert [each.step for each in seen if each.psnr is not None] == [30, 60]
    assert done.psnr is not None
    assert done.psnr > before
    assert done.seconds > 0


def test_a_full_disk_is_told_as_such_wherever_it_ends(
    pairs: tuple[PairSet, PairSet], small_disk: Path
) -> None:
    """Within a tensor, between two, in the directory of the zip file; the earlier checkpoint serves."""
    path, ballast = small_disk / "checkpoint.pt", small_disk / "ballast"
    training = fresh(pairs, network=build("drn", 2, features=8, blocks=1, stages=1))
    training.advance(0.0)
    training.save(path)
    before, page = path.read_bytes(), os.sysconf("SC_PAGE_SIZE")
    pages = os.statvfs(small_disk).f_bavail
    needed = math.ceil(len(before) / page)
    for free in range(needed):
        ballast.write_bytes(bytes((pages - free) * page))
        with pytest.raises(OSError, match="No space left") as caught:
            training.save(path)
        assert caught.value.errno == errno.ENOSPC
        assert path.read_bytes() == before
        assert set(small_disk.iterdir()) == {path, ballast}
        ballast.unlink()
    training.save(path)


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


@pytest.mark.parametrize("part", ["network", "average", "optimizer"])
def test_a_checkpoint_of_numbers_that_are_not_finite_is_refused(
    pairs: tuple[PairSet, PairSet], tmp_path: Path, part: str
) -> None:
    path, recipe = tmp_path / "checkpoint.pt", dataclasses.replace(RECIPE, ema_decay=0.9)
    training = fresh(pairs, recipe)
    training.advance(0.0)
    training.save(path)
    document = torch.load(path, weights_only=True)
    state = document["state"][part]
    tensor = state["state"][0]["exp_avg"] if part == "optimizer" else next(iter(state.values()))
    tensor[(0,) * tensor.ndim] = math.nan
    write_checkpoint(path, document)  # whole, with good checksums
    with pytest.raises(TrainingError, match=rf"but state\.{part}\..* has numbers that are not finite"):
        fresh(pairs, recipe).load(path)


def test_a_checkpoint_with_a_changed_bit_is_refused_or_is_the_same(
    pairs: tuple[PairSet, PairSet], tmp_path: Path
) -> None:
    """Anywhere in the file: what PyTorch reads of it alone would be another network's weights."""
    path = tmp_path / "checkpoint.pt"
    training = fresh(pairs)
    training.advance(0.0)
    training.save(path)
    whole, generator = path.read_bytes(), random.Random(0)
    expected = {name: value.clone() for name, value in training.network.state_dict().items()}
    refused = 0
    for _ in range(60):
        changed = bytearray(whole)
        changed[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        again = fresh(pairs)
        try:
            again.load(path)
        except TrainingError:
            refused += 1
            continue
        assert again.step == training.step
        for name, value in again.network.state_dict().items():
            assert torch.equal(value, expected[name]), name
    assert refused > 40  # the rest are gaps between the file's parts
    with pytest.raises(FileNotFoundError):
        fresh(pairs).load(tmp_path / "missing.pt")


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


def test_the_average_is_what_is_validated_and_delivered(pairs: tuple[PairSet, PairSet]) -> None:
    """Against an average by hand, in float64, of a training without one."""
    plain = fresh(pairs)
    averages = {name: value.double() for name, value in weights(plain).items()}
    for step in range(RECIPE.steps):
        plain.advance(0.0)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in weights(plain).items():
            averages[name] += (1 - decay) * (value.double() - averages[name])
    network = small()
    done = train(network, *pairs, dataclasses.replace(RECIPE, ema_decay=0.6), seed=3)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value.double(), averages[name], atol=1e-6, rtol=1e-5)
    assert not torch.equal(network.state_dict()["head.weight"], weights(plain)["head.weight"])
    assert (done.psnr, done.ssim) == evaluate(network, pairs[1])


@pytest.mark.parametrize("family", ["drn", "dual_regression"])
@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_micro_batches_amount_to_the_batch(
    pairs: tuple[PairSet, PairSet], family: str, micro_batch: int
) -> None:
    gradients = []
    for size in (0, micro_batch):
        recipe = Recipe(batch_size=5, clip_norm=0, micro_batch=size, dual_weight=0.1, warmup_steps=0)
        training = fresh(pairs, recipe, network=small(family))
        progress = training.advance(0.0)
        gradients.append([each.grad for each in training.network.parameters()])
        assert math.isfinite(progress.loss)
    for whole, parts in zip(*gradients, strict=True):
        if whole is None:
            assert parts is None
        else:
            torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


LACKING = """
import json, os, resource, sys
from pathlib import Path
import torch
from gpnas_trainers import build
from gpnas_trainers.pairs import open_pairs
from gpnas_trainers.train import Recipe, Training, TrainingError

torch.set_num_threads(1)
folder, to = Path(sys.argv[1]), Path(sys.argv[2])
pairs = open_pairs(folder, "train"), open_pairs(folder, "validation").head(1)

def trained(patch, mebibytes):
    torch.manual_seed(0)
    recipe = Recipe(batch_size=16, hr_patch=patch, ms_ssim_weight=0.0)
    network = build("drn", 2, features=32, blocks=2, stages=2)
    network(torch.rand(1, 3, 8, 8)).sum().backward()  # whatever is set up once
    training = Training(network, *pairs, recipe, seed=0)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + mebibytes * 2**20,) * 2)
    notes = training.advance(0.0).notes
    training.save(to / f"{mebibytes}.pt")
    return notes

for line in sys.stdin:
    reading, writing = os.pipe()
    if not os.fork():  # a process of its own, since its limit stays
        try:
            said = True, trained(*map(int, line.split()))
        except TrainingError as error:
            said = False, str(error)
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    print(open(reading).read(), flush=True)
    os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_memory_that_lacks_is_said_and_made_do_with(folder: Path, tmp_path: Path) -> None:
    """Really lacking: the process may not grow by more than a part of what the whole batch needs."""
    command = [sys.executable, "-c", LACKING, str(folder), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def trained(patch: int, mebibytes: int) -> list[Any]:
            """Whether it could be, and the notes or the error."""
            print(patch, mebibytes, file=process.stdin, flush=True)
            return list(json.loads(process.stdout.readline())) if process.stdout else []

        assert trained(144, 100_000) == [True, []]
        for mebibytes in (60, 80, 110, 150, 200, 270, 360, 480):  # processors differ in what one patch needs
            fits, notes = trained(144, mebibytes)
            if fits:
                break
            assert "out of memory: a step must fit with one patch" in notes
        assert "out of memory at step 0: 8 patches at a time instead of 16" in "\n".join(notes)
        whole, parts = (
            torch.load(tmp_path / f"{size}.pt", weights_only=True) for size in (100_000, mebibytes)
        )
        assert parts["micro_batch"] < whole["micro_batch"] == 16
        assert list(parts["notes"]) == notes
        assert parts["state"]["loss"] == pytest.approx(whole["state"]["loss"], rel=1e-4)
        fits, error = trained(96, 20)
        assert not fits
        assert "out of memory: a step must fit with one patch at a time" in error


class FailsOnce(nn.Module):
    """A network whose output in training is not finite, or is far off, at its n-th batch alone."""

    def __init__(self, calls: list[int], at: int, by: float) -> None:
        super().__init__()
        self.network, self._calls, self._at, self._by = small(), calls, at, by

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self._calls.append(len(self._calls))
            if self._calls[-1] == self._at:
                return self.network(x) + self._by
        return self.network(x)


def test_a_collapse_is_taken_back_once_at_half_the_rate(
    pairs: tuple[PairSet, PairSet], tmp_path: Path
) -> None:
    """It equals a training that was at the last validation and is given half the rate there."""
    recipe = Recipe(steps=12, batch_size=2, evaluate_every=5, warmup_steps=2, ms_ssim_weight=0.0)
    reference = fresh(pairs, recipe, network=FailsOnce([], -1, 0.0))
    reference.advance()
    path = tmp_path / "reference.pt"
    reference.save(path)
    document = torch.load(path, weights_only=True)
    half = dataclasses.replace(recipe, learning_rate=recipe.learning_rate / 2)
    document["identity"]["recipe"] = half.to_json()
    torch.save(document, path)
    reference = fresh(pairs, half, network=FailsOnce([], -1, 0.0))
    reference.load(path)
    finish(reference)

    training = fresh(pairs, recipe, network=FailsOnce([], 7, math.nan))
    assert training.advance().notes == ()
    progress = training.advance()
    (note,) = progress.notes
    assert note.startswith("collapse at step 7: the loss must stay finite, but is nan at step 7")
    assert note.endswith("gone back to step 5, once, at 0.5 of the rate")
    assert progress.step == 10
    assert progress.learning_rate == half.learning_rate_at(9)
    finish(training)
    assert training.notes == [note]
    for name, value in weights(reference).items():
        assert torch.equal(value, weights(training)[name]), name

    # killed after every step, it comes to the same
    calls: list[int] = []
    killed = fresh(pairs, recipe, network=FailsOnce(calls, 7, math.nan))
    path = tmp_path / "checkpoint.pt"
    while not killed.done:
        killed.advance(0.0)
        killed.save(path)
        killed = fresh(pairs, recipe, network=FailsOnce(calls, 7, math.nan))
        killed.load(path)
    assert killed.notes == [note]
    for name, value in weights(reference).items():
        assert torch.equal(value, weights(killed)[name]), name


def test_a_loss_that_explodes_is_taken_back_too(pairs: tuple[PairSet, PairSet]) -> None:
    recipe = Recipe(steps=70, batch_size=1, evaluate_every=40, warmup_steps=2, ms_ssim_weight=0.0)
    training = fresh(pairs, recipe, network=FailsOnce([], 60, 30.0))
    finish(training)
    (note,) = training.notes
    assert note.startswith("collapse at step 60: the loss must not explode, but at step 60 is 3")
    assert "gone back to step 40" in note


def test_losses_that_are_looked_at_every_few_steps_come_to_the_same(
    pairs: tuple[PairSet, PairSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: a collapse in between is noticed later, and goes back as far."""
    recipe = Recipe(steps=40, batch_size=1, evaluate_every=20, warmup_steps=2, ms_ssim_weight=0.0)
    reference = fresh(pairs, recipe, network=FailsOnce([], 27, math.nan))
    finish(reference)
    later = fresh(pairs, recipe, network=FailsOnce([], 27, math.nan))
    monkeypatch.setattr(later._guard, "every", 6)
    finish(later)
    assert later.notes[0].startswith("collapse at step 31: the loss must stay finite, but is nan at step 27")
    for name, value in weights(reference).items():
        assert torch.equal(value, weights(later)[name]), name
    assert later.evaluations[40]["loss"] == reference.evaluations[40]["loss"]


def test_a_bootstrap_sample_is_the_seeds_own(pairs: tuple[PairSet, PairSet]) -> None:
    """Its images are drawn as often as the sample has them, and no others."""
    train_pairs, _ = pairs
    sample = train_pairs.resampled(np.random.default_rng((5, 0, 1)))
    places = np.sort(np.random.default_rng((5, 0, 1)).integers(len(train_pairs), size=len(train_pairs)))
    assert sample.names == tuple(train_pairs.names[place] for place in places)
    assert len(set(sample.names)) < len(train_pairs.names)
    recipe = Recipe(batch_size=4, hr_patch=48, images="bootstrap")
    lr, hr = Batches(train_pairs, recipe, 5, slice(1, 3), "cpu").at(9)
    expected = sample.patches(4, 48, np.random.default_rng((5, 9)), rows=slice(1, 3))
    assert torch.equal(lr, expected[0])
    assert torch.equal(hr, expected[1])
    with_all = Batches(train_pairs, Recipe(batch_size=4, hr_patch=48), 5, slice(1, 3), "cpu").at(9)
    assert not torch.equal(lr, with_all[0])


@pytest.mark.slow
def test_a_compiled_training_is_the_same_up_to_rounding(pairs: tuple[PairSet, PairSet]) -> None:
    plain, compiled = (
        fresh(pairs, dataclasses.replace(RECIPE, compile=mode, ms_ssim_weight=0.0))
        for mode in ("no", "default")
    )
    for each in (plain, compiled):
        finish(each)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=1e-3, atol=1e-4)


def test_weights_to_start_from_are_taken_and_told(pairs: tuple[PairSet, PairSet], tmp_path: Path) -> None:
    source = small()
    start = copy.deepcopy(source.state_dict())
    seen: list[Progress] = []
    recipe = dataclasses.replace(RECIPE, steps=1, warmup_steps=0, learning_rate=1e-12)
    network = build("drn", 2, features=4, blocks=1, stages=1)
    path = tmp_path / "checkpoint.pt"
    watchers = [lambda _, progress: seen.append(progress)]
    for _ in range(2):  # the second goes on from the checkpoint, and has nothing more to tell
        train(network, *pairs, recipe, seed=3, initial=start, watchers=watchers, checkpoint=path)
    assert seen[0].notes == (f"warm start: {len(start)} of {len(start)} tensors taken",)
    assert seen[1].notes == ()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, start[name], atol=1e-9, rtol=0)


def test_weights_to_start_from_are_finite() -> None:
    start = small().state_dict()
    start["head.bias"][0] = math.inf
    with pytest.raises(ValueError, match=r"must be finite numbers, but those of head\.bias are not"):
        warm_start(small(), start)


def test_half_precision_of_a_gpu_is_refused_without_one(pairs: tuple[PairSet, PairSet]) -> None:
    with pytest.raises(ValueError, match="`precision` float16 needs a GPU, but the device is a CPU"):
        fresh(pairs, Recipe(precision="float16"))
