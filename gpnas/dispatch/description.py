"""What a space file means, before anything of it is trained."""

from __future__ import annotations

from typing import Any

from gpnas.config import find_space, read_space_file
from gpnas.dispatch.search import priced
from gpnas.engine import Engine


def describe(space: str) -> dict[str, Any]:
    """Size, feasible share, cheapest and dearest architecture, and the first design of a space file.

    Args:
        space: path of a YAML file, or the name of a shipped one.

    Raises:
        SpaceError: it breaks a rule.
    """
    path = find_space(space)
    file = read_space_file(path)
    whole = file.search_space()
    limits = {name: limit for name, limit in file.limits if limit < float("inf")}
    feasible = priced(whole, file.scale, limits)
    engine = Engine(feasible, seed=0, strategy=file.search.strategy, trials=file.search.trials)
    parameters = feasible.costs["parameters"]

    def row(index: int) -> dict[str, Any]:
        architecture = feasible[index]
        return {
            "name": str(architecture),
            "architecture": architecture.to_json(),
            "parameters": int(parameters[index]),
            "gmacs": float(feasible.costs["gmacs"][index]),
        }

    return {
        "file": str(path),
        "scale": file.scale,
        "size": len(whole),
        "feasible": len(feasible),
        "cheapest": row(int(parameters.argmin())),
        "dearest": row(int(parameters.argmax())),
        "design": [str(candidate.architecture) for candidate in engine.suggest(engine.design)],
    }
