"""What a file says of how networks are trained: of all of them, or of one family's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from gpnas.config.mistakes import Strict
from gpnas_trainers.recipe import rules

SHARED = ("steps", "batch_size", "hr_patch", "evaluate_every", "micro_batch")
"""Settings that all families have in common, so that their costs and curves can be compared."""


class Settings(Strict):
    """Settings of which a file names some, and the others take the trainers' default."""

    def given(self) -> dict[str, Any]:
        """The settings that the file names."""
        return self.model_dump(exclude_none=True)


def _model(name: str, settings: Iterable[str]) -> type[Settings]:
    # the trainers' own `Recipe` checks the values
    fields: dict[str, Any] = {each: (rules()[each].kind | None, None) for each in settings}
    return create_model(name, __base__=Settings, **fields)


if TYPE_CHECKING:
    RecipeSettings = Settings
    FamilyRecipe = Settings
else:
    RecipeSettings = _model("RecipeSettings", rules())
    FamilyRecipe = _model("FamilyRecipe", [name for name in rules() if name not in SHARED])
