"""How the candidates of a run are trained, on what: the trainings' own part of a journal's header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from gpnas.journal import CHECKED, Journal
from gpnas.records import FrozenMapping, Objective
from gpnas_trainers import SCALES
from gpnas_trainers.recipe import Recipe

PSNR = Objective("psnr", "dB")
"""What searches maximise: PSNR on the validation images, RGB, without a border."""


@dataclass(frozen=True)
class Data:
    """The pairs of a run."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CHECKED

    fingerprint: str
    """Of the training pairs."""
    validation: str
    """Fingerprint of the validation pairs."""
    source: str
    """Name of their folder; `photographs` for those that packages ship."""
    camera: Mapping[str, tuple[float, float]] | None
    """Ranges of the synthetic camera that made LR of the shipped photographs; None for real pairs."""
    pairs: int | None = None
    """Training pairs, where a final training counted them."""
    of_search: bool | None = None
    """Whether a final training has the pairs of its search; None where there is no search."""

    @property
    def is_shipped(self) -> bool:
        """Whether these are photographs that packages ship; anyone else's may be private."""
        return self.camera is not None and self.source == "photographs"

    def to_json(self) -> dict[str, Any]:
        """As journals and bundles hold it."""
        return {name: value for name, value in asdict(self).items() if value is not None or name == "camera"}


@dataclass(frozen=True)
class Setup:
    """How the candidates of a run are trained, on what."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CHECKED

    scale: int
    recipe: Mapping[str, Any]
    """As `gpnas_trainers.Recipe.to_json` writes it."""
    data: Data
    validation_images: int
    """At most so many validation images score a trial."""
    search: str | None = None
    """Name of the run folder whose portfolio a final training trains; None where a person named it."""
    warm_start: str | None = None
    """What a final training begins with: `search`, `none`, or the name of a run folder or a bundle."""
    family_recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By family, the settings in which its recipe differs from `recipe`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", FrozenMapping(self.recipe))
        own = {name: FrozenMapping(settings) for name, settings in self.family_recipes.items()}
        object.__setattr__(self, "family_recipes", FrozenMapping(own))
        if self.scale not in SCALES or self.validation_images < 1:
            raise ValueError(
                f"`scale` must be one of {', '.join(map(str, SCALES))} and `validation_images >= 1` hold, "
                f"but got {self.scale} and {self.validation_images}"
            )
        for family in ("", *self.family_recipes):
            try:
                self.recipe_of(family)
            except TypeError as error:
                raise ValueError(f"`recipe` must hold settings of a recipe, but {error}") from None

    def recipe_of(self, family: str) -> Recipe:
        """How the networks of a family are trained."""
        return Recipe(**{**self.recipe, **self.family_recipes.get(family, {})})

    def recipe_document(self) -> dict[str, Any]:
        """The common recipe as JSON, with those of families that have their own, if any, as `families`."""
        own = {family: dict(settings) for family, settings in self.family_recipes.items()}
        return {**self.recipe, **({"families": own} if own else {})}

    @classmethod
    def of(cls, journal: Journal) -> Setup:
        """The setup that a journal's header holds.

        Raises:
            JournalError: it is not one.
        """
        return journal.setup(cls)

    def to_json(self) -> dict[str, Any]:
        """The form in which a header holds it."""
        return asdict(self) | {"data": self.data.to_json()}
