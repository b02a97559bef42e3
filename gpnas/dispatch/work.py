"""What a search and a final training have in common: a request, made definite and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gpnas.dispatch.resources import Asked
from gpnas.dispatch.trial import Task
from gpnas.journal import Header
from gpnas.records import Candidate
from gpnas.run.layout import candidate_folder
from gpnas.run.storage import Storage
from gpnas_trainers.train import Recipe


@dataclass(frozen=True)
class Means:
    """What trials may use, and for how long; a user says."""

    asked: Asked = field(default_factory=Asked)
    """CPUs and GPUs of each trial."""
    devices: int = 1
    """How many share each training: GPUs where there are any, otherwise CPUs."""
    address: str | None = None
    """Of a running Ray cluster; None starts Ray on this machine."""
    budget_hours: float | None = None
    """After so many hours the search ends in good order; None never."""


@dataclass(frozen=True)
class Work:
    """What is trained, how, with what, and where its results go."""

    run: Path
    """The run folder."""
    scale: int
    recipe: Recipe
    pairs: Path
    """Folder of the prepared pairs."""
    fingerprint: str
    """Of the pairs."""
    storage: Storage
    """Where trials write."""
    validation_images: int
    """How many images, at most, a network is measured on."""
    trials: int
    """The whole allowance."""
    means: Means
    header: Header = field(repr=False)
    """Of its journal."""
    watch: tuple[str, ...] = ()
    """`json`, `tensorboard`: what else trials write."""

    @property
    def best(self) -> int | None:
        """A training is stopped early where it will hardly end among so many best; None stops none."""
        search = self.header.search
        return search.portfolio if search is not None and self.header.early_stopping else None

    @property
    def correlations(self) -> bool:
        """Whether trials tell how their networks' errors correlate."""
        return self.header.search is not None and self.header.search.portfolio_aware

    def task(self, candidate: Candidate) -> Task:
        """What a worker must know to train a candidate."""
        return Task(
            id=candidate.id,
            family=candidate.architecture.family,
            axes=dict(candidate.architecture.axes),
            seed=candidate.seed,
            run=self.run.name,
            storage=self.storage.uri,
            folder=candidate_folder(candidate),
            pairs=str(self.pairs),
            fingerprint=self.fingerprint,
            scale=self.scale,
            recipe=self.recipe.to_json() | {"steps": candidate.fidelity.steps},
            validation_images=self.validation_images,
            correlations=self.correlations,
            watch=self.watch,
        )
