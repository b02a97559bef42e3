"""The training loop: a recipe, a training that can be advanced, saved and resumed exactly.

Batches are a pure function of (seed, step), so a checkpoint holds no state of a random generator,
and on a CPU an interrupted training, resumed, equals the uninterrupted one bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gpnas_trainers.losses import mixed_loss, ms_ssim_window
from gpnas_trainers.metrics import psnr, ssim
from gpnas_trainers.pairs import PairSet

CHECKPOINT_FORMAT = 1


class TrainingError(RuntimeError):
    """A training that cannot go on, or a checkpoint that does not fit it; one line."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Checks itself; a rule broken is a `ValueError`."""

    steps: int = 300
    """Optimiser steps; at least 1."""
    batch_size: int = 8
    """Patches of a step; at least 1."""
    hr_patch: int = 48
    """Side of a training patch in HR pixels; a multiple of the scale."""
    learning_rate: float = 2e-3
    """Adam's, after warm-up; falls to 1 % of it along a cosine."""
    warmup_steps: int = 20
    """Steps over which the rate rises linearly."""
    weight_decay: float = 0.0
    """Decoupled (AdamW), per step and relative to the rate."""
    clip_norm: float = 1.0
    """Largest norm of the gradient over all parameters; 0 does not clip."""
    l1_weight: float = 1.0
    """Weight of the mean absolute error."""
    ms_ssim_weight: float = 0.1
    """Weight of 1 - MS-SSIM."""
    evaluate_every: int = 150
    """Steps between two validations; the last step always validates."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "hr_patch", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name} >= 1` must hold, but got {name}={getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "clip_norm", "l1_weight", "ms_ssim_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name} >= 0` must hold, but got {name}={getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"`learning_rate > 0` must hold, but got {self.learning_rate}")
        if self.l1_weight + self.ms_ssim_weight == 0:
            raise ValueError("`l1_weight + ms_ssim_weight > 0` must hold, but both are 0")
        if self.ms_ssim_weight:
            ms_ssim_window(self.hr_patch)

    def to_json(self) -> dict[str, int | float]:
        return dataclasses.asdict(self)

    def learning_rate_at(self, step: int) -> float:
        """The rate of step number `step`, counted from 0: linear warm-up, then a cosine to 1 %."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    loss: float
    """Of the last step."""
    psnr: float | None
    """Validation PSNR in dB, right after a validation; else None."""
    ssim: float | None
    """Validation SSIM, likewise."""
    seconds: float
    """Training and validation time, over all attempts."""
    done: bool
    """All steps are done and validated."""


def evaluate(network: nn.Module, pairs: PairSet, device: torch.device | str = "cpu") -> tuple[float, float]:
    """Mean PSNR in dB and mean SSIM over pairs; outputs clamped to [0, 1], not rounded, no border."""
    network.eval()
    psnrs, ssims = [], []
    with torch.inference_mode():
        for index in range(len(pairs)):
            lr, hr = (torch.from_numpy(image).to(device).float() / 255 for image in pairs.image(index))
            sr = network(lr[None].contiguous(memory_format=torch.channels_last)).clamp(0, 1)[0]
            psnrs.append(psnr(sr, hr))
            ssims.append(ssim(sr, hr))
    network.train()
    return sum(psnrs) / len(psnrs), sum(ssims) / len(ssims)


class Training:
    """A training, advanced from outside: by a plain loop, a Ray worker, or a test.

    Args:
        network: with the weights to start from.
        train_pairs: to draw patches from.
        validation_pairs: to measure PSNR and SSIM on.
        recipe: how.
        seed: of the patches, 0 … 2³¹-1.
        device: where.
    """

    def __init__(
        self,
        network: nn.Module,
        train_pairs: PairSet,
        validation_pairs: PairSet,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.recipe = recipe
        self.step = 0
        self.psnr: float | None = None
        self.ssim: float | None = None
        self._train_pairs, self._validation_pairs = train_pairs, validation_pairs
        self._seed, self._device = seed, device
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self._seconds = 0.0
        self._loss = math.nan
        self._usual_loss = math.nan  # slow average, by which an explosion is known

    @property
    def done(self) -> bool:
        """All steps are done and validated."""
        return self.step >= self.recipe.steps and self.psnr is not None

    def advance(self, seconds: float = math.inf) -> Progress:
        """Trains until the next validation, the end, or for about `seconds`, whichever is first.

        Raises:
            TrainingError: the loss is not finite, or has exploded.
        """
        start = time.monotonic()
        before = self._seconds
        evaluated = False
        while not self.done:
            if self.step < self.recipe.steps:
                self._one_step()
            if self.step % self.recipe.evaluate_every == 0 or self.step >= self.recipe.steps:
                self.psnr, self.ssim = evaluate(self.network, self._validation_pairs, self._device)
                if not math.isfinite(self.psnr):
                    raise TrainingError(f"validation PSNR must be finite, but is {self.psnr}")
                evaluated = True
                break
            if time.monotonic() - start >= seconds:
                break
        self._seconds = before + time.monotonic() - start
        shown = evaluated or self.done
        return Progress(
            self.step,
            self.recipe.steps,
            self._loss,
            self.psnr if shown else None,
            self.ssim if shown else None,
            self._seconds,
            self.done,
        )

    def _one_step(self) -> None:
        recipe = self.recipe
        generator = np.random.default_rng((self._seed, self.step))
        lr, hr = self._train_pairs.patches(recipe.batch_size, recipe.hr_patch, generator)
        lr = lr.to(self._device, memory_format=torch.channels_last)
        hr = hr.to(self._device)
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(self.step)
        loss = mixed_loss(
            self.network(lr), hr, l1_weight=recipe.l1_weight, ms_ssim_weight=recipe.ms_ssim_weight
        )
        self._guard(float(loss.detach()))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
        self._optimizer.step()
        self.step += 1
        self.psnr = self.ssim = None

    def _guard(self, loss: float) -> None:
        """Notices a collapse before it reaches the weights."""
        self._loss = loss
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss must stay finite, but is {loss} at step {self.step}; "
                "lower `learning_rate` or `clip_norm`"
            )
        if math.isnan(self._usual_loss):
            self._usual_loss = loss
        if self.step > self.recipe.warmup_steps + 50 and loss > 10 * self._usual_loss:
            raise TrainingError(
                f"the loss must not explode, but at step {self.step} is {loss:.4g} after "
                f"{self._usual_loss:.4g}; lower `learning_rate` or `clip_norm`"
            )
        self._usual_loss += 0.05 * (loss - self._usual_loss)

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be of this training."""
        return {
            "format": CHECKPOINT_FORMAT,
            "recipe": self.recipe.to_json(),
            "seed": self._seed,
            "data": self._train_pairs.fingerprint,
            "network": {name: list(value.shape) for name, value in self.network.state_dict().items()},
        }

    def save(self, path: Path) -> None:
        """Writes a checkpoint; the file is whole at any moment, the old one or the new.

        Raises:
            OSError: it cannot be written, such as when the disk is full; the old one stays.
        """
        document = {
            "identity": self._identity(),
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "seconds": self._seconds,
            "loss": self._loss,
            "usual_loss": self._usual_loss,
            "psnr": self.psnr,
            "ssim": self.ssim,
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                torch.save(document, _OSErrors(file))  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint.

        Raises:
            TrainingError: it is torn, or of another training.
        """
        try:
            document = torch.load(path, map_location="cpu", weights_only=True)
            identity = document["identity"]
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise TrainingError(f"{path}: a checkpoint must be whole, but {reason}") from None
        for key, value in self._identity().items():
            if identity.get(key) != value:
                raise TrainingError(
                    f"{path}: a checkpoint must be of the same training, but its {key} differs"
                )
        self.network.load_state_dict(document["network"])
        self._optimizer.load_state_dict(document["optimizer"])
        self.step = document["step"]
        self._seconds = document["seconds"]
        self._loss, self._usual_loss = document["loss"], document["usual_loss"]
        self.psnr, self.ssim = document["psnr"], document["ssim"]


class _OSErrors:
    """A file for `torch.save` that lets an `OSError` of a write through as it is."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        return int(self._file.write(data))

    def flush(self) -> None:
        self._file.flush()


def train(
    network: nn.Module,
    train_pairs: PairSet,
    validation_pairs: PairSet,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    report: Callable[[Progress], None] | None = None,
    device: torch.device | str = "cpu",
) -> Progress:
    """Trains a network to the end and returns where it stands then.

    Args:
        network, train_pairs, validation_pairs, recipe, seed, device: as `Training`.
        checkpoint: a file to go on from if it exists, and to write at every validation.
        report: called at every validation.

    Raises:
        TrainingError: the training diverged, or the checkpoint is not of this training.
    """
    training = Training(network, train_pairs, validation_pairs, recipe, seed=seed, device=device)
    if checkpoint is not None and checkpoint.exists():
        training.load(checkpoint)
    while True:
        progress = training.advance()
        if checkpoint is not None:
            training.save(checkpoint)
        if report is not None:
            report(progress)
        if progress.done:
            return progress
