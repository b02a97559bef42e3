"""Expressions, limits and equivalences mean what Python and a loop over all architectures say."""

import math
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gpnas import Architecture, SearchSpace, SpaceError
from gpnas.space import CategoricalAxis, Family, IntegerAxis

AXES: dict[str, tuple[int, ...]] = {"a": (1, 2, 3, 8), "b": (1, 5, 16), "c": (2, 4, 7)}
KINDS = ("x", "y")
FAMILY = Family(
    "f",
    (
        *(IntegerAxis(name, values) for name, values in AXES.items()),
        CategoricalAxis("kind", KINDS),
        CategoricalAxis("on", (True, False)),
    ),
)
SPACE = SearchSpace([FAMILY])
PYTHON: dict[str, Any] = {"__builtins__": {}, "min": min, "max": max, "abs": abs, "log2": math.log2}

plain = st.sampled_from(["a", "b", "c", "f.a", "f.b", "1", "2", "3", "12", "0.5", "2.25"])


def _numbers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operations = st.sampled_from(["+", "-", "*", "/", "//", "%"])
    return st.one_of(
        st.builds(lambda x, op, y: f"({x} {op} {y})", inner, operations, inner),
        st.builds(lambda name, x, y: f"{name}({x}, {y})", st.sampled_from(["min", "max"]), inner, inner),
        st.builds(lambda x: f"abs({x})", inner),
        st.builds(lambda x: f"log2(1 + abs({x}))", inner),
        st.builds(lambda x: f"-{x}", inner),
        # of integers alone, whose powers are exact in Python as well
        st.builds(lambda x, y: f"{x} ** {y}", st.sampled_from("abc"), st.sampled_from("0123bc")),
    )


numbers = st.recursive(plain, _numbers, max_leaves=5)
comparisons = st.one_of(
    st.builds(
        lambda x, op, y: f"{x} {op} {y}",
        numbers,
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        numbers,
    ),
    st.builds(lambda x, y, z: f"{x} <= {y} < {z}", plain, plain, plain),
    st.sampled_from(["kind == 'x'", "'y' != f.kind", "on", "not on", "on == True", "on + 1 > 1"]),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(lambda x, op, y: f"({x} {op} {y})", inner, st.sampled_from(["and", "or"]), inner),
        st.builds(lambda x: f"not ({x})", inner),
    ),
    max_leaves=4,
)


class Dotted:
    """What a family's name is to Python's `eval`: its axes, after a dot."""

    def __init__(self, axes: Any) -> None:
        self.__dict__.update(axes)


def by_python(text: str, architectures: SearchSpace) -> list[Any]:
    code = compile(text, "condition", "eval")
    return [eval(code, PYTHON | dict(each.axes) | {"f": Dotted(each.axes)}) for each in architectures]


@settings(max_examples=100, deadline=None)
@given(conditions)
@example("(a <= a < a and a < (a / (1 // 2)))")
@example("a < a < a / (a - a) or a > 1")
def test_conditions_keep_what_pythons_eval_keeps(condition: str) -> None:
    assume(len(condition) < 250)
    try:
        truths = by_python(condition, SPACE)
    except ZeroDivisionError:
        with pytest.raises(SpaceError, match=r"must not be zero|2\*\*53|must name an axis"):
            SPACE.where(condition)
        return
    expected = [each for each, truth in zip(SPACE, truths, strict=True) if truth]
    try:
        found = list(SPACE.where(condition))
    except SpaceError as error:
        refused = str(error)
        assume("must name an axis" not in refused and "2**53" not in refused)
        found = []
        if "excludes all" not in refused:
            raise
    assert found == expected


@settings(max_examples=50, deadline=None)
@given(numbers, numbers)
def test_equivalent_architectures_share_their_first(first: str, second: str) -> None:
    """Brute force: a dictionary from what is left of an architecture to the first that has it."""
    assume(max(len(first), len(second)) < 250)
    try:
        space = SPACE.with_equivalent({"a": first, "f.b": second})
    except SpaceError as error:
        assume("must name an axis" not in str(error) and "2**53" not in str(error))
        with pytest.raises(ZeroDivisionError):
            by_python(first, SPACE) + by_python(second, SPACE)
        return
    representatives: dict[Any, Architecture] = {}
    evaluated = zip(SPACE, by_python(first, SPACE), by_python(second, SPACE), strict=True)
    for each, one, other in evaluated:
        key = (one, other, *(each.axes[name] for name in ("c", "kind", "on")))
        representatives.setdefault(key, each)
        assert space[space.index(each)] == representatives[key]
    assert list(space) == list(representatives.values())


@given(
    st.lists(st.integers(0, 6), min_size=36, max_size=36),
    st.lists(st.integers(0, 3), min_size=36, max_size=36),
)
@settings(deadline=None)
def test_canonical_forms_may_be_chained_and_limited(one: list[int], other: list[int]) -> None:
    family = Family("g", tuple(IntegerAxis(name, values) for name, values in AXES.items()))
    whole = SearchSpace([family])
    everything = list(whole)
    coarse = whole.with_canonical(lambda each: one[whole.index(each)])
    left = list(coarse)
    twice = coarse.with_canonical(lambda each: other[whole.index(each)])
    for each in everything:
        middle = next(a for a in everything if one[whole.index(a)] == one[whole.index(each)])
        final = next(a for a in left if other[whole.index(a)] == other[whole.index(middle)])
        assert twice[twice.index(each)] == final
    limited = twice.with_costs(lambda each: {"cost": float(each.axes["a"])}, {"cost": 100.0})
    assert [limited.index(each) for each in twice] == list(range(len(twice)))
    assert limited.index(everything[-1]) == twice.index(everything[-1])


@settings(max_examples=50, deadline=None)
@given(st.sets(st.tuples(*(st.sampled_from(values) for values in AXES.values())), min_size=1), st.data())
def test_tables_round_trip_and_merge_by_their_canonical_column(
    points: set[tuple[int, ...]], data: st.DataObject
) -> None:
    listed = data.draw(st.permutations(sorted(points)))
    keys = {point: data.draw(st.integers(0, 3)) for point in listed}
    rows = [dict(zip(AXES, point, strict=True)) | {"hash": keys[point]} for point in listed]
    space = SearchSpace.from_table(rows, canonical="hash")
    first = {key: min(point for point in points if keys[point] == key) for key in set(keys.values())}
    assert [tuple(each.axes.values()) for each in space] == sorted(first.values())
    for point in listed:
        place = space.index(Architecture("table", dict(zip(AXES, point, strict=True))))
        assert tuple(space[place].axes.values()) == first[keys[point]]


def test_indices_round_trip_through_every_narrowing() -> None:
    other = Family("g", (IntegerAxis("a", (1, 4, 9), "log"), CategoricalAxis("kind", KINDS)))
    space = SearchSpace.joined([SPACE, SearchSpace([other]), SearchSpace.from_table([{"w": 3}, {"w": 1}])])
    assert [space.index(each) for each in space] == list(range(len(space)))
    narrowed = space.where("f.a * b <= 40", "a > 1").with_equivalent({"c": "min(c, 4)"})
    narrowed = narrowed.with_costs(lambda each: {"sum": 1.0 + sum(map(len, map(str, each.axes.values())))})
    assert [narrowed.index(each) for each in narrowed] == list(range(len(narrowed)))
    expected = [
        each
        for each in space
        if (each.family != "f" or int(each.axes["a"]) * int(each.axes["b"]) <= 40)
        and ("a" not in each.axes or int(each.axes["a"]) > 1)
        and each.axes.get("c") != 7
    ]
    assert list(narrowed) == expected
    assert narrowed.features.shape == (len(narrowed), len(narrowed.columns))


def test_columns_of_other_families_are_neutral() -> None:
    families = [
        Family("drn", (IntegerAxis("features", (8, 16, 32), "log"), IntegerAxis("stages", (1, 2)))),
        Family("rcan", (IntegerAxis("features", (8, 64)), IntegerAxis("groups", (1, 2, 3)))),
    ]
    space = SearchSpace(families)
    names = [(column.name, column.family) for column in space.columns]
    for row, architecture in zip(space.features, space, strict=True):
        for value, (name, family) in zip(row.tolist(), names, strict=True):
            if family is not None and families[family].name != architecture.family:
                assert value == 0.5
            elif (name, family) == ("features", 0):
                assert value == pytest.approx(math.log2(int(architecture.axes["features"]) / 8) / 2)
    assert len(space.features.unique(dim=0)) == 3 * 2 + 2 * 3
