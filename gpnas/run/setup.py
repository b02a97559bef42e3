"""How the candidates of a run are trained, on what: the trainings' own part of a journal's header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

from gpnas.errors import JournalError
from gpnas.journal import CHECKED, Journal
from gpnas.records import FrozenMapping, Objective
from gpnas_trainers import SCALES
from gpnas_trainers.families import declare
from gpnas_trainers.own import Code, own_family
from gpnas_trainers.recipe import Recipe

PSNR = Objective("psnr", "dB")
"""What searches maximise: PSNR on the validation images, RGB, without a border."""


@dataclass(frozen=True)
class Data:
    """The pairs of a run."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CHECKED

    fingerprint: str
    """Fingerprint of the training pairs."""
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
    pictures: tuple[str, ...] = ()
    """What the training pairs' HR images are known by, `PairSet.pictures`."""

    @property
    def is_shipped(self) -> bool:
        """Whether these are photographs that packages ship; anyone else's may be private."""
        return self.camera is not None and self.source == "photographs"

    def to_json(self) -> dict[str, Any]:
        """The document that journals and bundles hold."""
        document = asdict(self) | {"pictures": list(self.pictures) or None}
        return {name: value for name, value in document.items() if value is not None or name == "camera"}


@dataclass(frozen=True)
class OwnNetwork:
    """A network of a run's own: the source that it began with, and what its architectures cost."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CHECKED

    network: str
    """How the space file named it: `nets.py:Mine`, or `package.module:name`."""
    sha256: str
    """Checksum of the text, with those of the files and their paths."""
    text: str
    """The source."""
    package: str = ""
    """Package that a module's relative imports start from."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Sources of the files that it imports from beside it, by their paths."""
    costs: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Parameters and GMACs at 120×120 LR pixels, counted before the first trial, by axes: `width=16`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "costs", FrozenMapping(self.costs))
        object.__setattr__(self, "files", FrozenMapping(self.files))
        if self.sha256 != self.code.sha256:
            raise ValueError(f"the text of {self.network} must have its SHA-256, but has another")

    @classmethod
    def of(cls, code: Code, costs: Mapping[str, tuple[int, float]]) -> OwnNetwork:
        return cls(code.network, code.sha256, code.text, code.package, code.files, costs)

    @property
    def code(self) -> Code:
        return Code(self.network, self.text, self.package, dict(self.files))


@dataclass(frozen=True)
class OwnSetup:
    """The setup of a search whose trainings are a person's own."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CHECKED

    trained_by: Literal["a person's own loop", "a person's own training"]
    costs: Mapping[str, tuple[float, ...]]
    """What is known of each architecture before training, by name, in the order of enumeration."""
    code: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    """The source that a training's run began with: arguments of a `Code`; empty for a loop."""
    memory: tuple[float, ...] = ()
    """Bytes that a training step of each architecture holds, in the order of enumeration; empty where that is
    not known. No cost of the space, since it nearly follows from the GMACs: nothing is learned from it."""

    @property
    def source(self) -> Code | None:
        """The source that a training's run began with."""
        return Code(**self.code) if self.code else None  # type: ignore[arg-type]

    @staticmethod
    def describes(journal: Journal) -> bool:
        """Whether a journal's header holds one."""
        return "trained_by" in journal.header.setup

    def to_json(self) -> dict[str, Any]:
        """The form in which a header holds it."""
        costs = {name: list(own) for name, own in self.costs.items()}
        document = {"trained_by": self.trained_by, "costs": costs, "code": dict(self.code)}
        return document | ({"memory": list(self.memory)} if self.memory else {})


@dataclass(frozen=True)
class Setup:
    """How the candidates of a run are trained, on what."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CHECKED

    scale: int
    recipe: Mapping[str, Any]
    """The recipe, as `gpnas_trainers.Recipe.to_json` writes it."""
    data: Data
    validation_images: int
    """How many validation images score a trial, at most."""
    search: str | None = None
    """Name of the run folder whose portfolio a final training trains; None where a person named it."""
    warm_start: str | None = None
    """What a final training begins with: `search`, `none`, or the name of a run folder or a bundle."""
    family_recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings, by family, in which its recipe differs from `recipe`."""

    networks: Mapping[str, OwnNetwork] = field(default_factory=dict)
    """Networks of the run's own, by family."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "networks", FrozenMapping(self.networks))
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
        """The setup that a journal's header holds; its own networks become families that are known.

        Their source is the one that the run began with, and is run only where one of them is built.

        Raises:
            JournalError: it is not one.
        """
        if "trained_by" in journal.header.setup:
            whose, shown = journal.header.setup["trained_by"], "status, explain and report show such a run"
            if whose == "a person's own training":
                shown += "; what each left lies in candidates/, and portfolio says which to average"
            raise JournalError(
                f"{journal.run}: gpnas must have trained the networks of this run itself, but they are "
                f"{whose}'s; {shown}"
            )
        setup = journal.setup(cls)
        for name, own in setup.networks.items():
            declare(own_family(name, own.code, own.costs))
        return setup

    def to_json(self) -> dict[str, Any]:
        """The form in which a header holds it."""
        networks = {
            name: {
                **vars(own),
                "files": dict(own.files),
                "costs": {axes: list(costs) for axes, costs in own.costs.items()},
            }
            for name, own in self.networks.items()
        }
        document = asdict(replace(self, networks={})) | {"data": self.data.to_json()}
        del document["networks"]
        return document | ({"networks": networks} if networks else {})
