"""`gpnas train`: the final training of a search's portfolio, or of networks that a person chose."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gpnas.cli.console import (
    Watcher,
    above_zero,
    add_limits,
    add_resources,
    limits_of,
    log,
    out,
    plain,
    positive,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

    from gpnas.dispatch.conductor import Event
    from gpnas.records import Candidate

SPEED_SECONDS = 60.0
"""Over which steps per second are averaged."""
RECIPE = {
    "steps": (positive, "optimiser steps"),
    "batch-size": (positive, "patches of a step"),
    "hr-patch": (positive, "side of a patch, in HR pixels"),
    "learning-rate": (float, "after warm-up"),
    "warmup-steps": (int, "over which the rate rises"),
    "schedule": (str, "cosine or step"),
    "ms-ssim-weight": (float, "of 1 - MS-SSIM in the loss"),
    "ema-decay": (float, "of the average of the weights that is delivered, such as 0.999; 0: none"),
    "precision": (str, "float32, bfloat16 or float16"),
    "micro-batch": (int, "patches that go through at once; 0: all that fit"),
    "evaluate-every": (positive, "steps between validations"),
}
"""Settings of the recipe that the command line may override; a file may give all."""


def add_command(command: Callable[..., Any]) -> None:
    """Adds it; `command` makes a parser with what all commands share."""
    train = command("train", _train, "train a search's portfolio, or given networks, to the end")
    train.add_argument("search", metavar="RUN", type=Path, nargs="?", help="run folder of a finished search")
    train.add_argument("--top", type=positive, help="networks of the portfolio (default: the search's)")
    add_limits(train)
    train.add_argument(
        "--architecture",
        metavar="NETWORK",
        action="append",
        default=[],
        help="instead of RUN, and repeatable: such as drn:features=128,blocks=18,stages=3",
    )
    train.add_argument(
        "--data", type=Path, help="folder of LR/HR pairs (default: the search's, or shipped photographs)"
    )
    train.add_argument("--scale", type=int, help="of --architecture (default: 2)")
    train.add_argument(
        "--run", type=Path, help="folder of this training (default: RUN/final); an existing one goes on"
    )
    train.add_argument(
        "--warm-start",
        metavar="search|none|PATH",
        help="weights to begin with: the search's, fresh ones, or those of a run or bundle",
    )
    train.add_argument("--recipe", metavar="FILE", type=Path, help="YAML with settings of the recipe")
    for name, (kind, text) in RECIPE.items():
        train.add_argument(f"--{name}", type=kind, help=f"recipe: {text}")
    train.add_argument("--seed", type=int, help="of the trainings (default: the search's)")
    train.add_argument(
        "--storage",
        metavar="URI",
        help="where checkpoints and networks go: a path, s3://… or what else pyarrow opens (default: --run)",
    )
    train.add_argument("--concurrent", type=positive, help="trainings side by side")
    train.add_argument(
        "--devices", type=positive, default=1, help="GPUs, else CPUs, that share each training (default: 1)"
    )
    add_resources(train)
    train.add_argument("--address", help="of a Ray cluster (default: start Ray on this machine)")
    train.add_argument("--budget-hours", type=above_zero, help="end in good order after so many hours")
    train.add_argument("--tensorboard", action="store_true", help="write TensorBoard's event files")


class _Watcher(Watcher):
    """A final training, as the terminal shows it: a bar per network, with steps/s and time left."""

    def __init__(self) -> None:
        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=log,
            speed_estimate_period=SPEED_SECONDS,
        )
        super().__init__(bars, "networks trained")
        self.tasks: dict[str, TaskID] = {}

    def event(self, event: Event) -> None:
        candidate, observation = event.candidate, event.observation
        task = self._task(candidate)
        if event.note:
            self.say(f"{candidate.id}  {event.note}")
        if observation is not None:
            if observation.value is None:
                self.say(f"{candidate.id}  {candidate.architecture}  failed: {observation.failure}")
            else:
                log.print(
                    f"{candidate.id}  {plain(candidate.architecture):42s} {observation.value:6.2f} dB  "
                    f"{observation.metrics['ssim']:.4f}  {observation.seconds:5.1f} s"
                )
            self.bar.remove_task(self.tasks.pop(candidate.id))
            return
        if event.kind == "progress":
            self.bar.update(task, completed=event.step)
            speed = self.bar.tasks[self.bar.task_ids.index(task)].speed
            self.bar.update(task, speed="" if not speed else f"{speed:.1f} steps/s")
            if event.value is not None:
                self.bar.update(task, description=f"{candidate.id} {event.value:.2f} dB")

    def _task(self, candidate: Candidate) -> TaskID:
        if candidate.id not in self.tasks:
            self.tasks[candidate.id] = self.bar.add_task(
                candidate.id, total=candidate.fidelity.steps, speed=""
            )
        return self.tasks[candidate.id]


def _train(options: argparse.Namespace) -> Any:
    from gpnas.dispatch.final import FinalRequest, run_final
    from gpnas.dispatch.resources import Asked
    from gpnas.results.delivery import Allowance

    given = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in RECIPE}
    watcher = _Watcher()
    try:
        document = run_final(
            FinalRequest(
                search=options.search,
                architectures=tuple(options.architecture),
                run=options.run,
                top=options.top,
                allowance=Allowance(**limits_of(options)),
                data=options.data,
                scale=options.scale,
                recipe_file=options.recipe,
                recipe={name: value for name, value in given.items() if value is not None},
                warm_start=options.warm_start,
                seed=options.seed,
                concurrent=options.concurrent,
                devices=options.devices,
                asked=Asked(options.cpus_per_trial, options.gpus_per_trial),
                address=options.address,
                budget_hours=options.budget_hours,
                tensorboard=options.tensorboard,
                storage=options.storage,
            ),
            watcher,
        )
    finally:
        watcher.close()
    if not options.json:
        _show(document)
    return document


def _show(document: dict[str, Any]) -> None:
    table = Table(title=f"Trained to the end, {document['images']} images", title_justify="left")
    for heading in ("share", "network", "PSNR dB", "SSIM", "parameters", "seconds"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for row in document["ranking"]:
        axes = ",".join(f"{name}={value}" for name, value in row["architecture"]["axes"].items())
        table.add_row(
            f"{document['shares'][row['id']]:.0%}",
            plain(f"{row['architecture']['family']}:{axes}"),
            f"{row['psnr']:.2f}",
            f"{row['ssim']:.4f}",
            f"{row['parameters']:,}",
            f"{row['seconds']:.1f}",
        )
    out.print(table)
    psnr = document["psnr"]
    out.print(
        f"\nbicubic {psnr['bicubic']:.2f} dB, best network {psnr['best']:.2f} dB, "
        f"{len(document['weights'])} averaged {psnr['average']:.2f} dB\n"
        f"bundle: {plain(document['bundle'])}\n\n"
        f"next: gpnas evaluate {plain(document['bundle'])}"
    )
