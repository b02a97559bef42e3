"""The training loop: a training that can be advanced, saved and resumed exactly.

Batches are a pure function of (seed, step), so a checkpoint holds no state of a random generator,
and on a CPU an interrupted training, resumed, equals the uninterrupted one bit for bit. What the loop
does to go on (a smaller micro-batch, a step back at a lower rate) is part of the checkpoint too.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpnas_trainers.batches import Batches
from gpnas_trainers.checkpoint import TrainingError as TrainingError
from gpnas_trainers.checkpoint import copied, read_checkpoint, write_checkpoint
from gpnas_trainers.families import declared
from gpnas_trainers.guard import CollapseError, LossGuard, looked_every
from gpnas_trainers.objective import Objective, precision_on
from gpnas_trainers.optimizer import AdamW
from gpnas_trainers.pairs import PairSet
from gpnas_trainers.progress import Progress as Progress
from gpnas_trainers.progress import evaluate as evaluate
from gpnas_trainers.ranks import Ranks
from gpnas_trainers.recipe import Recipe as Recipe
from gpnas_trainers.warm_start import warm_start

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = 2
LOWER_RATE = 0.5
"""Factor of the learning rate after a collapse."""
GOOD_PSNR_DROP = 3.0
"""Largest loss of validation PSNR, in dB, with which weights are still worth going back to."""
WATCH_SECONDS = 1.0
"""Time between two calls of a watcher."""
LACKING = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Words of errors that mean that memory lacks."""


Watcher = Callable[["Training", Progress], None]
"""A function that is called about every second of a training, and after each validation."""


class Training:
    """A training, advanced from outside: by a plain loop, a Ray worker, or a test.

    Args:
        network: with the weights to start from.
        train_pairs: to draw patches from.
        validation_pairs: to measure PSNR and SSIM on.
        recipe: how.
        seed: of the patches and of dual networks, 0 … 2³¹-1.
        device: where.
        ranks: the processes that share each batch; rank 0 validates and saves. All of them must be
            given the same arguments, apart from the device, and make the same calls.

    Attributes:
        network: what is validated and delivered: the network given, or its average under `ema_decay`.
        notes: lines about what the training had to do to go on, over all attempts.
        evaluations: each validation's `psnr`, `ssim`, `loss` and `seconds`, by step, over all attempts.

    Raises:
        ValueError: the recipe asks for what the device or the number of processes does not allow.
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
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        precision = precision_on(device, recipe.precision)
        if precision == "float16" and torch.device(device).type == "cpu":
            raise ValueError("`precision` float16 needs a GPU, but the device is a CPU; use bfloat16")
        if recipe.batch_size < self._ranks.size:
            raise ValueError(
                f"`batch_size` must be at least the number of processes, but got {recipe.batch_size} "
                f"for {self._ranks.size}"
            )
        objective = Objective(network, recipe, seed)
        self._objective = objective.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self._ranks.broadcast_(parameter.detach() for parameter in objective.parameters())
        self.network = copy.deepcopy(network).requires_grad_(False) if recipe.ema_decay else network
        self.recipe = recipe
        self.step = 0
        self.psnr: float | None = None
        self.ssim: float | None = None
        self.validation_pairs = validation_pairs
        self.notes: list[str] = []
        self.evaluations: dict[int, dict[str, float]] = {}
        rows = self._ranks.slice(recipe.batch_size)
        self._train_pairs, self._batches = train_pairs, Batches(train_pairs, recipe, seed, rows, device)
        self._seed, self._device = seed, device
        self._optimizer = AdamW(
            objective.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self._scaler = torch.amp.GradScaler("cuda", enabled=precision == "float16")
        self._micro_batch = recipe.micro_batch or math.ceil(recipe.batch_size / self._ranks.size)
        self._rate_factor = 1.0
        self._seconds = 0.0
        self._guard = LossGuard(recipe.warmup_steps, looked_every(device), self._ranks.total)
        self._fitting = 0  # steps that fitted into memory with this micro-batch
        self._told = 0  # notes
        # to which a collapse goes back, once
        self._good: dict[str, Any] | None = copied(self._state())
        family = declared(network)
        if precision == "float16" and family is not None and family.name == "rcan":
            self.note("float16 is known to break RCAN, whose features grow beyond its range; take bfloat16")

    @property
    def done(self) -> bool:
        """All steps are done and validated."""
        return self.step >= self.recipe.steps and self.psnr is not None

    def advance(self, seconds: float = math.inf) -> Progress:
        """Trains until the next validation, the end, or for about `seconds`, whichever is first.

        A collapse (a loss or PSNR that is not finite, a loss that explodes) is taken back once: the
        training goes on from its last validation, at half the rate.

        Raises:
            TrainingError: it collapsed again, or not even one patch fits into memory.
        """
        start = time.monotonic()
        before = self._seconds
        evaluated = False
        while not self.done:
            try:
                if self.step < self.recipe.steps:
                    self._one_step()
                if self.step % self.recipe.evaluate_every == 0 or self.step >= self.recipe.steps:
                    self._guard.look()
                    self._validate()
                    evaluated = True
                    break
                # who waits for the others waits for the device, so processes agree at looks alone
                if seconds < math.inf and (self._ranks.size == 1 or self.step % self._guard.every == 0):
                    passed = time.monotonic() - start if self._ranks.rank == 0 else 0.0
                    if self._ranks.sum_numbers(passed)[0] >= seconds:
                        self._guard.look()
                        break
            except CollapseError as collapse:
                self._go_back(collapse)
        self._seconds = before + time.monotonic() - start
        shown = evaluated or self.done
        if evaluated and self.psnr is not None and self.ssim is not None:
            self.evaluations[self.step] = {
                "psnr": self.psnr,
                "ssim": self.ssim,
                "loss": self._guard.loss,
                "seconds": self._seconds,
            }
        notes, self._told = self.notes[self._told :], len(self.notes)
        return Progress(
            self.step,
            self.recipe.steps,
            self._guard.loss,
            self.psnr if shown else None,
            self.ssim if shown else None,
            self._seconds,
            self.done,
            self._rate_factor * self.recipe.learning_rate_at(max(0, self.step - 1)),
            tuple(notes),
        )

    def upscale(self, lr: Tensor) -> Tensor:
        """SR images of the network as it is now: (B, 3, h, w) to (B, 3, s·h, s·w), in [0, 1], on the CPU."""
        self.network.eval()
        with torch.inference_mode():
            sr = self.network(lr.to(self._device, memory_format=torch.channels_last)).clamp(0, 1).cpu()
        self.network.train()
        return sr

    def note(self, text: str) -> None:
        """Says aloud, and remembers, what must not pass silently."""
        self.notes.append(text)
        if self._ranks.rank == 0:
            logger.warning("%s", text)

    def _one_step(self) -> None:
        recipe = self.recipe
        lr, hr = self._batches.at(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate_factor * recipe.learning_rate_at(self.step)
        loss = self._gradient(lr, hr)
        while self._lacking(loss):
            self._take_smaller_micro_batch()
            loss = self._gradient(lr, hr)
        assert loss is not None
        self._fitting += 1
        self._guard.note(loss, self.step)
        parameters = list(self._objective.parameters())
        self._ranks.sum_(parameter.grad for parameter in parameters if parameter.grad is not None)
        if recipe.clip_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if recipe.ema_decay:
            self._average(recipe.ema_decay_at(self.step))
        self.step += 1
        self.psnr = self.ssim = None

    def _gradient(self, lr: Tensor, hr: Tensor) -> Tensor | None:
        """The batch's loss, a mean, as far as it is this process's; its gradient is left behind.

        None where it does not fit into memory. Losses are means over patches, so micro-batches, weighed
        by their sizes, amount to the whole up to rounding.
        """
        self._optimizer.zero_grad(set_to_none=True)
        pixels = self.recipe.pixel_loss_at(self.step)
        total = torch.zeros((), device=lr.device)
        try:
            for few_lr, few_hr in zip(lr.split(self._micro_batch), hr.split(self._micro_batch), strict=True):
                loss = self._objective(few_lr, few_hr, pixels) * (len(few_lr) / self.recipe.batch_size)
                self._scaler.scale(loss).backward()
                total += loss.detach()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return total

    def _lacking(self, loss: Tensor | None) -> bool:
        """Whether one of the processes lacks memory for this step.

        Steps are alike, so processes on GPUs ask each other only until several fitted: who asks must wait
        for the device.

        Raises:
            MemoryError: memory lacks in a step that the others did not ask about.
        """
        if self._ranks.size == 1:
            return loss is None
        if self._guard.every == 1 or self._fitting < self._guard.every:
            return self._ranks.sum_numbers(loss is None)[0] > 0
        if loss is None:
            raise MemoryError(
                f"memory must hold every step, but lacked at step {self.step}, after {self._fitting} that "
                "fitted: something else took it; go on from the last checkpoint"
            )
        return False

    def _take_smaller_micro_batch(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        if torch.device(self._device).type == "cuda":
            torch.cuda.empty_cache()
        before = min(self._micro_batch, math.ceil(self.recipe.batch_size / self._ranks.size))
        if before == 1:
            raise TrainingError(
                f"out of memory: a step must fit with one patch at a time, but at `hr_patch` "
                f"{self.recipe.hr_patch} does not; take a smaller `hr_patch` or network"
            )
        self._micro_batch, self._fitting = before // 2, 0
        self.note(
            f"out of memory at step {self.step}: {self._micro_batch} patches at a time instead of {before}; "
            "the gradient is still that of the whole batch"
        )

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        averages, values = (
            [*network.parameters(), *(each for each in network.buffers() if each.is_floating_point())]
            for network in (self.network, self._objective.network)
        )
        torch._foreach_lerp_(averages, values, 1 - decay)

    def _validate(self) -> None:
        found = (0.0, 0.0)
        if self._ranks.rank == 0:
            found = evaluate(self.network, self.validation_pairs, self._device)
        self.psnr, self.ssim = self._ranks.sum_numbers(*found)
        if not math.isfinite(self.psnr):
            raise CollapseError(f"validation PSNR must be finite, but is {self.psnr}")
        if self._good is not None and self.psnr > (self._good["psnr"] or -math.inf) - GOOD_PSNR_DROP:
            self._good = copied(self._state())

    def _go_back(self, collapse: CollapseError) -> None:
        if self._good is None:
            raise collapse
        at = self.step
        self._restore(self._good)
        self._good = None
        self._rate_factor = LOWER_RATE
        self.note(
            f"collapse at step {at}: {collapse}; gone back to step {self.step}, once, "
            f"at {LOWER_RATE:g} of the rate"
        )

    def _state(self) -> dict[str, Any]:
        """All that steps change; tensors are the training's own."""
        objective = self._objective
        return {
            "network": objective.network.state_dict(),
            "duals": objective.duals and objective.duals.state_dict(),
            "average": self.network.state_dict() if self.recipe.ema_decay else None,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self.step,
            "loss": self._guard.loss,
            "usual_loss": self._guard.usual,
            "psnr": self.psnr,
            "ssim": self.ssim,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._guard.forget()
        self._objective.network.load_state_dict(state["network"])
        if self._objective.duals is not None:
            self._objective.duals.load_state_dict(state["duals"])
        if self.recipe.ema_decay:
            self.network.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self._guard.loss, self._guard.usual = state["loss"], state["usual_loss"]
        self.psnr, self.ssim = state["psnr"], state["ssim"]

    def _identity(self) -> dict[str, Any]:
        """The facts on which a checkpoint of this training must agree."""
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
        if self._ranks.rank:
            return
        # at a validation the state is what to go back to, and is written once
        good_is_now = self._good is not None and self._good["step"] == self.step
        document = {
            "identity": self._identity(),
            "state": self._state(),
            "good": None if good_is_now else self._good,
            "good_is_now": good_is_now,
            "micro_batch": self._micro_batch,
            "rate_factor": self._rate_factor,
            "seconds": self._seconds,
            "notes": list(self.notes),
            "evaluations": dict(self.evaluations),
        }
        write_checkpoint(path, document)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint.

        Raises:
            TrainingError: it is torn or damaged, or of another training.
            OSError: it cannot be opened.
        """
        document = read_checkpoint(path, self._identity())
        self._restore(document["state"])
        self._good = copied(self._state()) if document["good_is_now"] else document["good"]
        self._micro_batch, self._rate_factor = document["micro_batch"], document["rate_factor"]
        self._seconds = document["seconds"]
        self.notes = document["notes"]
        self.evaluations = document.get("evaluations", {})
        self._told = len(self.notes)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was lacking; on a CPU, PyTorch has no class for that."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # the allocator's words, oneDNN's where it finds no room for code or scratch, and those of CUDA's
    # libraries, which have memory of their own
    text = str(error)
    return text == "could not create a primitive" or any(words in text for words in LACKING)


def train(
    network: nn.Module,
    train_pairs: PairSet,
    validation_pairs: PairSet,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    watchers: Sequence[Watcher] = (),
    initial: Mapping[str, Tensor] | None = None,
) -> Progress:
    """Trains a network to the end, on the device where it is, and returns where the training stands then.

    Args:
        network, train_pairs, validation_pairs, recipe, seed: as `Training`. With `ema_decay` the network
            ends with the average.
        checkpoint: a file to go on from if it exists, and to write at every validation.
        watchers: called about every second and at every validation.
        initial: weights to start from; every tensor whose name and shape fits is taken.

    Raises:
        TrainingError: the training diverged, or the checkpoint is not of this training.
        ValueError: as `Training`, or nothing of `initial` fits.
    """
    started = None if initial is None else warm_start(network, initial)
    device = next(network.parameters()).device
    training = Training(network, train_pairs, validation_pairs, recipe, seed=seed, device=device)
    if checkpoint is not None and checkpoint.exists():
        training.load(checkpoint)
    elif started is not None:
        training.note(str(started))
    while True:
        progress = training.advance(WATCH_SECONDS if watchers else math.inf)
        for watch in watchers:
            watch(training, progress)
        if progress.psnr is not None and checkpoint is not None:
            training.save(checkpoint)
        if progress.done:
            if training.network is not network:
                network.load_state_dict(training.network.state_dict())
            return progress
