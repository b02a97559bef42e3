"""What a search and a final training have in common: a request, made definite and checked."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from gpnas.data import Prepared
from gpnas.dispatch.request import Means
from gpnas.dispatch.trial import Task, Trial
from gpnas.errors import DataError, SpaceError
from gpnas.journal import Header
from gpnas.records import Candidate
from gpnas.run.layout import candidate_folder
from gpnas.run.networks import count_memory
from gpnas.run.pricing import memory_of
from gpnas.run.provenance import machine, versions
from gpnas.run.setup import PSNR, Setup
from gpnas.run.sharing import fingerprint_of, share
from gpnas.run.storage import Storage
from gpnas_trainers.pairs import PairSet
from gpnas_trainers.train import Recipe


@dataclass(frozen=True)
class Work:
    """What is trained, how, with what, and where its results go."""

    run: Path
    """The run folder."""
    setup: Setup
    """How candidates are trained, on what."""
    pairs: Prepared
    storage: Storage
    """Where trials write."""
    means: Means
    header: Header = field(repr=False)
    """What its journal begins with."""
    watch: tuple[str, ...] = ()
    """`json`, `tensorboard`: what else trials write."""
    trainable: ClassVar[type[Trial]] = Trial
    """What a worker runs."""

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe(**self.setup.recipe)

    @cached_property
    def fingerprint(self) -> str:
        """What the pairs are known by."""
        return fingerprint_of(self.pairs.training, self.pairs.validation)

    @property
    def reading(self) -> list[Path]:
        """Folders that every node must read."""
        return [self.pairs.folder]

    def share(self) -> None:
        """Puts into the storage what nodes may lack."""
        share(self.pairs.folder, self.fingerprint, self.storage)

    def memory(self, candidate: Candidate) -> float:
        """Bytes of memory that a candidate's training takes at once; infinite where nobody can count them."""
        architecture = candidate.architecture
        recipe = self.setup.recipe_of(architecture.family)
        own = self.setup.networks.get(architecture.family)
        if own is not None:
            try:
                count_memory(architecture, self.setup.scale, own.code, recipe.hr_patch)
            except SpaceError:
                return math.inf  # whoever cannot be counted may need all there is
        return memory_of(architecture, self.setup.scale, recipe)

    def task(self, candidate: Candidate) -> Task:
        """What a worker must know to train a candidate."""
        family = candidate.architecture.family
        own = self.setup.networks.get(family)
        return Task(
            id=candidate.id,
            family=family,
            axes=dict(candidate.architecture.axes),
            seed=candidate.seed,
            run=self.run.name,
            storage=self.storage.uri,
            folder=candidate_folder(candidate),
            pairs=str(self.pairs.folder),
            fingerprint=self.fingerprint,
            scale=self.setup.scale,
            recipe=self.setup.recipe_of(family).to_json() | {"steps": candidate.fidelity.steps},
            validation_images=self.setup.validation_images,
            correlations=self.header.portfolio_aware,
            watch=self.watch,
            network=None if own is None else asdict(own.code),
        )


def header_of(run: Path, setup: Setup, storage: Storage, means: Means, **own: Any) -> Header:
    """The header of a run: `own` has the fields in which searches and final trainings differ."""
    return Header(
        objective=PSNR,
        setup=setup.to_json(),
        storage=None if storage.uri == str(run) else storage.uri,
        versions=versions(),
        machine=machine() | {"devices": means.devices} | means.asked.given(),
        **own,
    )


def check_patch(pairs: PairSet, recipe: Recipe) -> None:
    """Raises a `DataError` where a recipe's patches are larger than the images, or miss the scale."""
    smallest = pairs.smallest_side
    if recipe.hr_patch > smallest:
        raise DataError(
            f"training patches must fit into the images, but hr_patch={recipe.hr_patch} and the smallest "
            f"HR side is {smallest} pixels; lower the recipe's `hr_patch`"
        )
    if recipe.hr_patch % pairs.scale:
        raise DataError(
            f"`hr_patch` must be a multiple of the scale, but got hr_patch={recipe.hr_patch} "
            f"and scale={pairs.scale}"
        )
