"""Spaces enumerate exactly what their axes span, whatever is asked of them."""

import itertools
import json
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gpnas_trainers
from gpnas import Architecture, SearchSpace, SpaceError
from gpnas.records import AxisValue
from gpnas.space import Axis, CategoricalAxis, Family, IntegerAxis
from gpnas_trainers import cost

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


SMALL = SearchSpace(
    [
        Family(
            "drn",
            tuple(
                IntegerAxis(n, v) for n, v in (("features", (4, 8)), ("blocks", (1, 2)), ("stages", (1, 2)))
            ),
        ),
        Family(
            "rcan",
            (
                IntegerAxis("features", (8, 12)),
                IntegerAxis("groups", (1, 2)),
                IntegerAxis("blocks", (1,)),
                IntegerAxis("reduction", (4, 8, 16, 32), "log"),
            ),
        ),
    ]
)


def weights(architecture: Architecture) -> list[tuple[int, ...]]:
    """Shapes of everything that a built network learns."""
    network = gpnas_trainers.build(architecture.family, 2, **architecture.axes)
    return [tuple(parameter.shape) for parameter in network.parameters()]


def count(architecture: Architecture) -> int:
    return sum(torch.Size(shape).numel() for shape in weights(architecture))


def parameters(architecture: Architecture) -> dict[str, float]:
    return {"parameters": float(cost.parameters(architecture.family, 2, **architecture.axes))}


def test_a_parameter_limit_keeps_the_networks_that_have_no_more() -> None:
    counts = {architecture: count(architecture) for architecture in SMALL}
    for limit in (min(counts.values()), 10_000, max(counts.values())):
        space = SMALL.with_costs(parameters, {"parameters": limit})
        assert list(space) == [each for each in SMALL if counts[each] <= limit]
        assert space.costs["parameters"].tolist() == [counts[each] for each in space]


def test_equivalent_reductions_build_networks_of_equal_shapes() -> None:
    space = SMALL.with_equivalent({"rcan.reduction": "max(1, features // reduction)"})
    assert len({(str(weights(each))) for each in SMALL if each.family == "rcan"}) == len(
        [each for each in space if each.family == "rcan"]
    )
    for each in SMALL:
        assert weights(space[space.index(each)]) == weights(each)


def test_limits_that_exclude_all_together_say_so() -> None:
    space = SearchSpace([Family("f", (IntegerAxis("a", (1, 2, 3)),))])
    priced = space.with_costs(
        lambda each: {"low": float(each.axes["a"]), "high": 4.0 - float(each.axes["a"])}
    )
    assert [each.axes["a"] for each in priced.within({"low": 2, "high": 2})] == [2]
    with pytest.raises(
        SpaceError, match="high of those within the other limits is at least 3 and the limit 1"
    ):
        priced.within({"low": 1, "high": 1})
    with pytest.raises(SpaceError, match=r"must name a cost \(low, high\), but got 'memory'"):
        priced.within({"memory": 1})


LISTED = "numbers, axes, + - * / // % **, comparisons, and, or, not, min, max, abs, log2"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("featuers < 9", "an expression must name axes of the space (drn: features, blocks, stages; "
         "rcan: features, groups, blocks, reduction), but got `featuers`"),
        ("rcan.stages < 2", "but got `rcan.stages`"),
        ("stages < groups", "an expression must name axes of one family, but none has `stages` and `groups`"),
        ("features > 99", "must leave at least one architecture, but `features > 99` excludes all 24"),
        ("features", "a condition must be true or false, but got the value `features`"),
        ("features <", "an expression must be like `a * b <= 9`, but got `features <` (invalid syntax)"),
        ("", "an expression must be like `a * b <= 9`, but got `` (invalid syntax)"),
        ("1 < 2", "an expression must name an axis, but got `1 < 2`"),
        ("__import__('os')", "a function must be one of min, max, abs, log2, with plain arguments, "
         "but got `__import__('os')`"),
        ("features.bit_length() < 3", "but got `features.bit_length()`"),
        ("().__class__", "a dot must follow the name of a family, but got `().__class__`"),
        ("features.__class__ == 1", "but got `features.__class__`"),
        ("features < 9**9**9", "an exponent must be an integer from 0 to 64, but got `9 ** 9 ** 9`"),
        ("9**9**9", "an expression must name an axis, but got `9**9**9`"),
        ("features ** blocks ** 99 < 3", "an exponent must be an integer from 0 to 64"),
        ("features ** 64 < 3", "a number must be at most 2**53 on the way, but `features ** 64` exceeds it"),
        ("features < 1e999", "a number must be at most 2**53, but got"),
        ("features < 9007199254740993", "a number must be at most 2**53, but got `9007199254740993`"),
        ("x" * 10_000, "an expression must have at most 500 characters, but has 10000"),
        ("-" * 200 + "features < 3", "an expression must have at most 100 parts, but has 203"),
        ("[features for x in stages]", "but got `[features for x in stages]`"),
        ("(lambda: features)() < 3", "a function must be one of"),
        ("(features := 3) < 4", f"an expression may have {LISTED}, but got `(features := 3)`"),
        ("features if blocks else 3", "but got `features if blocks else 3`"),
        ("f'{features}' == 'a'", f"an expression may have {LISTED}"),
        ("features @ 3 < 3", "but got `features @ 3`"),
        ("features << 99 < 3", "but got `features << 99`"),
        ("features is 3", "but got `features is 3`"),
        ("min(features) < 3", "min must have at least 2 arguments, but got `min(features)`"),
        ("abs(features, 2) < 3", "abs must have one argument, but got `abs(features, 2)`"),
        ("min(*features, 2) < 3", "but got `*features`"),
        ("min(features, 2, key=3) < 3", "with plain arguments, but got"),
        ("features < 3j", "but got `3j`"),
        ("features < ...", "but got `...`"),
        ("features < 'a'", "a name must be compared with a name, but got `features < 'a'`"),
        ("features and blocks < 3", "and, or and not must join what is true or false, but got `features`"),
        ("12 / (stages - 1) < 8", "a divisor must not be zero, but `stages - 1` is in `12 / (stages - 1)`"),
        ("log2(stages - 1) < 8", "log2 must have a positive argument, but got `log2(stages - 1)`"),
        ("features < 3\x00", "an expression must be like `a * b <= 9`"),
    ],
)  # fmt: skip
def test_a_bad_condition_is_refused_by_what_is_bad_in_it(condition: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        SMALL.where(condition)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_is_refused_never_runs() -> None:
    for condition in ("__import__('this').s == features", "features.__init__.__globals__ == 1"):
        with pytest.raises(SpaceError):
            SMALL.where(condition)
    assert "this" not in sys.modules


def test_a_condition_says_nothing_of_families_that_lack_its_axes() -> None:
    space = SMALL.where("drn.stages < 2 or features >= 8")
    assert [each for each in SMALL if each.family == "rcan"] == [
        each for each in space if each.family == "rcan"
    ]
    assert {(each.axes["features"], each.axes["stages"]) for each in space if each.family == "drn"} == {
        (4, 1), (8, 1), (8, 2)
    }  # fmt: skip


def test_what_is_settled_on_the_left_is_not_worked_out() -> None:
    space = SMALL.where("stages == 1 or features // (stages - 1) <= 4")
    assert {(each.axes["features"], each.axes["stages"]) for each in space if each.family == "drn"} == {
        (4, 1), (4, 2), (8, 1)
    }  # fmt: skip


def test_conditions_are_part_of_the_fingerprint_by_what_they_exclude() -> None:
    prints = [SMALL.where(text).fingerprint for text in ("features < 9", "features < 8", "8 > features")]
    assert SMALL.fingerprint not in prints
    assert prints[0] != prints[1] == prints[2]


def test_names_are_compared_with_choices() -> None:
    space = SearchSpace(
        [Family("f", (CategoricalAxis("act", ("relu", "gelu", 3)), IntegerAxis("a", (1, 2))))]
    )
    assert [each.axes["act"] for each in space.where("act == 'relu' or f.act != 'gelu' and a > 1")] == [
        "relu", "relu", 3
    ]  # fmt: skip
    for condition, message in [
        ("act == 'rleu'", "`act` must be compared with one of relu, gelu, 3, but got 'rleu'"),
        ("act < 'relu'", "names must be compared with == or !="),
        ("act * 2 < 3", "a name must only be compared with == or !=, but got `act` as a number"),
    ]:
        with pytest.raises(SpaceError, match=message.replace("*", r"\*")):
            space.where(condition)


def test_conditions_reach_over_a_million_architectures() -> None:
    space = SearchSpace([Family("f", tuple(IntegerAxis(name, tuple(range(1, 101))) for name in "abc"))])
    kept = space.where("a * b <= 512", "f.c < 30 or a % 3 == 1")
    pairs = sum(1 for a in range(1, 101) for b in range(1, 101) if a * b <= 512)
    odd = sum(1 for a in range(1, 101) for b in range(1, 101) if a * b <= 512 and a % 3 == 1)
    assert len(kept) == 29 * pairs + 71 * odd
    assert len(space.with_equivalent({"a": "min(a, b)", "b": "max(a, b)"})) == 100 * (100 * 101 // 2)


def test_equivalent_architectures_are_contained_and_share_an_index() -> None:
    space = SearchSpace([Family("f", (IntegerAxis("a", (1, 2)), IntegerAxis("b", (1, 2))))])
    merged = space.with_canonical(lambda each: frozenset(each.axes.values()))
    assert [tuple(each.axes.values()) for each in merged] == [(1, 1), (1, 2), (2, 2)]
    other = Architecture("f", {"a": 2, "b": 1})
    assert other in merged
    assert merged[merged.index(other)] == Architecture("f", {"a": 1, "b": 2})
    assert merged.fingerprint != space.fingerprint
    with pytest.raises(SpaceError, match="must be an architecture of the space"):
        merged.where("a == b").index(other)


def test_axes_may_span_more_than_can_be_listed_but_not_more_than_can_be_numbered() -> None:
    long = tuple(range(1, 1001))
    assert len(SearchSpace([Family("f", tuple(IntegerAxis(n, long) for n in "abcdef"))])) == 10**18
    with pytest.raises(SpaceError, match=r"fewer than 2\*\*62 architectures, but span 10{21}"):
        SearchSpace([Family("f", tuple(IntegerAxis(n, long) for n in "abcdefg"))])


def test_spaces_are_joined_before_they_are_priced() -> None:
    one = SearchSpace.from_table([{"w": 1}, {"w": 2}], costs=[])
    priced = SearchSpace.from_table([{"w": 1, "c": 2.0}], family="other", costs=["c"])
    with pytest.raises(SpaceError, match="must be joined before their costs are known"):
        SearchSpace.joined([one, priced])
    with pytest.raises(SpaceError, match="different names"):
        SearchSpace.joined([one, one])


@given(families(), st.integers(1, 60))
def test_a_written_space_is_made_again(listed: list[Family], limit: int) -> None:
    """From JSON, with what its limits left; costs, which it lacks, counted anew."""

    def cost_of(architecture: Architecture) -> dict[str, float]:
        return {"size": 1.0 + sum(map(len, map(str, architecture.axes.values())))}

    space = SearchSpace(listed)
    least = min(cost_of(architecture)["size"] for architecture in space)
    limited = space.with_costs(cost_of, {"size": max(least, limit)})
    for written in (space, limited):
        read = SearchSpace.from_document(json.loads(json.dumps(written.to_document())))
        assert list(read) == list(written)
        priced = read.with_costs(cost_of) if written.costs else read
        assert priced.fingerprint == written.fingerprint
        assert torch.equal(priced.features, written.features)
    if len(limited) < len(space):
        with pytest.raises(SpaceError, match="which of its"):
            SearchSpace.from_document(limited.to_json())


def test_a_written_space_of_a_wide_table_is_short() -> None:
    rows = [{"a": 7**n, "b": 3**n, "c": n, "d": str(n)} for n in range(20)]
    space = SearchSpace.from_table(rows)
    document = json.dumps(space.to_document())
    assert list(SearchSpace.from_document(json.loads(document))) == list(space)
    half = SearchSpace([Family("f", tuple(IntegerAxis(name, tuple(range(100))) for name in "abc"))]).where(
        "a + b < c"
    )
    packed = half.to_document()["kept"]
    assert len(packed) < len(half) / 4
    assert len(SearchSpace.from_document(half.to_document())) == len(half)


def test_counting_says_how_far_it_is() -> None:
    space = SearchSpace.from_table([{"width": width} for width in range(12_000)])
    told: list[tuple[int, int]] = []
    space.with_costs(lambda _: {"parameters": 1.0}, progress=lambda done, total: told.append((done, total)))
    assert told == [(5_000, 12_000), (10_000, 12_000)]
