"""Ways to watch a training: one JSON line per evaluation, a progress bar, TensorBoard.

Each is a watcher that `train` is given; none changes what is trained.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch.nn.functional import interpolate

from gpnas_trainers.files import replacing
from gpnas_trainers.train import Progress, Training

SPEED_SECONDS = 30.0
"""Time over which steps per second are averaged."""


class Speed:
    """Steps per second, over the last half minute of training and validation."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, progress: Progress) -> float | None:
        """None until two moments were seen."""
        self._seen.append((progress.seconds, progress.step))
        while len(self._seen) > 2 and self._seen[1][0] <= progress.seconds - SPEED_SECONDS:
            self._seen.popleft()
        seconds, steps = self._seen[0]
        if progress.seconds <= seconds:
            return None
        return (progress.step - steps) / (progress.seconds - seconds)


class JsonLines:
    """One JSON line per evaluation, in a file that may be read at any time.

    A training that goes on from its checkpoint repeats what it did since; lines of steps that are yet
    to come are dropped at the first line, so that each step has one. An existing file is gone on with.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._begun = path, False
        self._speed = Speed()
        self._notes: list[str] = []

    def __call__(self, training: Training, progress: Progress) -> None:
        speed = self._speed(progress)
        self._notes += progress.notes
        if progress.psnr is None:
            return
        row = {
            "step": progress.step,
            "steps": progress.steps,
            "loss": progress.loss,
            "learning_rate": progress.learning_rate,
            "psnr": progress.psnr,
            "ssim": progress.ssim,
            "seconds": round(progress.seconds, 3),
            "steps_per_second": speed,
            "notes": self._notes,
        }
        text = json.dumps(row, allow_nan=False)
        self._notes = []
        if self._begun:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(text + "\n")
            return
        lines = [*self._earlier(progress.step), text]
        with replacing(self._path) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        self._begun = True

    def _earlier(self, step: int) -> list[str]:
        if not self._path.exists():
            return []
        lines = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] < step:
                    lines.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # torn by a crash
        return lines


class ProgressBar:
    """A bar with steps, steps per second, time left and the last validation; a context manager."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            speed_estimate_period=SPEED_SECONDS,
        )
        self._speed = Speed()
        self._task = self._bar.add_task("training", total=None, speed="")

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, training: Training, progress: Progress) -> None:
        speed = self._speed(progress)
        self._bar.update(
            self._task,
            completed=progress.step,
            total=progress.steps,
            speed="" if speed is None else f"{speed:.1f} steps/s",
        )
        if progress.psnr is not None:
            self._bar.update(self._task, description=f"{progress.psnr:.2f} dB")
        for note in progress.notes:
            self._bar.console.print(note, markup=False, highlight=False)


class TensorBoard:
    """TensorBoard's scalars (loss, rate, speed, PSNR, SSIM), and validation images; a context manager.

    Images are LR (bicubically upsampled, as the baseline), SR and HR side by side. Needs the package
    `tensorboard`, which the extra `gpnas[tensorboard]` brings.

    Args:
        folder: of event files; `tensorboard --logdir` takes it.
        images: so many of the validation images are shown at each evaluation.

    Raises:
        ImportError: the package is missing.
    """

    def __init__(self, folder: Path, images: int = 4) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoard files need the package tensorboard, which is not installed; "
                "pip install 'gpnas[tensorboard]'"
            ) from error
        self._writer: Any = SummaryWriter(str(folder))
        self._images = images
        self._speed = Speed()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def __call__(self, training: Training, progress: Progress) -> None:
        step = progress.step
        self._writer.add_scalar("train/loss", progress.loss, step)
        self._writer.add_scalar("train/learning_rate", progress.learning_rate, step)
        if (speed := self._speed(progress)) is not None:
            self._writer.add_scalar("train/steps_per_second", speed, step)
        for note in progress.notes:
            self._writer.add_text("notes", note, step)
        if progress.psnr is not None:
            self._writer.add_scalar("validation/psnr", progress.psnr, step)
            self._writer.add_scalar("validation/ssim", progress.ssim, step)
            self._show(training, step)
        self._writer.flush()

    def _show(self, training: Training, step: int) -> None:
        pairs = training.validation_pairs.head(self._images)
        for index, name in enumerate(pairs.names):
            lr, hr = (image[None] for image in pairs.tensors(index))
            baseline = interpolate(lr, size=hr.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)
            row = torch.cat((baseline, training.upscale(lr), hr), dim=-1)[0]
            # TensorBoard rounds down whatever is not bytes
            self._writer.add_image(f"validation/{name}", (row * 255).round().byte(), step)
