"""What trains and upscales on a GPU, against a CPU; run with `pytest -m gpu` where there is one."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gpnas_trainers import build, cost
from gpnas_trainers.batches import Batches
from gpnas_trainers.infer import Levels, upscale
from gpnas_trainers.objective import precision_on
from gpnas_trainers.pairs import PairSet, open_pairs, prepare_photographs
from gpnas_trainers.pairs.resident import ResidentPairs
from gpnas_trainers.train import Recipe, Training, TrainingError

pytestmark = pytest.mark.gpu

RECIPE = Recipe(
    steps=40, batch_size=4, hr_patch=48, evaluate_every=20, warmup_steps=4, precision="float32", clip_norm=1.0
)


@pytest.fixture(scope="module")
def pairs(cache: Path) -> tuple[PairSet, PairSet]:
    folder = prepare_photographs(cache, 2)
    return open_pairs(folder, "train"), open_pairs(folder, "validation").head(1)


@pytest.fixture(autouse=True)
def _exact() -> Any:
    """Convolutions in float32 itself, where TF32 has a mantissa of ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def network(family: str = "drn", **axes: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build(family, 2, **(axes or {"features": 8, "blocks": 2, "stages": 2}))


def trained(pairs: tuple[PairSet, PairSet], device: str, **options: Any) -> Training:
    training = Training(
        network(), *pairs, dataclasses.replace(RECIPE, **options), seed=3, device=torch.device(device)
    )
    while not training.done:
        training.advance()
    return training


def difference(one: Training, other: Training) -> float:
    """Largest difference of a weight, relative to the largest weight of its tensor."""
    states = [
        {name: value.cpu() for name, value in each.network.state_dict().items()} for each in (one, other)
    ]
    return max(
        float((value - states[1][name]).abs().max() / value.abs().max().clamp_min(1e-6))
        for name, value in states[0].items()
    )


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}, {"micro_batch": 1}])
def test_a_training_on_a_gpu_is_that_of_a_cpu(
    pairs: tuple[PairSet, PairSet], options: dict[str, Any]
) -> None:
    on_cpu, on_gpu = (trained(pairs, device, **options) for device in ("cpu", "cuda"))
    assert on_gpu.psnr == pytest.approx(on_cpu.psnr, abs=0.02)
    assert difference(on_cpu, on_gpu) < 0.05


def test_a_training_goes_on_from_a_checkpoint(pairs: tuple[PairSet, PairSet], tmp_path: Path) -> None:
    whole = trained(pairs, "cuda", ema_decay=0.9)
    path = tmp_path / "checkpoint.pt"
    recipe = dataclasses.replace(RECIPE, ema_decay=0.9)
    begun = Training(network(), *pairs, recipe, seed=3, device="cuda")
    begun.advance()
    begun.save(path)
    for device in ("cuda", "cpu"):  # a checkpoint is not bound to a device
        resumed = Training(network(), *pairs, recipe, seed=3, device=device)
        resumed.load(path)
        assert resumed.step == 20
        while not resumed.done:
            resumed.advance()
        assert resumed.psnr == pytest.approx(whole.psnr, abs=0.02)


@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float16"])
def test_half_precision_trains_as_well(pairs: tuple[PairSet, PairSet], precision: str) -> None:
    exact, half = trained(pairs, "cuda"), trained(pairs, "cuda", precision=precision)
    assert half.psnr == pytest.approx(exact.psnr, abs=0.3)
    assert all(value.dtype == torch.float32 for value in half.network.state_dict().values())


def test_auto_is_bfloat16_where_there_are_units_for_it() -> None:
    major, _ = torch.cuda.get_device_capability()
    assert precision_on("cuda", "auto") == ("bfloat16" if major >= 8 else "float32")


def test_float16_of_rcan_is_warned_of(pairs: tuple[PairSet, PairSet]) -> None:
    rcan = network("rcan", features=8, groups=1, blocks=1)
    recipe = dataclasses.replace(RECIPE, precision="float16")
    (note,) = Training(rcan, *pairs, recipe, seed=0, device="cuda").notes
    assert note.startswith("float16 is known to break RCAN")


def test_no_step_waits_for_the_gpu(pairs: tuple[PairSet, PairSet]) -> None:
    """PyTorch itself raises where a step would wait."""
    recipe = dataclasses.replace(RECIPE, evaluate_every=40, ema_decay=0.9, precision="bfloat16")
    training = Training(network(), *pairs, recipe, seed=3, device="cuda")
    for _ in range(3):
        training._one_step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(8):  # fewer than between two looks
            training._one_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    training.advance()


def test_a_collapse_is_noticed_at_the_next_look(pairs: tuple[PairSet, PairSet]) -> None:
    recipe = dataclasses.replace(RECIPE, learning_rate=1e6, warmup_steps=0, clip_norm=0.0)
    training = Training(network(), *pairs, recipe, seed=3, device="cuda")

    def finish() -> None:
        while not training.done:
            training.advance()

    with pytest.raises(TrainingError, match=r"must stay finite|must not explode|must be finite"):
        finish()
    assert any("gone back to step 0, once" in note for note in training.notes)


def test_memory_that_lacks_is_made_do_with(pairs: tuple[PairSet, PairSet]) -> None:
    """The process may have little more than what it holds, so that the whole batch does not fit."""
    recipe = dataclasses.replace(RECIPE, batch_size=32, hr_patch=96, ms_ssim_weight=0.0, steps=2)
    built = network("drn", features=32, blocks=3, stages=2)
    training = Training(built, *pairs, recipe, seed=3, device="cuda")
    need = cost.training_memory("drn", 2, batch_size=32, hr_patch=96, features=32, blocks=3, stages=2)
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.7 * need) / total)
    try:
        training.advance(0.0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert any("patches at a time instead of 32" in note for note in training.notes)
    assert math.isfinite(training.evaluations.get(1, {"loss": 0.0})["loss"])


def test_peak_memory_is_what_cost_tells(pairs: tuple[PairSet, PairSet]) -> None:
    axes = {"features": 32, "blocks": 4, "stages": 3}
    recipe = dataclasses.replace(RECIPE, batch_size=16, hr_patch=96, ms_ssim_weight=0.0)
    training = Training(network("drn", **axes), *pairs, recipe, seed=3, device="cuda")
    training.advance(0.0)
    torch.cuda.reset_peak_memory_stats()
    training.advance(0.0)
    expected = cost.training_memory("drn", 2, batch_size=16, hr_patch=96, ms_ssim=False, **axes)
    assert expected < torch.cuda.max_memory_allocated() < 2.5 * expected


@pytest.mark.parametrize("is_resident", [True, False])
def test_batches_are_those_of_a_cpu(
    pairs: tuple[PairSet, PairSet], is_resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also drawn ahead by a thread, in pinned memory, where pairs do not fit the GPU."""
    if not is_resident:
        monkeypatch.setattr("gpnas_trainers.pairs.resident.SHARE", 0.0)
    batches = [Batches(pairs[0], RECIPE, 3, slice(None), device) for device in ("cuda", "cpu")]
    assert isinstance(batches[0]._source, ResidentPairs) == is_resident
    for step in (0, 1, 2, 7, 8, 0):  # also after a step back
        for there, here in zip(batches[0].at(step), batches[1].at(step), strict=True):
            torch.testing.assert_close(there.cpu(), here, rtol=1e-6, atol=1e-6)


def test_a_compiled_training_is_as_good(pairs: tuple[PairSet, PairSet]) -> None:
    plain, compiled = trained(pairs, "cuda"), trained(pairs, "cuda", compile="default")
    assert compiled.psnr == pytest.approx(plain.psnr, abs=0.02)


@pytest.mark.parametrize("levels", [Levels(tile=24), Levels(tile=(16, 24), drop_outlier=True)])
def test_an_ensemble_on_a_gpu_is_that_of_a_cpu(pairs: tuple[PairSet, PairSet], levels: Levels) -> None:
    lr = pairs[1].tensors(0)[0][:, :40, :52]
    networks = [
        network().eval(),
        network("edsr", features=8, blocks=2).eval(),
        network("rcan", features=8, groups=1, blocks=2).eval(),
    ]
    here = upscale(networks, lr, 2, levels, weights=[0.5, 0.3, 0.2])
    there = upscale([each.cuda() for each in networks], lr, 2, levels, weights=[0.5, 0.3, 0.2])
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-4)
    half = upscale(networks, lr, 2, dataclasses.replace(levels, precision="bfloat16"))
    assert float((half.cpu() - here).square().mean().sqrt()) < 0.02


def test_a_part_of_a_gpu_is_as_good(pairs: tuple[PairSet, PairSet]) -> None:
    """Two trainings that share a GPU, each with its own stream of work, come to what one comes to."""
    alone = trained(pairs, "cuda")
    both = [Training(network(), *pairs, RECIPE, seed=3, device="cuda") for _ in range(2)]
    while not all(each.done for each in both):
        for each in both:
            if not each.done:
                each.advance()
    for each in both:
        assert each.psnr == pytest.approx(alone.psnr, abs=0.02)
