"""One trial, as it runs in a Ray worker: a training that keeps its own checkpoints.

Ray Tune starts, stops and restarts trials; what they earned lies in the run's storage, keyed by
candidate, and does not depend on Tune's own state. What a candidate's folder holds, `gpnas.run.layout` lists.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from gpnas.dispatch.metrics import Worker
from gpnas.dispatch.report import REPORT_SECONDS as REPORT_SECONDS
from gpnas.dispatch.report import Kind, ReportingTrial, TrialReport, TrialTask, name_of
from gpnas.dispatch.watchers import watchers
from gpnas.errors import TrialError
from gpnas.records import Progress
from gpnas.run.layout import CHECKPOINT_FILE, INITIAL_FILE, NETWORK_FILE, claim_attempt
from gpnas.run.own_folder import Pace
from gpnas.run.residuals import error_correlations, write_errors
from gpnas.run.sharing import opened
from gpnas.run.storage import open_storage, unusable
from gpnas_trainers import build
from gpnas_trainers.families import declare
from gpnas_trainers.own import Code, OwnError, in_words, own_family, place_of
from gpnas_trainers.pairs import PairsError
from gpnas_trainers.ranks import PeerError, Ranks
from gpnas_trainers.train import Recipe, Training, TrainingError
from gpnas_trainers.warm_start import warm_start

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 3.0
"""Least time between two checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Task(TrialTask):
    """What a worker must know to train a candidate's network."""

    pairs: str
    """Folder of the prepared pairs on the driver's machine."""
    fingerprint: str
    """What these pairs are known by."""
    scale: int
    recipe: dict[str, Any]
    """Arguments of a `Recipe`."""
    validation_images: int
    """How many images, at most, a network is measured on."""
    watch: tuple[str, ...] = ()
    """`json`, `tensorboard`: what else is written of the training, where the storage is a folder."""
    network: dict[str, Any] | None = None
    """Arguments of a `Code`, for a family of the run's own."""
    together: bool = False
    """Whether this process is one of several that train the candidate together."""


class CandidateError(Exception):
    """A candidate that cannot be trained; whatever else ends a trial lies in the machine. One line."""


@contextmanager
def _its_own() -> Iterator[None]:
    """Takes what is raised within for the candidate's own fault, but for what disks and devices raise."""
    try:
        yield
    except (OSError, PairsError, TrialError, TrainingError, PeerError, torch.AcceleratorError):
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise CandidateError("out of memory; a smaller batch fits") from None
    except (Exception, SystemExit) as error:  # whatever it is, one candidate must not end the others
        logger.exception("the candidate cannot be trained")
        place = "" if isinstance(error, OwnError) else place_of(error)  # such an error names it
        raise CandidateError(f"{place}: {in_words(error)}" if place else in_words(error)) from None


class Trial(ReportingTrial):
    """The training of a candidate's network, advanced by about a second per call."""

    _task: Task
    _training: Training | None = None

    def setup(self, config: dict[str, Any]) -> None:
        if not torch.cuda.is_available():
            torch.set_num_threads(int(config.get("cpus", 1)))
        self._worker = Worker(config["run"])
        super().setup(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._task = Task(**new_config)
        self._name = name_of(new_config)
        self._worker.begins(self._name)
        return True

    def advance(self) -> TrialReport:
        """Trains for about `REPORT_SECONDS`.

        What is raised here is no fault of the candidate's, and another process may do better: memory that the
        machine lacks, a device that fails, another process of the training that has died.
        """
        self._worker.works(self._name)
        try:
            if self._training is None:
                self._start()
            return self._advance()
        except TrainingError as error:
            return self._ended("failed", str(error), common=True)
        except CandidateError as error:
            return self._ended("failed", str(error))
        except (PairsError, TrialError) as error:
            return self._ended("aborted", str(error))
        except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError, PeerError):
            self._training = None
            raise
        except OSError as error:
            return self._ended("aborted", unusable(self._task.storage, error))
        except Exception as error:
            logger.exception("candidate %s", self._task.id)
            return self._ended("aborted", unusable(self._task.storage, f"{type(error).__name__}: {error}"))

    def interrupt(self) -> TrialReport:
        """Ends a training that is to go on later."""
        self.cleanup()
        return TrialReport("stopped", self._attempt)

    def _ended(self, kind: Kind, reason: str, *, common: bool = False) -> TrialReport:
        self._training = None
        return TrialReport(kind, self._attempt, reason=reason, common=common)

    def _start(self) -> None:
        task = self._task
        self._attempt = 0
        self._artefacts = storage = open_storage(task.storage)
        self._ranks = Ranks(together=task.together)
        earlier = [name for name in storage.names(task.folder) if name.endswith(f"/{CHECKPOINT_FILE}")]
        first = self._ranks.rank == 0  # the only one that writes
        if first:
            self._attempt = claim_attempt(storage, task.folder)
        self._attempt = int(self._ranks.sum_numbers(self._attempt)[0])
        self._checkpoint = f"{task.folder}/attempt-{self._attempt}/{CHECKPOINT_FILE}"
        train, validation = opened(task.pairs, task.fingerprint, task.storage)
        self._validation = validation.head(task.validation_images)
        name = f"{task.folder}/{INITIAL_FILE}"
        initial = load(storage.read(name)) if storage.exists(name) else None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with _its_own():
            if task.network is not None:
                declare(own_family(task.family, Code(**task.network)))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(task.seed)
                network = build(task.family, task.scale, **task.axes)
            begun = None if initial is None else str(warm_start(network, initial))
            training = Training(
                network,
                train,
                self._validation,
                Recipe(**task.recipe),
                seed=task.seed,
                device=device,
                ranks=self._ranks,
            )
        self._unheard: dict[int, dict[str, float]] = {}
        beginning = self._take_up(training, earlier)
        if begun and not beginning:
            training.note(begun)
        self._watchers = [*watchers(Path(task.storage) / task.folder, task.watch if first else ())]
        self._training = training
        self._pace = Pace(CHECKPOINT_SECONDS, first=CHECKPOINT_SECONDS)

    def _take_up(self, training: Training, checkpoints: Sequence[str]) -> bool:
        """Has a training go on from the first of these checkpoints that is whole, if any is."""
        damaged: list[str] = []
        beginning = None
        for name in checkpoints:
            try:
                with self._artefacts.reading(name) as path:
                    training.load(path)
            except TrainingError as error:  # torn by a crash, or by a worker that was cut off
                damaged.append(str(error).replace(str(path), self._artefacts.address(name)))
                continue  # the one before it serves
            self._unheard = training.evaluations
            beginning = f"gone on from {name}, step {training.step}"
            break
        for each in damaged:
            training.note(f"{each}; {beginning or 'begun again'}")
        return beginning is not None

    def _advance(self) -> TrialReport:
        assert self._training is not None
        with _its_own():
            progress = self._training.advance(REPORT_SECONDS)
        for watch in self._watchers:
            watch(self._training, progress)
        earlier = tuple(_progress(self._attempt, step, row) for step, row in self._unheard.items())
        notes = progress.notes
        correlations: dict[str, float] = {}
        if progress.done:
            self._write_checkpoint(self._training)
            if self._ranks.rank == 0:
                self._finish(self._training.network)
            correlations, unknown = self._correlated(error_correlations)
            notes = (*notes, *unknown)
        elif self._pace.due:
            with self._pace.measured():
                self._write_checkpoint(self._training)
        self._unheard = {}
        return TrialReport(
            "done" if progress.done else "progress",
            self._attempt,
            _progress(self._attempt, progress.step, vars(progress)),
            earlier,
            notes,
            correlations,
        )

    def cleanup(self) -> None:
        """Keeps what an unfinished training has earned since its last checkpoint."""
        training, self._training = self._training, None
        if training is not None and not training.done:
            try:
                self._write_checkpoint(training)
            except Exception as error:  # whoever comes next in this process is not to blame
                logger.warning("%s: the checkpoint before it serves, since %s", self._checkpoint, error)

    def _write_checkpoint(self, training: Training) -> None:
        if self._ranks.rank:
            return
        with self._artefacts.writing(self._checkpoint) as path:
            training.save(path)

    def _finish(self, network: nn.Module) -> None:
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        self._artefacts.write(f"{self._task.folder}/{NETWORK_FILE}", save(weights))
        with _its_own():
            write_errors(self._artefacts, self._task.folder, network, self._validation)


def _progress(attempt: int, step: int, numbers: Mapping[str, Any]) -> Progress:
    """How far an attempt has come, by a step's `loss`, `seconds`, `ssim` and `psnr`, the objective."""
    metrics = {name: float(numbers[name]) for name in ("psnr", "ssim", "loss") if numbers[name] is not None}
    return Progress(attempt, step, metrics.get("psnr"), metrics, float(numbers["seconds"]))
