"""Two real processes over gloo train what one trains."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gpnas_trainers.pairs import open_pairs, prepare_photographs
from gpnas_trainers.ranks import Ranks

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from gpnas_trainers import build
from gpnas_trainers.pairs import open_pairs
from gpnas_trainers.ranks import Ranks
from gpnas_trainers.train import Recipe, Training

torch.set_num_threads(1)
folder, family, every = Path(sys.argv[1]), sys.argv[3], int(sys.argv[4])
for name, rank, size in (("one", 0, 1), ("two", 0, 2), ("two", 1, 2)):
    out = Path(sys.argv[2], name)
    if not os.fork():  # each its own process
        break
else:
    sys.exit(any([os.wait()[1] for _ in range(3)]))
if size > 1:
    meeting = f"file://{out}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
ranks = Ranks(together=size > 1)
torch.manual_seed(rank)  # rank 0 gives the others its weights
axes = {"drn": {"features": 4, "blocks": 1, "stages": 1}, "dual_regression": {"features": 2, "blocks": 1}}
network = build(family, 2, **axes[family])
recipe = Recipe(steps=6, batch_size=5, evaluate_every=3, warmup_steps=2, ema_decay=0.5, dual_weight=0.1)
pairs = open_pairs(folder, "train"), open_pairs(folder, "validation").head(1)

def begun(network):
    training = Training(network, *pairs, recipe, seed=3, ranks=ranks)
    training._guard.every = every  # on a GPU losses are looked at every few steps
    return training

training = begun(network)
rows = []
while not training.done:
    progress = training.advance(0.0)
    rows.append([progress.step, progress.loss, progress.psnr, progress.ssim])
    if progress.step == 4:  # killed, and gone on with, all of them
        training.save(out / "checkpoint.pt")
        if size > 1:
            torch.distributed.barrier()
        training = begun(build(family, 2, **axes[family]))
        training.load(out / "checkpoint.pt")
(out / f"rows{rank}.json").write_text(json.dumps(rows))
torch.save(training.network.state_dict(), out / f"weights{rank}.pt")
if size > 1:
    torch.distributed.barrier()  # who leaves first must not take the connection from the other
    torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def folder(cache: Path) -> Path:
    return prepare_photographs(cache, 2)


def written(out: Path, size: int) -> tuple[list[str], list[dict[str, torch.Tensor]]]:
    """What each of so many processes has told, and its weights."""
    texts = [(out / f"rows{rank}.json").read_text() for rank in range(size)]
    return texts, [torch.load(out / f"weights{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.parametrize(("family", "every"), [("drn", 1), ("dual_regression", 2)])
def test_two_processes_train_what_one_trains(folder: Path, tmp_path: Path, family: str, every: int) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path), family, str(every)]
    subprocess.run(command, check=True, timeout=200)
    (alone,), (expected,) = written(tmp_path / "one", 1)
    texts, weights = written(tmp_path / "two", 2)
    assert texts[0] == texts[1]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
        # batches of 5 in slices of 2 and 3: sums in another order, and Adam's steps from them
        torch.testing.assert_close(value, expected[name], atol=2e-4, rtol=1e-3)
    one, two = (np.array(json.loads(text), dtype=float) for text in (alone, texts[0]))
    # several processes agree on when to report at looks alone, and at validations
    assert two[:, 0].tolist() == [step for step in range(1, 7) if step % every == 0 or step % 3 == 0]
    np.testing.assert_allclose(two, one[two[:, 0].astype(int) - 1], rtol=1e-4)
    assert np.isfinite(one[-1]).all()


def test_slices_are_the_batch(folder: Path) -> None:
    pairs = open_pairs(folder, "train")
    whole = pairs.patches(5, 48, np.random.default_rng(1))
    ranks = [Ranks() for _ in range(3)]
    for number, each in enumerate(ranks):
        each.rank, each.size = number, 3
    parts = [pairs.patches(5, 48, np.random.default_rng(1), rows=each.slice(5)) for each in ranks]
    assert [len(lr) for lr, _ in parts] == [1, 2, 2]
    for place in (0, 1):
        assert torch.equal(torch.cat([part[place] for part in parts]), whole[place])


def test_a_process_that_is_gone_is_told_from_an_error_of_the_training(tmp_path: Path) -> None:
    """Where one of two was killed, the other has its own error, in sums of numbers and of tensors."""
    script = """
import os, sys
import torch
from gpnas_trainers.ranks import PeerError, Ranks

rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
ranks = Ranks(together=True)
assert ranks.sum_numbers(1.0, float(rank)) == (2.0, 1.0)
if rank:
    os.kill(os.getpid(), 9)
for work in (lambda: ranks.sum_numbers(1.0), lambda: ranks.sum_([torch.ones(2)])):
    try:
        work()
    except PeerError as error:
        assert "another process of the training is gone: " in str(error)
        assert len(str(error).splitlines()) == 1
    else:
        raise AssertionError("nobody was missed")
os._exit(0)  # gloo cannot take leave of one who is gone
"""
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")]) for rank in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, -9]
