"""`gpnas train`: the final training of a search's portfolio, or of networks that a person chose."""

from __future__ import annotations

import argparse

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TimeRemainingColumn

from gpnas.cli.arguments import limits_of
from gpnas.cli.delivered import delivered
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import Words, bars
from gpnas.cli.watching import Watcher, means_of
from gpnas.dispatch.conductor import Event
from gpnas.dispatch.final import FinalRequest, run_final
from gpnas.records import Candidate
from gpnas.results.choosing import Allowance
from gpnas_trainers.recipe import rules

SPEED_SECONDS = 60.0
"""Time over which steps per second are averaged."""


class _Watcher(Watcher):
    """A final training: a bar per network, with steps/s and time left."""

    def __init__(self) -> None:
        columns = (Words(), BarColumn(), MofNCompleteColumn(), Words("speed"))
        left = TimeRemainingColumn(elapsed_when_finished=True)
        shown = bars(*columns, left, speed_estimate_period=SPEED_SECONDS)
        super().__init__(shown, "networks trained")
        self._tasks: dict[str, TaskID] = {}

    def event(self, event: Event) -> None:
        candidate, observation = event.candidate, event.observation
        task = self._task(candidate)
        if event.note:
            self.note(candidate, event.note)
        if observation is not None:
            self.ended(candidate, observation)
            self.bars.remove_task(self._tasks.pop(candidate.id))
        elif event.kind == "progress":
            self.bars.update(task, completed=event.step)
            speed = self.bars.tasks[self.bars.task_ids.index(task)].speed
            self.bars.update(task, speed="" if not speed else f"{speed:.1f} steps/s")
            if event.value is not None:
                self.bars.update(task, description=f"{candidate.id} {event.value:.2f} dB")

    def _task(self, candidate: Candidate) -> TaskID:
        if candidate.id not in self._tasks:
            steps = candidate.fidelity.steps
            self._tasks[candidate.id] = self.bars.add_task(candidate.id, total=steps, speed="")
        return self._tasks[candidate.id]


def run(options: argparse.Namespace) -> Report:
    with (watcher := _Watcher()):
        delivery = run_final(
            FinalRequest(
                search=options.search,
                architectures=tuple(options.architecture),
                run=options.run,
                top=options.top,
                allowance=Allowance(**limits_of(options)),
                data=options.data,
                scale=options.scale,
                recipe_file=options.recipe,
                recipe={name: value for name in rules() if (value := getattr(options, name)) is not None},
                warm_start=options.start_from,
                seed=options.seed,
                concurrent=options.concurrent,
                means=means_of(options, options.devices),
                tensorboard=options.tensorboard,
                storage=options.storage,
            ),
            watcher,
        )
    return Report(delivery.to_json(), delivered(delivery, "Trained to the end"))
