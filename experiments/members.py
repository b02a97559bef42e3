"""Networks trained on City100 for several experiments, each once: weights, learning curve, residuals.

City100 (Chen et al., CVPR 2019), 80 pairs to train on and 20 to validate, is read from
`../shared/data/city100` beside the repository. A training is 8 patches of 24×24 LR a step, L1, averaged
weights, bfloat16 passes, one thread. All that is trained lies in a folder; a script that needs a member
takes it from there, and a training that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gpnas.results.fusing import Outputs
from gpnas_trainers import build, cost
from gpnas_trainers.files import replacing
from gpnas_trainers.infer import Levels, upscale
from gpnas_trainers.pairs import PairSet, Rules, open_pairs, prepare_folder
from gpnas_trainers.train import Recipe, Training

CITY100 = Path(__file__).resolve().parents[2] / "shared/data/city100"
RATES = {
    "drn": 2e-3,
    "rcan": 2e-3,
    "edsr": 2e-3,
    "rrdb": 2e-3,
    "span": 2e-3,
    "plksr": 4e-3,
    "safmn": 1e-3,
    "nafnet": 4e-3,
    "compact": 2e-3,
    "swinir": 1e-3,
}
"""Learning rate of each family, near the best of `family_rates.py`."""
SKIPPING = ("rcan", "edsr", "rrdb", "span", "safmn", "swinir")
"""Families that begin at the bicubic image when asked to; here they are."""
CURVE_POINTS, CURVE_IMAGES = 6, 4
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Member:
    """A network as it is trained."""

    family: str
    axes: dict[str, Any]
    steps: int
    scale: int = 2
    seed: int = 0
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings of the recipe that differ from those of all."""

    @property
    def name(self) -> str:
        sizes = "-".join(f"{value}" for value in self.axes.values() if value is not True)
        others = "".join(f"-{value}" for value in self.changes.values())
        return f"x{self.scale}-{self.family}-{sizes}-{self.steps}{others}-s{self.seed}"

    @property
    def whole_axes(self) -> dict[str, Any]:
        return self.axes | ({"image_skip": True} if self.family in SKIPPING else {})

    @property
    def gmacs(self) -> float:
        return cost.gmacs(self.family, self.scale, 120, 120, **self.whole_axes)

    @property
    def parameters(self) -> int:
        return cost.parameters(self.family, self.scale, **self.whole_axes)

    @property
    def recipe(self) -> Recipe:
        settings: dict[str, Any] = {
            "steps": self.steps,
            "batch_size": 8,
            "hr_patch": 24 * self.scale,
            "learning_rate": RATES[self.family],
            "ms_ssim_weight": 0.0,
            "ema_decay": 0.999,
            "precision": "bfloat16",
            "evaluate_every": max(1, self.steps // CURVE_POINTS),
        }
        return Recipe(**(settings | self.changes))


class Cache:
    """Members in a folder, trained where they are not there yet."""

    def __init__(self, folder: Path, images: int | None = None) -> None:
        self.folder, self.images = folder, images
        self._pairs: dict[int, tuple[PairSet, PairSet]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)

    def pairs(self, scale: int) -> tuple[PairSet, PairSet]:
        """Of training and of validation."""
        if scale not in self._pairs:
            rules = Rules(validation_fraction=0.2, max_validation=None)
            folder = prepare_folder(CITY100, self.folder / f"pairs-x{scale}", scale, rules)
            train, validation = open_pairs(folder, "train"), open_pairs(folder, "validation")
            self._pairs[scale] = train, validation.head(self.images)
        return self._pairs[scale]

    def network(self, member: Member) -> nn.Module:
        """With its trained weights."""
        path = self.folder / f"{member.name}.safetensors"
        torch.manual_seed(member.seed)
        network = build(member.family, member.scale, **member.whole_axes)
        if not path.exists():
            self._train(member, network, path)
        network.load_state_dict(load_file(path))
        return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _train(self, member: Member, network: nn.Module, path: Path) -> None:
        pairs, validation = self.pairs(member.scale)
        training = Training(network, pairs, validation.head(CURVE_IMAGES), member.recipe, seed=member.seed)
        checkpoint, begun = path.with_suffix(".ckpt"), time.process_time()
        if checkpoint.exists():
            training.load(checkpoint)
        while not training.done:
            training.advance(60)
            training.save(checkpoint)
        curve = {str(step): each["psnr"] for step, each in training.evaluations.items()}
        taken = time.process_time() - begun
        print(f"{member.name}: {training.psnr:.3f} dB, {taken:.0f} s of the processor", flush=True)
        path.with_suffix(".curve.json").write_text(json.dumps({"curve": curve, "seconds": taken}))
        self.keep(path, training.network)
        checkpoint.unlink()

    def keep(self, path: Path, network: nn.Module) -> None:
        with replacing(path) as temporary:
            save_file({name: value.contiguous() for name, value in network.state_dict().items()}, temporary)

    def curve(self, member: Member) -> dict[int, float]:
        """PSNR on the first few validation images, by step."""
        kept = json.loads((self.folder / f"{member.name}.curve.json").read_text())
        return {int(step): psnr for step, psnr in kept["curve"].items()}

    def residuals(
        self, member: Member, self_ensemble: bool = False, network: nn.Module | None = None
    ) -> Path:
        """A file of SR - HR of each validation image, in half precision."""
        turned = "-turned" if self_ensemble else ""
        path = self.folder / f"{member.name}{turned}.residuals"
        if not path.exists():
            network = network or self.network(member)
            validation, levels = self.pairs(member.scale)[1], Levels(0, self_ensemble=self_ensemble)
            made = {}
            for index in range(len(validation)):
                lr, hr = validation.tensors(index)
                made[f"{index:04d}"] = (upscale([network], lr, member.scale, levels) - hr).half()
            with replacing(path) as temporary:
                save_file(made, temporary)
        return path

    def errors(self, members: Sequence[Member], image: int, self_ensemble: bool = False) -> Tensor:
        """(K, 3, y, x) of one image."""
        found = []
        for each in members:
            with safe_open(self.residuals(each, self_ensemble), "pt") as file:
                found.append(file.get_tensor(f"{image:04d}").float())
        return torch.stack(found)

    def outputs(self, members: Sequence[Member], self_ensemble: bool = False) -> list[Outputs]:
        """What the members make of each validation image."""
        validation = self.pairs(members[0].scale)[1]
        made = []
        for index in range(len(validation)):
            hr = validation.tensors(index)[1]
            made.append(Outputs(self.errors(members, index, self_ensemble) + hr, hr))
        return made

    def products(self, members: Sequence[Member], self_ensemble: bool = False) -> Floats:
        """(I, K, K) mean products of the members' residuals."""
        count = len(self.pairs(members[0].scale)[1])
        every = []
        for image in range(count):
            flat = self.errors(members, image, self_ensemble).flatten(1).double()
            every.append((flat @ flat.T / flat.shape[1]).numpy())
        return np.stack(every)


def alone_of(products: Floats) -> Floats:  # (I, K, K) -> (I, K)
    """PSNR in dB of each member alone."""
    return np.asarray(-10 * np.log10(products.diagonal(axis1=1, axis2=2)))


def skipped() -> bool:
    """Whether City100 is not here, which is said."""
    if not CITY100.is_dir():
        print(
            f"skipped: there is no {CITY100.name} folder in ../shared/data beside the repository",
            file=sys.stderr,
        )
    return not CITY100.is_dir()
