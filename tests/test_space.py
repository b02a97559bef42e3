"""Spaces enumerate exactly what their axes span, whatever is asked of them."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpnas import Architecture, SearchSpace, SpaceError
from gpnas.records import AxisValue
from gpnas.space import Axis, CategoricalAxis, Family, IntegerAxis

integer_axes = st.builds(
    lambda values, spacing: (tuple(sorted(values)), spacing),
    st.sets(st.integers(1, 40), min_size=1, max_size=4),
    st.sampled_from(["linear", "log"]),
)


@st.composite
def families(draw: st.DrawFn) -> list[Family]:
    built = []
    for number in range(draw(st.integers(1, 3))):
        axes: list[Axis] = []
        for place, (values, spacing) in enumerate(draw(st.lists(integer_axes, min_size=1, max_size=3))):
            axes.append(IntegerAxis(f"a{place}", values, spacing))
        if draw(st.booleans()):
            axes.append(CategoricalAxis("kind", ("x", "y", "z")))
        built.append(Family(f"f{number}", tuple(axes)))
    return built


@given(families())
def test_enumeration_equals_the_product_written_out(listed: list[Family]) -> None:
    space = SearchSpace(listed)
    expected = [
        Architecture(family.name, dict(zip([axis.name for axis in family.axes], values, strict=True)))
        for family in listed
        for values in itertools.product(*(axis.values for axis in family.axes))
    ]
    assert list(space) == expected
    assert [space.index(architecture) for architecture in expected] == list(range(len(space)))


@given(families(), st.integers(1, 60))
def test_limits_keep_exactly_what_is_within(listed: list[Family], limit: int) -> None:
    def cost(architecture: Architecture) -> dict[str, float]:
        return {"sum": float(sum(v for v in architecture.axes.values() if isinstance(v, int)))}

    expected = [a for a in SearchSpace(listed) if cost(a)["sum"] <= limit]
    if not expected:
        with pytest.raises(SpaceError, match="within the limits, but sum is at least"):
            SearchSpace(listed).with_costs(cost, {"sum": limit})
        return
    space = SearchSpace(listed).with_costs(cost, {"sum": limit})
    assert list(space) == expected
    assert [space.index(architecture) for architecture in expected] == list(range(len(expected)))
    assert space.costs["sum"].tolist() == [cost(a)["sum"] for a in expected]


@given(families())
def test_features_lie_in_the_unit_cube_and_tell_architectures_apart(listed: list[Family]) -> None:
    space = SearchSpace(listed)
    features = space.features
    assert features.dtype == torch.float64
    assert len(space.columns) in (features.shape[1], 0)
    for column, kind in zip(features.T, (c.kind for c in space.columns), strict=False):
        if kind in ("ordered", "cost"):
            assert 0 <= float(column.min()) <= float(column.max()) <= 1
    assert len(features.unique(dim=0)) == len(space)


def test_log_axes_have_equal_steps_between_equal_ratios() -> None:
    space = SearchSpace([Family("f", (IntegerAxis("width", (8, 16, 32), "log"),))])
    torch.testing.assert_close(space.features[:, 0], torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))


def test_a_million_architectures_are_not_listed_as_objects() -> None:
    axes = tuple(IntegerAxis(name, tuple(range(1, 101))) for name in "abc")
    space = SearchSpace([Family("f", axes)])
    assert len(space) == 10**6
    assert space[987_654] == Architecture("f", {"a": 99, "b": 77, "c": 55})
    assert space.index(space[123_456]) == 123_456
    assert space.grid == (100, 100, 100)


def test_tables_collapse_equal_rows_and_keep_costs_beside_them() -> None:
    rows: list[dict[str, AxisValue]] = [
        {"w": 2, "kind": "a", "flops": 4.0},
        {"w": 1, "kind": "b", "flops": 3.0},
    ] * 2
    space = SearchSpace.from_table(rows, costs=["flops"])
    assert [dict(a.axes) for a in space] == [{"w": 1, "kind": "b"}, {"w": 2, "kind": "a"}]
    assert space.costs["flops"].tolist() == [3.0, 4.0]
    with pytest.raises(SpaceError, match="equal costs"):
        SearchSpace.from_table([rows[0], rows[0] | {"flops": 5.0}], costs=["flops"])


def test_equal_spaces_have_equal_fingerprints_and_others_have_not() -> None:
    def space(high: int, limit: float) -> SearchSpace:
        listed = [Family("f", (IntegerAxis("a", tuple(range(1, high))),))]
        return SearchSpace(listed).with_costs(lambda a: {"c": float(a.axes["a"])}, {"c": limit})

    assert space(5, 3).fingerprint == space(5, 3).fingerprint
    assert len({space(5, 3).fingerprint, space(6, 3).fingerprint, space(5, 2).fingerprint}) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntegerAxis("a", ()), "at least one value"),
        (lambda: IntegerAxis("a", (3, 1)), "values must increase, but got 3 before 1"),
        (lambda: CategoricalAxis("a", ("x", "x")), "choices must differ"),
        (lambda: Family("f", ()), "at least one axis"),
        (lambda: SearchSpace([]), "at least one family"),
        (lambda: SearchSpace.from_table([]), "at least one row"),
    ],
)
def test_what_breaks_a_rule_is_named(make: object, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()  # type: ignore[operator]


def test_a_foreign_architecture_is_not_contained() -> None:
    space = SearchSpace([Family("f", (IntegerAxis("a", (1, 2)),))])
    assert Architecture("f", {"a": 2}) in space
    for other in (Architecture("g", {"a": 2}), Architecture("f", {"a": 3}), Architecture("f", {"b": 2})):
        assert other not in space
        with pytest.raises(SpaceError, match="must be an architecture of the space"):
            space.index(other)
