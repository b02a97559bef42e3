"""Tables of real trainings, on which a search can be simulated in seconds.

A table holds a search space, what is known of each architecture before training, and several
independent trainings of each. NAS-Bench-Macro and HPOBench's MLPs are read from
`../shared/data/tables` beside the repository and skipped where they are absent; the DRN table is
made by `drn_table.py`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnas import Architecture, SearchSpace

SHARED = Path(__file__).resolve().parents[2] / "shared/data/tables"
DRN = Path(__file__).resolve().parent / "results/drn_table.csv"
DRN_SIZE = 84
LEFT_OUT = 0.1
"""Share of the networks that a table lacks under a seed, so that repeated searches meet other spaces."""

Values = Mapping[str, int]
Code = tuple[int, ...]


def _itself(code: Code) -> Code:
    return code


@dataclass(frozen=True)
class Table:
    """Architectures, and what each of several trainings of each came to."""

    name: str
    space: SearchSpace
    """One architecture for each network that differs, with costs."""
    runs: NDArray[np.float64]  # (n, replicates)
    """The objective, larger is better, in the order of the space."""
    unit: str
    """Unit in which regrets are shown."""
    factor: float
    """What the objective is multiplied by to be in that unit."""
    representative: Callable[[Code], Code] = _itself
    """The code, among those of equal networks, that the space holds."""

    @property
    def mean(self) -> NDArray[np.float64]:  # (n,)
        """Over the replicates: what a search is judged by."""
        mean: NDArray[np.float64] = self.runs.mean(axis=1)
        return mean

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Values of each axis."""
        return {axis.name: axis.values for axis in self.space.families[0].axes}

    def index(self, values: Values) -> int:
        """The place of a network; of one of several equal codes, that of their representative."""
        code = self.representative(tuple(values[name] for name in self.axes))
        return self.space.index(Architecture("table", dict(zip(self.axes, code, strict=True))))


def _load(
    path: Path,
    name: str,
    *,
    axes: list[str],
    costs: list[str],
    runs: str,
    unit: str,
    factor: float = 1.0,
    representative: Callable[[Code], Code] = _itself,
    seed: int | None = None,
) -> Table:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    replicates = [column for column in rows[0] if column.startswith(runs)]
    found: dict[Code, tuple[list[float], list[float]]] = {}
    for row in rows:
        code = representative(tuple(int(row[axis]) for axis in axes))
        entry = ([float(row[each]) for each in costs], [float(row[each]) for each in replicates])
        if found.setdefault(code, entry) != entry:
            raise ValueError(f"{path.name}: equal networks must have equal rows, but {code} has two")
    if seed is not None:
        codes = list(found)
        kept = np.random.default_rng((seed, 3)).permutation(len(codes))[round(LEFT_OUT * len(codes)) :]
        found = {codes[place]: found[codes[place]] for place in sorted(kept)}
    listed = [
        dict(zip(axes, code, strict=True)) | dict(zip(costs, known, strict=True))
        for code, (known, _) in found.items()
    ]
    space = SearchSpace.from_table(listed, costs=costs)
    values = np.empty((len(space), len(replicates)))
    for code, (_, trainings) in found.items():
        values[space.index(Architecture("table", dict(zip(axes, code, strict=True))))] = trainings
    return Table(name, space, values, unit, factor, representative)


def _macro_representative(code: Code) -> Code:
    """Identities commute within a stage, behind the layer that halves the resolution."""
    merged: list[int] = []
    for start, end in ((0, 2), (2, 5), (5, 8)):
        rest = code[start + 1 : end]
        merged += [code[start], *(layer for layer in rest if layer), *(layer for layer in rest if not layer)]
    return tuple(merged)


def _macro(seed: int | None) -> Table:
    path = SHARED / "nas_bench_macro/table.csv"
    layers = [f"x_l{number}" for number in range(8)]
    return _load(
        path,
        "macro",
        axes=layers,
        costs=["params", "flops"],
        runs="acc_run",
        unit="accuracy, %",
        representative=_macro_representative,
        seed=seed,
    )


def _mlp(data: str, seed: int | None) -> Table:
    return _load(
        SHARED / f"hpobench_mlp/slice_wdb_{data}.csv",
        data,
        axes=["x_width", "x_depth", "x_batch_size"],
        costs=["hidden_macs"],
        runs="acc_run",
        unit="accuracy, 10⁻³",
        factor=1000.0,
        seed=seed,
    )


def _drn(seed: int | None) -> Table:
    table = _load(
        DRN,
        "drn",
        axes=["features", "blocks", "stages"],
        costs=["parameters", "gmacs"],
        runs="psnr_run",
        unit="PSNR, 10⁻³ dB",
        factor=1000.0,
        seed=seed,
    )
    if seed is None and len(table.space) < DRN_SIZE:
        raise FileNotFoundError(f"only {len(table.space)} of {DRN_SIZE} rows yet; run drn_table.py")
    return table


TABLES: dict[str, Callable[[int | None], Table]] = {
    "drn": _drn,
    "phoneme": lambda seed: _mlp("phoneme", seed),
    "car": lambda seed: _mlp("car", seed),
    "vehicle": lambda seed: _mlp("vehicle", seed),
    "macro": _macro,
}


def load_table(name: str, seed: int | None = None) -> Table | None:
    """A table by name; None, and one line, where it is absent.

    Args:
        name: one of `TABLES`.
        seed: of which networks are left out, a tenth; None leaves out none.

    Raises:
        KeyError: there is no table of that name.
    """
    try:
        return TABLES[name](seed)
    except FileNotFoundError as error:
        reason = f"there is no {Path(error.filename).name}" if error.filename else error
        print(f"table {name} is skipped: {reason}", flush=True)
        return None
