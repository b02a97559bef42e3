"""What a space file means, before anything of it is trained."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from gpnas.config import find_space, read_space_file
from gpnas.design import first
from gpnas.errors import SpaceError
from gpnas.run.defaults import defaults_of
from gpnas.run.networks import check_networks
from gpnas.run.pricing import memory_of, priced, within_memory
from gpnas.space import Axis, CategoricalAxis, SearchSpace
from gpnas_trainers.families import declare
from gpnas_trainers.own import own_family
from gpnas_trainers.recipe import Recipe


def describe(
    space: str, progress: Callable[[int, int], None] | None = None, *, own_families: bool = False
) -> dict[str, Any]:
    """Size, axes, what each limit excludes, cheapest and dearest architecture, and the first design.

    Args:
        space: path of a YAML file, or the name of a shipped one.
        progress: called with how many architectures are counted, and of how many.
        own_families: whether it is for a loop of one's own, and may name any family.

    Returns:
        Plain JSON values. `limits` has what narrows the space in turn: `excludes` counts what a line
        takes of what those before it leave, and `leaves` what is then left. `cheapest` and `dearest` are None
        where the trainings are a person's own, whose networks nobody can count.

    Raises:
        SpaceError: the file breaks a rule, or its limits leave nothing.
    """
    path = find_space(space)
    file = read_space_file(path, own_families=own_families)
    recipe = file.common_recipe
    for name, code in file.families.codes.items():
        declare(own_family(name, code))
    check_networks(
        file.search_space(), file.scale, file.families.codes, hr_patch=recipe.hr_patch, progress=progress
    )
    steps = list(file.narrowed)
    own = own_families or file.trainer is not None
    try:
        if own and file.limits.given():
            raise SpaceError(
                "limits need networks that gpnas can count, but those are your own; leave them out"
            )
        feasible = steps[-1][1] if own else priced(steps[-1][1], file.scale, progress=progress)
        for name, limit in file.limits.given().items():
            if name == "memory":
                feasible = within_memory(feasible, file.scale, limit, recipe, progress=progress)
            else:
                feasible = feasible.within({name: limit})
            steps.append((f"{name} <= {limit:,.10g}", feasible))
    except SpaceError as error:
        raise SpaceError(f"{path}: `limits`: {error}") from None
    defaults = defaults_of(feasible, file.families.defaults, published=file.search.defaults_first)
    begun = {each.family: each for each in defaults}
    design = dict.fromkeys(  # the first trial of a family is its default
        begun.pop(each.family, each) for each in first(feasible, 0, file.search.strategy, file.search.trials)
    )
    extremes: dict[str, Any] = {"cheapest": None, "dearest": None}
    if not own:
        parameters = feasible.costs["parameters"]
        for word, place in (("cheapest", parameters.argmin()), ("dearest", parameters.argmax())):
            extremes[word] = _row(feasible, int(place), file.scale, recipe)
    size = len(steps[0][1])
    return {
        "file": str(path),
        "scale": file.scale,
        "size": size,
        "feasible": len(feasible),
        "share": len(feasible) / size,
        "limits": [
            {"limit": text, "excludes": len(before) - len(after), "leaves": len(after)}
            for (_, before), (text, after) in pairwise(steps)
        ],
        "families": _families(feasible),
        **extremes,
        "design": list(map(str, design)),
    }


def _families(space: SearchSpace) -> dict[str, Any]:
    counts = np.bincount(space.places[0], minlength=len(space.families)).tolist()
    return {
        family.name: {"architectures": count, "axes": [_axis(axis) for axis in family.axes]}
        for family, count in zip(space.families, counts, strict=True)
    }


def _axis(axis: Axis) -> dict[str, Any]:
    kind = "categorical" if isinstance(axis, CategoricalAxis) else axis.spacing
    return {
        "name": axis.name,
        "kind": "fixed" if len(axis.values) == 1 else kind,
        "values": list(axis.values),
    }


def _row(space: SearchSpace, index: int, scale: int, recipe: Recipe) -> dict[str, Any]:
    """An architecture and its costs."""
    architecture = space[index]
    costs = {name: float(values[index]) for name, values in space.costs.items()}
    return {
        "name": str(architecture),
        "architecture": architecture.to_json(),
        **costs,
        "parameters": int(costs["parameters"]),
        "memory": int(memory_of(architecture, scale, recipe)),
    }
