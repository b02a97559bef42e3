"""What a search begins with: each family's published network, scaled to the space."""

import math
from pathlib import Path

import pytest

from gpnas import Architecture, Candidate, Engine, Fidelity, SearchSpace, load_space
from gpnas.config import read_space_file
from gpnas.errors import SpaceError
from gpnas.journal import Journal
from gpnas.opening import Wishes, header_of
from gpnas.run.defaults import defaults_of
from gpnas_trainers import cost

FILE = """
scale: 2
families:
  drn: {features: {low: 8, high: 64, step: 8}, blocks: {low: 1, high: 8}, stages: [1, 2, 3]}
  plksr: {features: [16, 24], blocks: [2, 4], kernel: [9, 13, 17], attention: [true, false]}
  edsr:
    features: {low: 8, high: 40, step: 4}
    blocks: {low: 1, high: 6}
    default: {features: 16, blocks: 3}
limits: {parameters: 150e3}
"""
PUBLISHED = {
    "drn": {"features": 128, "blocks": 18, "stages": 3},
    "plksr": {"features": 64, "blocks": 28, "kernel": 17},
    "edsr": {"features": 16, "blocks": 3},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(FILE)
    return path


def feasible(path: Path) -> SearchSpace:
    def count(each: Architecture) -> dict[str, float]:
        return {"parameters": float(cost.parameters(each.family, 2, **each.axes))}

    return load_space(path).with_costs(count, {"parameters": 150e3})


def test_a_default_is_the_nearest_that_the_limits_leave(file: Path) -> None:
    """By brute force: all architectures, with the logarithms of their axes."""
    space = feasible(file)
    found = defaults_of(space, read_space_file(file).families.defaults, published=True)
    assert [each.family for each in found] == ["drn", "edsr", "plksr"]
    for each in found:
        wanted = PUBLISHED[each.family]

        def apart(other: Architecture, wanted: dict[str, int] = wanted) -> float:
            return sum((math.log(float(other.axes[name]) / value)) ** 2 for name, value in wanted.items())

        own = [other for other in space if other.family == each.family]
        assert apart(each) == pytest.approx(min(map(apart, own)))
    assert found[1] == Architecture("edsr", {"features": 16, "blocks": 3})
    drn = found[0].axes
    # limits shrink both: neither is what it would be without the other
    assert 8 < int(drn["features"]) < 64
    assert 1 < int(drn["blocks"]) < 8


def test_only_families_that_are_named_begin_so_where_nothing_else_is_asked(file: Path) -> None:
    space = feasible(file)
    named = {"edsr": {"blocks": 2}}
    (only,) = defaults_of(space, named, published=False)
    assert only.axes["blocks"] == 2
    assert defaults_of(space, {}, published=False) == ()
    with pytest.raises(
        SpaceError, match=r"`families.edsr.default` must name axes of the family \(features, "
    ):
        defaults_of(space, {"edsr": {"block": 2}}, published=False)


def test_the_first_trial_of_a_family_is_its_default(file: Path) -> None:
    """Whatever was vetoed is not suggested; a resumed engine says the same."""
    space = feasible(file)
    defaults = {
        each.family: each
        for each in defaults_of(space, read_space_file(file).families.defaults, published=True)
    }

    def fresh() -> Engine:
        engine = Engine(space, seed=3, trials=40, design=40, defaults=list(defaults.values()))
        engine.allow(defaults["plksr"], False)
        return engine

    engine, begun = fresh(), set()
    candidates = engine.suggest(12)
    for each in candidates:
        family = each.architecture.family
        if family not in begun and family != "plksr":
            assert (each.architecture, each.decision["phase"]) == (defaults[family], "default")
        else:
            assert each.decision["phase"] == "mutual information"
        begun.add(family)
    assert begun == set(defaults)
    assert defaults["plksr"] not in [each.architecture for each in candidates]
    resumed = fresh()
    resumed.replay(candidates[:5], ())
    assert resumed.suggest(7) == candidates[5:]


def test_a_family_that_a_person_began_has_no_default_any_more(file: Path) -> None:
    space = feasible(file)
    defaults = defaults_of(space, {}, published=True)
    engine = Engine(space, seed=3, trials=9, design=9, defaults=defaults)
    wanted = [next(each for each in space if each.family == default.family) for default in defaults]
    assert not set(map(str, wanted)) & set(map(str, defaults))
    engine.replay([Candidate(f"w{n}", each, Fidelity(1), 0) for n, each in enumerate(wanted)], ())
    assert [each.decision["phase"] for each in engine.suggest(6)] == ["mutual information"] * 6


def test_the_journal_of_a_search_keeps_its_defaults(file: Path, tmp_path: Path) -> None:
    header, space = header_of(file, Wishes())
    assert header.search is not None
    assert header.search.defaults == defaults_of(space, {"edsr": PUBLISHED["edsr"]}, published=True)
    with Journal.create_or_open(tmp_path / "run", header):
        pass
    with Journal.read(tmp_path / "run") as journal:
        assert journal.header.search == header.search


@pytest.mark.parametrize("text", ["[16]", "{}", "{features: [1]}"])
def test_a_default_that_is_no_architecture_is_refused(file: Path, text: str) -> None:
    file.write_text(FILE.replace("{features: 16, blocks: 3}", text))
    with pytest.raises(SpaceError, match=r"families.edsr.default"):
        load_space(file)
