"""The schema of a space file."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from gpnas.config.families import Families, Reading
from gpnas.config.mistakes import Strict, located
from gpnas.config.recipes import RecipeSettings as RecipeSettings
from gpnas.config.recipes import Settings
from gpnas.errors import SpaceError
from gpnas.records import Objective, Strategy
from gpnas.space import SearchSpace
from gpnas_trainers.recipe import Recipe

Scale = Literal[2, 3, 4, 8]
"""Super-resolution factors for which networks exist; a test holds it against the trainers'."""


class Limits(Strict):
    """The largest costs allowed; checked before anything is trained."""

    parameters: float = Field(default=math.inf, gt=0)
    """Trainable and fixed parameters of the network."""
    gmacs: float = Field(default=math.inf, gt=0)
    """10⁹ multiply-accumulates of one forward pass at 120×120 LR pixels, the paper's tile."""
    memory: float = Field(default=math.inf, gt=0)
    """Bytes that a training step holds: weights, gradients, moments, and what backward needs."""

    def given(self) -> dict[str, float]:
        """The limits that the file sets."""
        return {name: limit for name, limit in self if limit < math.inf}


class SearchSettings(Strict):
    """How much is granted to the search, and how it chooses."""

    trials: int = Field(default=16, ge=1)
    """Trainings granted to the whole search."""
    concurrent: int = Field(default=2, ge=1)
    """Trainings side by side."""
    strategy: Strategy = "mi+kg"
    """How architectures are chosen: `mi+kg` is a design by mutual information, then the knowledge gradient;
    `mi+nei` then takes noisy expected improvement; `published` is rounds of mutual information, then the
    posterior mean; `random` is chance."""
    cost_aware: bool = False
    """Whether gains count per predicted second."""
    portfolio_aware: bool = False
    """Whether an architecture is valued by what it would add to the portfolio's average."""
    common_seeds: bool = False
    """Whether all architectures are trained from the same seeds, each replicate from the next; trainings and
    loops of one's own are, unless the file says no."""
    defaults_first: bool = True
    """Whether the first trial of each family is its published network, scaled to the space."""
    portfolio: int = Field(default=3, ge=1)
    """The most networks whose average is delivered."""
    validation_images: int = Field(default=10, ge=1)
    """The most validation images that score a trial."""
    early_stopping: bool = True
    """Whether a training that will not matter is ended before its last step."""
    stop_below: float | None = Field(default=None, gt=0)
    """The search ends where stopping will hardly lose as much, in the objective's unit. Left out, all that is
    granted is trained."""


class CameraSettings(Settings):
    """The synthetic camera (Eq. 1 of the paper) that makes LR images of photographs without pairs.

    What is left out takes the trainers' default; a test holds the names against `gpnas_trainers`.
    """

    kernel_sigma: tuple[float, float] | None = Field(default=None, strict=False)
    """Least and largest standard deviation of the blur, in LR pixels, from 0 to 4."""
    noise_sigma: tuple[float, float] | None = Field(default=None, strict=False)
    """Least and largest standard deviation of the noise, in steps of 1/255, from 0 to 128."""


class ObjectiveSettings(Strict):
    """What a search whose trainings are a person's own makes as good as it can."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[A-Za-z][A-Za-z0-9 _-]*$")
    """What is measured, such as `accuracy`; tables and figures are labelled by it."""
    unit: str = Field(default="", max_length=20, pattern=r"^[^\x00-\x1f\x7f]*$")
    """The unit that is shown beside each value, such as `%`."""
    goal: Literal["maximise", "minimise"] = "maximise"
    """Whether larger or smaller values are better."""

    def record(self) -> Objective:
        """The same, as a journal's header has it."""
        return Objective(self.name, self.unit, self.goal)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class SpaceFile(Strict):
    """A whole space file."""

    scale: Scale
    """The factor by which images are enlarged; it may be left out where the networks are a person's own."""
    families: Families
    """Families by name, each with its axes."""
    where: Annotated[list[str], BeforeValidator(_listed)] = Field(default=[], max_length=50)
    """Conditions on axes that every architecture fulfils, such as `features * blocks <= 512`."""
    equivalent: dict[str, str] = Field(default={}, max_length=50)
    """What an axis is to a training, as an expression: where these and all other axes agree, one
    architecture stands for all."""
    limits: Limits = Limits()
    """The largest costs allowed."""
    trainer: str | None = Field(default=None, max_length=400)
    """A training of one's own, such as `train.py:train`: a function in a file beside this one, or in an
    installed module. Left out, it is gpnas's own."""
    objective: ObjectiveSettings | None = None
    """What the values of trainings are. Left out, they are the PSNR of gpnas's own trainings, and with a
    `trainer` they have neither name nor unit."""
    search: SearchSettings = SearchSettings()
    """How much is granted to the search, and how it chooses."""
    recipe: RecipeSettings = RecipeSettings()
    """The recipe by which each architecture is trained."""
    camera: CameraSettings = CameraSettings()
    """The camera that makes LR images of photographs without pairs."""

    @model_validator(mode="before")
    @classmethod
    def _scale_is_of_networks(cls, value: Any, info: ValidationInfo) -> Any:
        own = (info.context or Reading()).own_families
        if own and isinstance(value, dict) and "scale" not in value:
            return {"scale": 2, **value}  # which matters to networks of gpnas alone
        return value

    @property
    def common_recipe(self) -> Recipe:
        """How architectures are trained, those of families with a recipe of their own aside."""
        return Recipe(**self.recipe.given())

    def check_recipes(self, *, own_families: bool) -> None:
        """Checks the common recipe and those of families by the trainers' own rules.

        Args:
            own_families: whether the trainings are a person's own, to which patches are nothing.

        Raises:
            SpaceError: one breaks a rule, or its patches do not fit the scale.
        """
        places: dict[tuple[str, ...], dict[str, Any]] = {("recipe",): {}}
        places |= {("families", name, "recipe"): own for name, own in self.families.recipes.items()}
        for place, own in places.items():
            with located(*place):
                try:
                    patch = Recipe(**self.recipe.given() | own).hr_patch
                except ValueError as error:
                    raise SpaceError(str(error)) from None
        if not own_families and patch % self.scale:
            with located("recipe", "hr_patch"):
                raise SpaceError(f"a multiple of the scale {self.scale} is needed, but got {patch}")

    def search_space(self) -> SearchSpace:
        """The search space that the file describes, without costs (those need the networks).

        Raises:
            SpaceError: a condition or an equivalence cannot be read, or excludes everything.
        """
        return self.narrowed[-1][1]

    @cached_property
    def narrowed(self) -> list[tuple[str, SearchSpace]]:
        """The space as families span it, then what each condition leaves, and what merging leaves.

        Beside each is the condition; it is empty for the first, `equivalent` for the last where there
        are equivalences.
        """
        with located("families"):
            space = self.families.space()
        found = [("", space)]
        for number, condition in enumerate(self.where):
            with located("where", number):
                space = space.where(condition)
            found.append((condition, space))
        for axis, matters in self.equivalent.items():
            # each alone first, so that a mistake is told where it is
            with located("equivalent", axis):
                space.with_equivalent({axis: matters})
        if self.equivalent:
            space = space.with_equivalent(self.equivalent)
            found.append(("equivalent", space))
        return found
