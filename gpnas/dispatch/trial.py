"""One trial, as it runs in a Ray worker: a training that keeps its own checkpoints.

Ray Tune starts, stops and restarts trials; what they earned lies in the run's storage, keyed by
candidate, and does not depend on Tune's own state. A candidate's folder there holds

    attempt-1/checkpoint.pt, attempt-2/…   one folder per attempt, never shared, since a worker that
                                           was cut off may go on writing after its successor started
    network.safetensors                    the trained weights, once finished
    errors.safetensors                     what products of its residuals with others' need, once finished
    initial.safetensors                    where it was begun with other weights: those
    training.jsonl, tensorboard/           on demand: an evaluation per line, TensorBoard's files
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ray import tune
from safetensors.torch import load, save
from torch import nn

from gpnas.dispatch.metrics import Worker
from gpnas.dispatch.watchers import Watchers
from gpnas.errors import TrialError
from gpnas.records import Candidate
from gpnas.run.layout import CHECKPOINT_FILE, INITIAL_FILE, NETWORK_FILE, candidate_folder
from gpnas.run.residuals import error_correlations, write_errors
from gpnas.run.sharing import opened
from gpnas.run.storage import Storage, open_storage
from gpnas_trainers import build
from gpnas_trainers.pairs import PairsError
from gpnas_trainers.ranks import PeerError, Ranks
from gpnas_trainers.train import Progress, Recipe, Training, TrainingError
from gpnas_trainers.warm_start import warm_start

logger = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
"""How long a worker trains between two reports; also how fast it heeds an order to stop."""
CHECKPOINT_SECONDS = 3.0
"""Least time between two checkpoints."""
CHECKPOINT_SHARE = 0.05
"""Largest share of the time that checkpoints may take."""


def trial_config(
    candidate: Candidate,
    *,
    run: str,
    storage: str,
    pairs: Path,
    fingerprint: str,
    scale: int,
    recipe: Recipe,
    validation_images: int,
    correlations: bool = False,
    watch: Sequence[str] = (),
) -> dict[str, Any]:
    """What a worker must know to run a candidate; plain values, since Tune copies and prints it.

    Args:
        candidate: what to train.
        run: name of the run.
        storage: address of the run's.
        pairs: folder of the prepared pairs on the driver.
        fingerprint: of these pairs.
        scale: of the network.
        recipe: how to train it; the candidate says how long.
        validation_images: at most so many score it.
        correlations: whether it tells of its errors' correlations with others'.
        watch: `json`, `tensorboard`: what else is written of the training, where the storage is a folder.
    """
    return {
        "id": candidate.id,
        "run": run,
        "family": candidate.architecture.family,
        "axes": dict(candidate.architecture.axes),
        "seed": candidate.seed,
        "storage": storage,
        "folder": candidate_folder(candidate),
        "pairs": str(pairs),
        "fingerprint": fingerprint,
        "scale": scale,
        "recipe": recipe.to_json() | {"steps": candidate.fidelity.steps},
        "validation_images": validation_images,
        "correlations": correlations,
        "watch": list(watch),
    }


def trial_name(config: dict[str, Any]) -> str:
    """A trial, for the eyes of those who watch: `c0007-drn-features24-blocks4-stages2`."""
    axes = "-".join(f"{name}{value}" for name, value in config["axes"].items())
    return f"{config['id']}-{config['family']}-{axes}"


class Trial(tune.Trainable):
    """A candidate's training, advanced by about a second per call; its process is reused.

    A result is a plain dictionary with `attempt`, `step`, `loss`, `seconds`, after an evaluation `psnr`
    and `ssim`, and `notes` where there are any: what the training had to do to go on, a line each. The
    first one after a restart has `evaluations`, all that its checkpoint knows of, since the driver may
    have died before it heard. The last one has `done`, on demand `correlations` of its errors with those
    of candidates that finished before, and where the candidate could not be trained `failure`, or
    `abort` where no other candidate could be either.
    """

    _training: Training | None = None

    def setup(self, config: dict[str, Any]) -> None:
        if not torch.cuda.is_available():
            torch.set_num_threads(int(config.get("cpus", 1)))
        self._worker = Worker(config["run"])
        self.reset_config(config)

    def __repr__(self) -> str:  # the dashboard shows it
        return f"trials of {self._config['run']}"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._pause()
        self._training = None
        self._config = new_config
        self._worker.begins(trial_name(new_config))
        return True

    def step(self) -> dict[str, Any]:
        self._worker.works(trial_name(self._config))
        try:
            if self._training is None:
                self._start()
            return self._advance()
        except TrainingError as error:
            self._training = None
            return {"done": True, "attempt": self._attempt, "failure": str(error), "common": True}
        except (MemoryError, torch.OutOfMemoryError):
            self._training = None
            return {"done": True, "attempt": self._attempt, "failure": "out of memory; a smaller batch fits"}
        except (PairsError, TrialError) as error:  # of this node or of the storage, not of the candidate
            return self._aborted(str(error))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "the disk is full" if full else " ".join(str(error).split())
            return self._aborted(
                f"{self._config['storage']}: trials must be able to read and write here, but {what}; "
                "mend that and run the same command again"
            )
        except PeerError:  # what ended the other process is told by it, or else a worker has died
            raise
        except Exception as error:  # whatever it is, one candidate must not end the others
            logger.exception("candidate %s", self._config["id"])
            self._training = None
            return {
                "done": True,
                "attempt": self._attempt,
                "failure": f"{type(error).__name__}: {' '.join(str(error).split())}",
            }

    def _aborted(self, why: str) -> dict[str, Any]:
        self._training = None
        return {"done": True, "attempt": self._attempt, "abort": why}

    def cleanup(self) -> None:
        self._pause()

    _attempt = 0

    def _start(self) -> None:
        config = self._config
        self._attempt = 0
        self._artefacts = storage = open_storage(config["storage"])
        self._folder = config["folder"]
        self._ranks = Ranks(together=config.get("together", False))
        earlier = [name for name in storage.names(self._folder) if name.endswith(f"/{CHECKPOINT_FILE}")]
        first = self._ranks.rank == 0  # the only one that writes
        if first:
            self._claim_attempt()
        self._attempt = int(self._ranks.sum_numbers(self._attempt)[0])
        self._checkpoint = f"{self._folder}/attempt-{self._attempt}/{CHECKPOINT_FILE}"
        train, validation = opened(config["pairs"], config["fingerprint"], config["storage"])
        self._validation = validation.head(config["validation_images"])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config["seed"])
            network = build(config["family"], config["scale"], **config["axes"])
        begun = begin(network, storage, self._folder)
        training = Training(
            network,
            train,
            self._validation,
            Recipe(**config["recipe"]),
            seed=config["seed"],
            device=device,
            ranks=self._ranks,
        )
        self._known: dict[int, dict[str, float]] = {}
        damaged: list[str] = []
        for name in earlier:
            try:
                with storage.reading(name) as path:
                    training.load(path)
            except TrainingError as error:  # torn by a crash, or by a worker that was cut off
                damaged.append(str(error).replace(str(path), f"{storage.uri}/{name}"))
                continue  # the one before it serves
            self._known = training.evaluations
            beginning = f"gone on from {name}, step {training.step}"
            break
        else:
            beginning = "begun again"
            if begun:
                training.note(begun)
        for each in damaged:
            training.note(f"{each}; {beginning}")
        folder = Path(config["storage"]) / self._folder
        self._watchers = Watchers(folder, config.get("watch", ()) if first else ())
        self._training = training
        self._saved, self._saving_took = time.monotonic(), 0.0

    def _claim_attempt(self) -> None:
        self._attempt = 1
        while not self._artefacts.claim(f"{self._folder}/attempt-{self._attempt}"):
            self._attempt += 1

    def _advance(self) -> dict[str, Any]:
        assert self._training is not None
        progress = self._training.advance(REPORT_SECONDS)
        self._watchers(self._training, progress)
        result: dict[str, Any] = {"attempt": self._attempt, "done": progress.done, **_numbers(progress)}
        if progress.notes:
            result["notes"] = list(progress.notes)
        if self._known:
            result["evaluations"] = [{"step": step, **row} for step, row in self._known.items()]
            self._known = {}
        idle = max(CHECKPOINT_SECONDS, self._saving_took / CHECKPOINT_SHARE)
        if progress.done:
            self._save()
            if self._ranks.rank == 0:
                self._finish(self._training.network)
            if self._config.get("correlations"):
                result["correlations"] = error_correlations(self._artefacts, self._folder)
        elif time.monotonic() - self._saved >= idle:
            self._save()
        return result

    def _save(self) -> None:
        assert self._training is not None
        start = time.monotonic()
        self._write_checkpoint(self._training)
        self._saved = time.monotonic()
        self._saving_took = self._saved - start

    def _pause(self) -> None:
        """Keeps what an unfinished training has earned since its last checkpoint."""
        training, self._training = self._training, None
        if training is not None and not training.done:
            try:
                self._write_checkpoint(training)
            except OSError as error:  # whoever comes next in this process is not to blame
                logger.warning("%s: the checkpoint before it serves, since %s", self._checkpoint, error)

    def _write_checkpoint(self, training: Training) -> None:
        if self._ranks.rank:
            return
        with self._artefacts.writing(self._checkpoint) as path:
            training.save(path)

    def _finish(self, network: nn.Module) -> None:
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        self._artefacts.write(f"{self._folder}/{NETWORK_FILE}", save(weights))
        write_errors(self._artefacts, self._folder, network, self._validation)


def begin(network: nn.Module, storage: Storage, folder: str) -> str | None:
    """Has a network begin with the weights that lie in its candidate's folder, if any; says what it took."""
    name = f"{folder}/{INITIAL_FILE}"
    return str(warm_start(network, load(storage.read(name)))) if storage.exists(name) else None


def _numbers(progress: Progress) -> dict[str, float]:
    numbers = {"step": progress.step, "loss": progress.loss, "seconds": progress.seconds}
    if progress.psnr is not None and progress.ssim is not None:
        numbers |= {"psnr": progress.psnr, "ssim": progress.ssim}
    return numbers
