"""The optimizer against PyTorch's own, and what a process that trains loads."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gpnas_trainers.optimizer import AdamW
from gpnas_trainers.pairs import prepare_photographs


def trained(kind: type[torch.optim.Adam], fused: bool, decay: float) -> list[torch.Tensor]:
    """Weights and state after some steps; half way, the state is taken over by an optimizer made anew."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3))

    def made() -> torch.optim.Adam:
        one, two = network[0].parameters(), network[2].parameters()
        groups: list[dict[str, Any]] = [{"params": one}, {"params": two, "lr": 1e-3}]
        return kind(groups, lr=1e-2, weight_decay=decay, fused=fused)

    optimizer = made()
    for step in range(10):
        optimizer.zero_grad(set_to_none=True)
        network(torch.rand(4, 3, 16, 16)).square().mean().backward()
        optimizer.step()
        if step == 4:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = made()
            optimizer.load_state_dict(state)
    assert all(each.requires_grad for each in network.parameters())
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [each.detach() for each in (*network.parameters(), *moments)]


@pytest.mark.parametrize("fused", [False, True])
def test_it_is_pytorchs_to_the_last_bit(fused: bool) -> None:
    ours, theirs = trained(AdamW, fused, 0.1), trained(torch.optim.AdamW, fused, 0.1)
    assert len(ours) == 4 + 4 * 3
    assert all(map(torch.equal, ours, theirs))
    assert all(map(torch.equal, trained(AdamW, fused, 0.0), trained(torch.optim.Adam, fused, 0.0)))


TRAINED = """
import sys
from pathlib import Path
from gpnas_trainers import build
from gpnas_trainers.pairs import open_pairs
from gpnas_trainers.train import Recipe, Training

folder, to = Path(sys.argv[1]), Path(sys.argv[2])
recipe = Recipe(
    steps=3, batch_size=2, hr_patch=48, evaluate_every=2, dual_weight=0.1, ema_decay=0.9, clip_norm=1
)
for attempt in range(2):
    pairs = open_pairs(folder, "train"), open_pairs(folder, "validation").head(1)
    training = Training(build("drn", 2, features=4, blocks=1, stages=1), *pairs, recipe, seed=0)
    if attempt:
        training.load(to)
    training.advance()
    training.save(to)
assert training.done
print([name for name in sys.modules if name.startswith("torch._dynamo")])
"""


def test_a_training_loads_no_compiler(cache: Path, tmp_path: Path) -> None:
    """With all that a recipe may ask for, but to be compiled; its checkpoint is gone on with."""
    command = [sys.executable, "-c", TRAINED, str(prepare_photographs(cache, 2)), str(tmp_path / "c.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
