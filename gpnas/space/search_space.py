"""The search space: all architectures that a search may choose from, by index.

Glossary: n architectures, d feature columns. An architecture's index is its place in the
enumeration: families in order, each a product of its axes in C order (the last axis runs fastest),
without what the limits exclude and without all but the first of those that are equivalent. A place
in the full enumeration, limits aside, is called `full`.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpnas.errors import SpaceError
from gpnas.records import Architecture
from gpnas.space import encoding, merging, packing
from gpnas.space.axes import LARGEST, Axis, CategoricalAxis, Column, Family, IntegerAxis
from gpnas.space.encoding import Numbers, Places
from gpnas.space.expressions import Expression, Values, cut, evaluate, parse
from gpnas.space.merging import Representatives
from gpnas.space.scope import families_of, levels
from gpnas.space.tables import Columns, Row, columns_of, read_table

if TYPE_CHECKING:
    from torch import Tensor

COUNTED = 5_000
"""Architectures whose costs are counted between two reports of how far it is."""


class SearchSpace:
    """All architectures that a search may choose from.

    Args:
        families: at least one, differently named.
        costs: what is known of each architecture before training, by name, one number per
            architecture in the order of enumeration; given by `with_costs`.
        kept: which of the enumerated architectures are feasible; None keeps all.
        representatives: full places of architectures that were merged with an equivalent one,
            increasing, and the full places of those.

    Raises:
        SpaceError: a rule is broken.
    """

    def __init__(
        self,
        families: Sequence[Family],
        *,
        costs: Mapping[str, Numbers] | None = None,
        kept: Places | None = None,
        representatives: Representatives | None = None,
    ) -> None:
        if not families:
            raise SpaceError("a space must have at least one family, but got none")
        names = [family.name for family in families]
        if len(set(names)) < len(names):
            raise SpaceError(f"families must have different names, but got {names}")
        self.families = tuple(families)
        self._starts = [0]
        for family in self.families:
            self._starts.append(self._starts[-1] + family.size)
        if self.size >= LARGEST:
            raise SpaceError(f"axes must span fewer than 2**62 architectures, but span {self.size}")
        self._kept = kept  # (n,) full places, increasing
        self._representatives = representatives  # (m,), (m,)
        self.costs: dict[str, Numbers] = dict(costs or {})
        if len(self) == 0:
            raise SpaceError("a space must have at least one architecture, but its limits exclude all")
        for name, values in self.costs.items():
            if values.shape != (len(self),) or not bool((values > 0).all()):
                raise SpaceError(
                    f"cost {name}: must be a positive number for each of {len(self)} architectures"
                )

    @property
    def size(self) -> int:
        """How many architectures the families have, limits aside."""
        return self._starts[-1]

    def __len__(self) -> int:
        return self.size if self._kept is None else len(self._kept)

    def __getitem__(self, index: int) -> Architecture:
        if not -len(self) <= index < len(self):
            raise IndexError(f"`0 <= index < {len(self)}` must hold, but got {index}")
        index %= len(self)
        full = index if self._kept is None else int(self._kept[index])
        number = next(i for i in range(len(self.families)) if full < self._starts[i + 1])
        family = self.families[number]
        digits = family.at(full - self._starts[number])
        axes = {axis.name: axis.values[digit] for axis, digit in zip(family.axes, digits, strict=True)}
        return Architecture(family.name, axes)

    def __iter__(self) -> Iterator[Architecture]:
        return (self[index] for index in range(len(self)))

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        try:
            self.index(architecture)
        except SpaceError:
            return False
        return True

    def index(self, architecture: Architecture) -> int:
        """The place of an architecture, or of the equivalent one that stands for it.

        Raises:
            SpaceError: the space does not contain it.
        """
        for family, start in zip(self.families, self._starts, strict=False):
            if family.name != architecture.family or len(family.axes) != len(architecture.axes):
                continue
            given = [(axis.values, architecture.axes.get(axis.name)) for axis in family.axes]
            if any(value not in values for values, value in given):
                continue
            own = family.place([values.index(value) for values, value in given])
            if own is not None:
                full = start + own
                if self._representatives is not None:
                    merged, first = self._representatives
                    place = _place(merged, full)
                    full = full if place is None else int(first[place])
                if self._kept is None:
                    return full
                place = _place(self._kept, full)
                if place is not None:
                    return place
        raise SpaceError(f"{architecture}: must be an architecture of the space, but is not")

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Values per axis where the space is one whole product grid, else None."""
        if self._kept is not None or len(self.families) > 1 or self.families[0].listed is not None:
            return None
        return tuple(len(axis.values) for axis in self.families[0].axes)

    @cached_property
    def places(self) -> tuple[Places, Places]:
        """Family number (n,) and place on each of the family's axes (n, most axes), -1 beyond them."""
        return encoding.digits(self.families, self._full)

    @property
    def digits(self) -> tuple[Tensor, Tensor]:
        """`places` as tensors; whoever asks for them loads PyTorch."""
        import torch

        number, places = self.places
        return torch.from_numpy(number), torch.from_numpy(places)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What each column of `features` means; axes with a single value have none."""
        return encoding.columns(self.families, self.costs)

    @cached_property
    def points(self) -> Numbers:
        """(n, d) features: ordered axes and log costs scaled to [0, 1], categories as codes.

        A column of another family's axis holds .5, so that it adds no distance within a family.
        """
        return encoding.features(self.families, *self.places, self.costs)

    @property
    def features(self) -> Tensor:
        """(n, d) float64, `points` as a tensor; whoever asks for it loads PyTorch."""
        import torch

        return torch.from_numpy(self.points)

    def with_costs(
        self,
        cost: Callable[[Architecture], Mapping[str, float]],
        limits: Mapping[str, float] | None = None,
        *,
        limit_only: Collection[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> SearchSpace:
        """The space with what is known of each architecture before training, and within limits.

        Args:
            cost: the costs of an architecture, by name; positive.
            limits: the largest cost allowed, by name.
            limit_only: costs that limits may name but that are then forgotten: no feature, and no part
                of the fingerprint beyond what their limits exclude.
            progress: called now and then with how many architectures are counted, and of how many.

        Raises:
            SpaceError: a limit names no cost, or the limits leave nothing.
        """
        rows: dict[str, array[float]] = {}
        for number, architecture in enumerate(self):
            if progress is not None and number and number % COUNTED == 0:
                progress(number, len(self))
            for name, value in cost(architecture).items():
                rows.setdefault(name, array("d")).append(value)
        costs = {name: np.array(values) for name, values in rows.items()}
        priced = SearchSpace(
            self.families,
            costs=self.costs | costs,
            kept=self._kept,
            representatives=self._representatives,
        )
        left = priced.within(limits or {})
        left.costs = {name: values for name, values in left.costs.items() if name not in limit_only}
        return left

    def within(self, limits: Mapping[str, float]) -> SearchSpace:
        """The part of the space whose known costs are within limits.

        Args:
            limits: the largest cost allowed, by name.

        Raises:
            SpaceError: a limit names no cost, or the limits leave nothing.
        """
        kept = np.ones(len(self), dtype=np.bool_)
        for name, limit in limits.items():
            if name not in self.costs:
                raise SpaceError(f"a limit must name a cost ({', '.join(self.costs)}), but got {name!r}")
            if not bool((kept & (self.costs[name] <= limit)).any()):
                others = "" if bool(kept.all()) else " of those within the other limits"
                raise SpaceError(
                    f"at least one architecture must be within the limits, but {name}{others} is at least "
                    f"{float(self.costs[name][kept].min()):g} and the limit {limit:g}"
                )
            kept &= self.costs[name] <= limit
        return self._part(kept)

    def where(self, *conditions: str) -> SearchSpace:
        """The part of the space that fulfils conditions on its axes.

        Args:
            conditions: expressions such as `features * blocks <= 512` or `drn.stages < 3 or
                features >= 16`. One says nothing of families that lack an axis that it names.

        Raises:
            SpaceError: a condition cannot be read, names no axis of the space, or excludes everything.
        """
        space = self
        for condition in conditions:
            expression = parse(condition)
            kept = np.ones(len(space), dtype=np.bool_)
            for family in families_of(expression.names, self.families):
                rows, values = space._evaluated(expression, family)
                if values.dtype != bool:
                    raise SpaceError(f"a condition must be true or false, but got the value {cut(condition)}")
                kept[rows] = values
            if not bool(kept.any()):
                raise SpaceError(
                    f"a condition must leave at least one architecture, but {cut(condition)} excludes "
                    f"all {len(space)}"
                )
            space = space._part(kept)
        return space

    def with_equivalent(self, matters: Mapping[str, str]) -> SearchSpace:
        """The space with one architecture for all that are equivalent, the first of them.

        Args:
            matters: what an axis is to a training, as an expression. Two architectures of a family
                are equivalent where these and all other axes agree: `{"rcan.reduction": "max(1,
                features // reduction)"}` merges reductions that leave attention equally wide.

        Raises:
            SpaceError: an expression cannot be read, or names no axis of the space.
        """
        number, digits = self.places
        keys = digits.copy()
        for name, text in matters.items():
            expression = parse(text)
            for family in families_of([name, *expression.names], self.families):
                rows, values = self._evaluated(expression, family)
                axes = [axis.name for axis in self.families[family].axes]
                keys[rows, axes.index(name.rpartition(".")[2])] = merging.codes(values)
        return self._merged(merging.combined(number, keys))

    def with_canonical(self, canonical: Callable[[Architecture], Hashable]) -> SearchSpace:
        """The space with one architecture for all that have the same canonical form, the first of them.

        Args:
            canonical: what decides the outcome of an architecture's training, such as the graph
                that it stands for or its hash; architectures are equivalent where it is equal.
        """
        numbers: dict[Hashable, int] = {}
        return self._merged(np.array([numbers.setdefault(canonical(each), len(numbers)) for each in self]))

    def _evaluated(self, expression: Expression, family: int) -> tuple[Places, Values]:
        """The indices of a family's architectures, and what an expression is for each."""
        number, digits = self.places
        rows = np.flatnonzero(number == family)
        places = digits[rows]
        values = {
            name: level[places[:, axis]]
            for name, (axis, level) in levels(expression, self.families[family]).items()
        }
        return rows, evaluate(expression, values, len(rows))

    def _merged(self, key: Places) -> SearchSpace:
        """The space with the first architecture for each key; key: (n,)."""
        kept, representatives = merging.merged(key, self._full, self._representatives)
        return self._part(kept, representatives)

    @property
    def _full(self) -> Places:
        """(n,) the full place of each architecture."""
        return np.arange(self.size) if self._kept is None else self._kept

    def _part(self, kept: NDArray[np.bool_], representatives: Representatives | None = None) -> SearchSpace:
        """The architectures chosen by kept: (n,) of bool."""
        return SearchSpace(
            self.families,
            costs={name: values[kept] for name, values in self.costs.items()},
            kept=None if self._kept is None and bool(kept.all()) else self._full[kept],
            representatives=representatives or self._representatives,
        )

    @classmethod
    def from_table(
        cls,
        rows: Iterable[Row] | Columns,
        *,
        family: str = "table",
        costs: Sequence[str] = (),
        canonical: str | None = None,
    ) -> SearchSpace:
        """An explicit list of configurations.

        Args:
            rows: axis name to value, the same names in each, of Python's, NumPy's or pandas' types; equal
                rows collapse. An axis of integers is ordered, any other categorical.
            family: its name.
            costs: names in the rows that are not axes but known costs, positive numbers.
            canonical: name in the rows that is not an axis but tells which are equivalent: of those
                where it is equal, the first in the order of enumeration stands for all.

        Raises:
            SpaceError: no rows, different names, or one configuration with two costs.
        """
        columns = rows if isinstance(rows, Columns) else columns_of(rows)
        table = read_table(columns, family, costs, canonical)
        return cls(
            [table.family],
            costs=table.costs,
            kept=table.kept,
            representatives=table.representatives,
        )

    @classmethod
    def joined(cls, spaces: Sequence[SearchSpace]) -> SearchSpace:
        """One space of several without costs, their families one after the other.

        Raises:
            SpaceError: two of them have a family of the same name, or one has costs.
        """
        if any(space.costs for space in spaces):
            raise SpaceError("spaces must be joined before their costs are known, but one has costs")
        whole = all(space._kept is None for space in spaces)
        kept, merged, into, start = [], [], [], 0
        for space in spaces:
            if not whole:
                kept.append(space._full + start)
            if space._representatives is not None:
                merged.append(space._representatives[0] + start)
                into.append(space._representatives[1] + start)
            start += space.size
        return cls(
            [family for space in spaces for family in space.families],
            kept=None if whole else np.concatenate(kept),
            representatives=(np.concatenate(merged), np.concatenate(into)) if merged else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The space as plain JSON; what the limits excluded is in the fingerprint alone."""
        return {
            "families": {
                family.name: {
                    axis.name: {"values": list(axis.values)}
                    | ({"spacing": axis.spacing} if isinstance(axis, IntegerAxis) else {})
                    for axis in family.axes
                }
                for family in self.families
            },
            "architectures": len(self),
        }

    def to_document(self) -> dict[str, Any]:
        """What `to_json` gives, with what is listed and what the limits left, so that `from_document` makes
        the space again."""
        listed = {
            family.name: packing.pack(family.listed.astype(np.int64).flatten())
            for family in self.families
            if family.listed is not None
        }
        return (
            self.to_json()
            | ({"listed": listed} if listed else {})
            | ({} if self._kept is None else {"kept": packing.pack(self._kept)})
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> SearchSpace:
        """The space that `to_document` described, without its costs.

        Only the architectures that stand for their equivalents are found in it.

        Raises:
            SpaceError: it is not such a description, or does not say what the limits left.
        """
        try:
            return cls._described(document)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SpaceError(f"a written space must be as it was written, but {error!r:.200}") from None

    @classmethod
    def _described(cls, document: Mapping[str, Any]) -> SearchSpace:
        families = []
        listed = document.get("listed", {})
        for name, axes in document["families"].items():
            made: list[Axis] = []
            for axis, entry in axes.items():
                if "spacing" in entry:
                    made.append(IntegerAxis(axis, tuple(entry["values"]), entry["spacing"]))
                else:
                    made.append(CategoricalAxis(axis, tuple(entry["values"])))
            places = None
            if name in listed:
                places = packing.unpack(listed[name]).reshape(-1, len(made)).astype(np.int32)
            families.append(Family(name, tuple(made), places))
        kept = document.get("kept")
        space = cls(families, kept=None if kept is None else packing.unpack(kept))
        if len(space) != document["architectures"]:
            raise SpaceError(
                f"a written space must say which of its {space.size} architectures its limits left, but "
                f"got none of {document['architectures']}"
            )
        return space

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the space is: axes, feasible architectures, costs."""
        digest = hashlib.sha256(json.dumps(self.to_json()).encode())
        for family in self.families:
            if family.listed is not None:
                digest.update(family.listed.tobytes())
        if self._kept is not None:
            digest.update(self._kept.tobytes())
        for name, values in self.costs.items():
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()


def _place(listed: Places, number: int) -> int | None:
    """Where a number is in an increasing list; None where it is not."""
    place = int(np.searchsorted(listed, number))
    return place if place < len(listed) and int(listed[place]) == number else None
